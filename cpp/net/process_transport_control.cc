#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "net/process_transport_core.h"
#include "net/rpc_session.h"
#include "net/socket_address.h"

namespace persia {
namespace {

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }

constexpr uint32_t kWatchAlways = EPOLLIN | EPOLLRDHUP;

void Configure(int socket, const SocketAddress& peer) {
  const int one = 1, idle = 10, interval = 2, count = 5;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  // Notices a host that went without a word.
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
  // And one that does while data is on its way. The kernel ends a connection then too whose process is stopped and takes none,
  // so this is as long as roles wait for each other.
  const unsigned timeout_ms = 60'000;
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
  // Nothing is congested between here and here, but BBR, the default of some machines, paces what is sent: a fifth less.
  constexpr char kUnpaced[] = "reno";
  if (peer.IsLoopback()) setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, kUnpaced, sizeof(kUnpaced) - 1);
}

}  // namespace

void ProcessTransport::OnListener(int listener, const Acceptor& acceptor) {
  for (;;) {
    const int socket = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return;
    if (accepted_ >= options_.transport.max_peers) {
      close(socket);
      continue;
    }
    const SocketAddress from = SocketAddress::OfPeer(socket);
    Configure(socket, from);
    const auto peer = std::make_shared<Peer>();
    peer->accepted = true;
    peer->admitted.store(false, std::memory_order_relaxed);
    peer->acceptor = acceptor;
    peer->phase = Phase::kGreeting;
    peer->control = socket;
    peer->token = RandomNumber();
    peer->from = from.ToString();
    ++accepted_;
    {
      std::lock_guard lock(mutex_);
      peer->id = next_peer_++;
      peers_[peer->id] = peer;
    }
    peer->watched = kWatchAlways;
    loop_.Watch(socket, [this, peer](uint32_t events) { OnControl(peer, events); }, peer->watched);
    loop_.PostAt(SteadyClock::now() + std::chrono::milliseconds(options_.transport.connect_ms), [this, peer] {
      if (peer->phase == Phase::kGreeting) LosePeer(peer, Lost("it did not finish connecting in time"));
    });
  }
}

void ProcessTransport::StartConnecting(const PeerPtr& peer, const SocketAddress& address) {
  if (peer->phase != Phase::kConnecting) return;
  peer->control = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (peer->control < 0) return LosePeer(peer, Lost(std::string("no socket: ") + std::strerror(errno)));
  Configure(peer->control, address);
  if (connect(peer->control, address.get(), address.length()) != 0 && errno != EINPROGRESS) {
    return LosePeer(peer, Lost("cannot reach " + address.ToString() + ": " + std::strerror(errno)));
  }
  peer->watched = EPOLLOUT | EPOLLRDHUP;
  loop_.Watch(peer->control, [this, peer](uint32_t events) { OnControl(peer, events); }, peer->watched);
  loop_.PostAt(SteadyClock::now() + std::chrono::milliseconds(options_.transport.connect_ms), [this, peer, address] {
    if (peer->phase != Phase::kConnecting && peer->phase != Phase::kGreeting) return;
    LosePeer(peer, Lost(address.ToString() + " did not answer within " + std::to_string(options_.transport.connect_ms) + " ms"));
  });
}

void ProcessTransport::OnControl(const PeerPtr& peer, uint32_t events) {
  if (peer->phase == Phase::kLost) return;
  if (peer->phase == Phase::kConnecting) {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(peer->control, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return LosePeer(peer, Lost(std::string("cannot connect: ") + std::strerror(error)));
    if ((events & EPOLLOUT) == 0) return;
    peer->phase = Phase::kGreeting;
    return WriteControl(peer, EncodeOffer({options_.secret, options_.choice, reach_, peer->token}));
  }
  if ((events & EPOLLOUT) != 0) FlushControl(peer);
  if (peer->carrying) return OnStream(peer);
  const bool ended = !ReadControl(peer);
  TakeControls(peer);
  if (peer->phase == Phase::kLost) return;
  if (peer->carrying) return OnStream(peer);  // from now on; it finds the end, too
  if (!ended) return;
  // What UCX has not handed over yet may hold a goodbye and messages before it: a few more rounds.
  for (int round = 0; round < 64 && peer->phase == Phase::kOpen; ++round) Poll();
  if (peer->phase == Phase::kLeaving) return LosePeer(peer, Status(ErrorCode::kAborted, "disconnected"));
  LosePeer(peer, Lost("the other side has gone"));
}

// False: the other side has ended it.
bool ProcessTransport::ReadControl(const PeerPtr& peer) {
  // No more than once: what follows the last control message may be messages, of any length.
  std::array<char, 4096> bytes;
  const ssize_t count = recv(peer->control, bytes.data(), bytes.size(), 0);
  if (count == 0) return false;
  if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  peer->received.append(bytes.data(), static_cast<size_t>(count));
  return true;
}

void ProcessTransport::TakeControls(const PeerPtr& peer) {
  while (peer->phase != Phase::kLost) {
    Result<std::optional<ControlMessage>> message = NextControlMessage(&peer->received);
    if (!message.ok()) return LosePeer(peer, message.status());
    if (!message.value().has_value()) return;
    const Status taken = TakeControl(peer, *message.value());
    if (!taken.ok()) return LosePeer(peer, taken);
  }
}

void ProcessTransport::WriteControl(const PeerPtr& peer, const std::string& bytes) {
  peer->unsent += bytes;
  FlushControl(peer);
}

void ProcessTransport::FlushControl(const PeerPtr& peer) {
  while (!peer->unsent.empty()) {
    const ssize_t count = send(peer->control, peer->unsent.data(), peer->unsent.size(), MSG_NOSIGNAL);
    if (count <= 0) break;  // full: when there is room; an error shows when it is read
    peer->unsent.erase(0, static_cast<size_t>(count));
  }
  WatchControl(peer, !peer->unsent.empty());
}

void ProcessTransport::WatchControl(const PeerPtr& peer, bool for_room) {
  const uint32_t events = kWatchAlways | (for_room ? uint32_t{EPOLLOUT} : 0u);
  if (std::exchange(peer->watched, events) != events) loop_.Change(peer->control, events);
}

Status ProcessTransport::TakeControl(const PeerPtr& peer, const ControlMessage& message) {
  const Bytes body(reinterpret_cast<const std::byte*>(message.body.data()), message.body.size());
  if (peer->phase == Phase::kGreeting) {
    if (peer->accepted && message.kind == ControlKind::kOffer && peer->token_there == 0) return TakeOffer(peer, body);
    if (!peer->accepted && message.kind == ControlKind::kAnswer) return TakeAnswer(peer, body);
    if (!peer->accepted && message.kind == ControlKind::kRefuse) {
      return Status(ErrorCode::kRefused, "the connection was refused: " + DecodeRefusal(body));
    }
    if (peer->accepted && message.kind == ControlKind::kPlace && peer->token_there != 0) {
      const Result<std::string> place = DecodePlace(body);
      if (!place.ok()) return place.status();
      peer->handler = peer->acceptor(peer->id, peer->from);
      if (peer->handler == nullptr) return Lost("refused");
      return Open(peer, place.value());
    }
  }
  if (message.kind == ControlKind::kWake && peer->shm != nullptr) return Status::Ok();  // Poll comes after this
  return Status(ErrorCode::kProtocol, "a control message came out of turn");
}

Status ProcessTransport::TakeOffer(const PeerPtr& peer, Bytes body) {
  const Result<ControlOffer> offer = DecodeOffer(body);
  if (!offer.ok()) return offer.status();
  Result<ChosenTransport> chosen = ChooseTransport(options_.choice, reach_, offer.value().asked, offer.value().reach);
  Result<std::string> place = Status(ErrorCode::kRefused, "the secret is wrong");
  if (SameSecret(options_.secret, offer.value().secret)) {
    place = chosen.ok() ? MakePlace(peer, &chosen.value()) : chosen.status();
  }
  if (!place.ok()) {
    WriteControl(peer, EncodeRefusal(place.status().message()));
    return place.status();
  }
  peer->token_there = offer.value().token;
  peer->answer.chosen = chosen.value();
  by_token_[peer->token] = peer;
  WriteControl(peer, EncodeAnswer({chosen.value(), peer->token, place.value()}));
  return Status::Ok();
}

// What will carry the messages of an accepted peer, and where it is. Shared memory that there is no room for becomes
// another choice where nobody has asked for it.
Result<std::string> ProcessTransport::MakePlace(const PeerPtr& peer, ChosenTransport* chosen) {
  if (chosen->kind == TransportChoice::kShm) {
    auto link = ShmLink::Create();
    if (link.ok()) {
      peer->shm = link.value().get();
      peer->link = std::move(link.value());
      return peer->shm->name();
    }
    if (options_.choice == TransportChoice::kShm) return link.status();
    *chosen = {TransportChoice::kTcp, link.status().message()};
  }
  if (chosen->kind == TransportChoice::kTcp && !options_.tcp_by_ucx) return std::string();  // right here
  const Result<UcxEngine*> engine = EngineFor(chosen->kind, SocketAddress::OfSocket(peer->control).Interface());
  if (!engine.ok()) return engine.status();
  peer->engine = engine.value();
  return peer->engine->address();
}

Status ProcessTransport::TakeAnswer(const PeerPtr& peer, Bytes body) {
  const Result<ControlAnswer> answer = DecodeAnswer(body);
  if (!answer.ok()) return answer.status();
  peer->answer = answer.value();
  peer->token_there = answer.value().token;
  std::string place;
  if (answer.value().chosen.kind == TransportChoice::kShm) {
    auto link = ShmLink::Open(answer.value().place);
    if (!link.ok()) return link.status();
    peer->shm = link.value().get();
    peer->link = std::move(link.value());
  } else if (answer.value().chosen.kind != TransportChoice::kTcp || !answer.value().place.empty()) {
    const Result<UcxEngine*> engine =
        EngineFor(answer.value().chosen.kind, SocketAddress::OfSocket(peer->control).Interface());
    if (!engine.ok()) return engine.status();
    peer->engine = engine.value();
    place = peer->engine->address();
  }
  by_token_[peer->token] = peer;
  WriteControl(peer, EncodePlace(place));
  return Open(peer, answer.value().place);
}

// Both sides are known to each other: messages may go.
Status ProcessTransport::Open(const PeerPtr& peer, const std::string& place) {
  std::string device;
  if (peer->engine != nullptr) {
    PERSIA_RETURN_IF_ERROR(OpenEndpoint(peer, place));
    device = peer->engine->device() + (peer->engine->kind() == TransportChoice::kTcp ? ", by UCX" : "");
  } else {
    OpenStream(peer);
    if (peer->carrying) device = SocketAddress::OfSocket(peer->control).Interface();
  }
  peer->phase = Phase::kOpen;
  {
    std::lock_guard lock(mutex_);
    peer->description = TransportChoiceName(peer->answer.chosen.kind) + (device.empty() ? "" : " (" + device + ")") +
                        ", because " + peer->answer.chosen.why;
  }
  while (!peer->waiting.empty() && peer->phase == Phase::kOpen) {
    auto message = std::move(peer->waiting.front());
    peer->waiting.pop_front();
    Transmit(peer, std::move(message));
  }
  // The other side may have been quicker with its messages.
  if (peer->engine == nullptr) return Status::Ok();
  for (const auto& [number, arrived] : peer->arrived) to_fetch_.emplace_back(peer, number);
  to_deliver_.push_back(peer);
  return Status::Ok();
}

}  // namespace persia
