#include "net/process_transport.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "net/process_transport_core.h"
#include "net/rpc_session.h"
#include "net/socket_address.h"

namespace persia {
namespace {

constexpr std::chrono::milliseconds kLinger{1'000};  // for what was sent before a disconnect

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }

}  // namespace

// ------------------------------------------------------------------------------------------------ any thread

ProcessTransport::PeerPtr ProcessTransport::Find(PeerId peer) const {
  std::lock_guard lock(mutex_);
  const auto found = peers_.find(peer);
  return found == peers_.end() ? nullptr : found->second;
}

Result<std::string> ProcessTransport::Listen(const std::string& text, Acceptor acceptor) {
  const Result<SocketAddress> address = SocketAddress::Parse(text);
  if (!address.ok()) return address.status();
  const int listener = socket(address.value().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (listener < 0 || bind(listener, address.value().get(), address.value().length()) != 0 || listen(listener, 128) != 0) {
    const std::string why = std::strerror(errno);
    if (listener >= 0) close(listener);
    return Status(ErrorCode::kTransport, "cannot listen at " + text + ": " + why);
  }
  const std::string taken = SocketAddress::OfSocket(listener).ToString();
  {
    std::lock_guard lock(mutex_);
    if (closed_) {
      close(listener);
      return Status(ErrorCode::kClosed, "the transport was closed");
    }
    listeners_.push_back(listener);
  }
  loop_.Post([this, listener, acceptor = std::move(acceptor)] {
    loop_.Watch(listener, [this, listener, acceptor](uint32_t) { OnListener(listener, acceptor); }, EPOLLIN);
  });
  return taken;
}

Result<PeerId> ProcessTransport::Connect(const std::string& text, std::shared_ptr<PeerHandler> handler) {
  const Result<SocketAddress> address = SocketAddress::Parse(text);
  if (!address.ok()) return Status(ErrorCode::kUsage, address.status().message());
  const auto peer = std::make_shared<Peer>();
  peer->handler = std::move(handler);
  peer->token = RandomNumber();
  {
    std::lock_guard lock(mutex_);
    if (closed_) return Status(ErrorCode::kClosed, "the transport was closed");
    peer->id = next_peer_++;
    peers_[peer->id] = peer;
  }
  loop_.Post([this, peer, to = address.value()] { StartConnecting(peer, to); });
  return peer->id;
}

Status ProcessTransport::Send(PeerId id, const MessageHeader& header, Payload payload) {
  const TransportOptions& limits = options_.transport;
  if (payload.bytes() > limits.limits.max_payload_bytes) {
    return Status(ErrorCode::kUsage, "a message of " + std::to_string(payload.bytes()) + " bytes is over the limit of " +
                                         std::to_string(limits.limits.max_payload_bytes));
  }
  PeerPtr peer;
  bool stuck;
  {
    std::lock_guard lock(mutex_);
    const auto found = peers_.find(id);
    if (found == peers_.end() || !found->second->open) return Lost("the connection has ended");
    peer = found->second;
    peer->queued_bytes += payload.bytes();
    stuck = peer->queued_bytes > limits.max_queued_bytes;
    if (stuck) peer->open = false;
  }
  if (stuck) {
    loop_.Post([this, peer] { LosePeer(peer, Lost("it does not take what is sent to it")); });
    return Lost("the other side does not take what is sent to it");
  }
  auto message = std::make_unique<Outgoing>();
  message->head.message = header;
  SealMessage(payload, &message->head.message);
  message->payload = std::move(payload);
  if (loop_.OnLoop()) {
    Transmit(peer, std::move(message));
    return Status::Ok();
  }
  // A std::function has to be copyable, so the message is held by a shared pointer until it is taken out.
  loop_.Post([this, peer, held = std::make_shared<std::unique_ptr<Outgoing>>(std::move(message))] {
    Transmit(peer, std::move(*held));
  });
  return Status::Ok();
}

void ProcessTransport::Admit(PeerId id) {
  std::lock_guard lock(mutex_);
  const auto found = peers_.find(id);
  if (found != peers_.end()) found->second->admitted.store(true, std::memory_order_relaxed);
}

void ProcessTransport::Disconnect(PeerId id) {
  PeerPtr peer;
  {
    std::lock_guard lock(mutex_);
    const auto found = peers_.find(id);
    if (found == peers_.end() || !found->second->open) return;
    peer = found->second;
    peer->open = false;
  }
  loop_.Post([this, peer] { Leave(peer); });
}

std::string ProcessTransport::Describe(PeerId id) const {
  std::lock_guard lock(mutex_);
  const auto found = peers_.find(id);
  return found == peers_.end() ? "not connected" : found->second->description;
}

void ProcessTransport::Close() {
  {
    std::unique_lock lock(mutex_);
    if (!std::exchange(closed_, true)) loop_.Post([this] { LeaveAll(); });
    peer_gone_.wait_for(lock, kLinger, [&] { return peers_.empty(); });
  }
  loop_.Stop([this] { CloseAll(); });
}

// ------------------------------------------------------------------------------------------------ messages

bool ProcessTransport::Poll() {
  const bool any = PollUcx();
  return PollStreams() || any;
}

bool ProcessTransport::Arm() { return ArmUcx() && ArmStreams(); }

void ProcessTransport::Transmit(const PeerPtr& peer, std::unique_ptr<Outgoing> message) {
  if (peer->phase == Phase::kConnecting || peer->phase == Phase::kGreeting) {
    peer->waiting.push_back(std::move(message));
    return;
  }
  if (peer->phase != Phase::kOpen) return;  // lost, or a message behind a goodbye
  message->head.token = peer->token_there;
  message->head.number = peer->next_out++;
  if (message->goodbye) peer->phase = Phase::kLeaving;
  if (peer->link == nullptr) return TransmitByUcx(peer, std::move(message));
  peer->writer.Add(std::move(message));
  WriteStream(peer);
}

// Says goodbye behind everything that was sent. The other side then ends the control connection.
void ProcessTransport::Leave(const PeerPtr& peer) {
  const Status done(ErrorCode::kAborted, "disconnected");
  if (peer->phase == Phase::kLost || peer->phase == Phase::kLeaving) return;
  if (peer->phase != Phase::kOpen && peer->waiting.empty()) return LosePeer(peer, done);
  auto goodbye = std::make_unique<Outgoing>();
  goodbye->goodbye = true;
  goodbye->head.message.magic = 0;
  Transmit(peer, std::move(goodbye));
  loop_.PostAt(SteadyClock::now() + kLinger, [this, peer, done] { LosePeer(peer, done); });
}

// Of a head that came; no memory is taken before it is right.
Status ProcessTransport::CheckFrame(const Peer& peer, Bytes head, size_t length, Arrived* arrived) const {
  arrived->goodbye = head.empty();
  if (arrived->goodbye) return Status::Ok();
  PERSIA_RETURN_IF_ERROR(ParseHeader(head, options_.transport.limits, &arrived->header));
  // One that was quicker than its place is looked at again once its handler could admit it.
  if (peer.phase != Phase::kGreeting) PERSIA_RETURN_IF_ERROR(CheckAdmitted(peer, length));
  if (arrived->header.payload_bytes == length) return Status::Ok();
  return Status(ErrorCode::kProtocol, "a message has " + std::to_string(length) + " bytes where its header says " +
                                          std::to_string(arrived->header.payload_bytes));
}

Status ProcessTransport::CheckAdmitted(const Peer& peer, size_t payload_bytes) const {
  if (payload_bytes <= kMostUnadmittedBytes || peer.admitted.load(std::memory_order_relaxed)) return Status::Ok();
  return Status(ErrorCode::kProtocol, "a message of " + std::to_string(payload_bytes) + " bytes came from a stranger");
}

// `checksum` is that of the payload as it came.
void ProcessTransport::Deliver(const PeerPtr& peer, const MessageHeader& header, Buffer payload, uint64_t checksum) {
  Status good = CheckAdmitted(*peer, payload.size());
  if (good.ok()) good = CheckPayload(header, payload.size(), checksum);
  if (!good.ok()) return LosePeer(peer, good);
  if (peer->phase == Phase::kOpen) peer->handler->OnMessage(peer->id, header, std::move(payload));
}

// So many bytes of a peer's payloads are out.
void ProcessTransport::Unqueue(Peer* peer, size_t bytes) {
  std::lock_guard lock(mutex_);
  peer->queued_bytes -= bytes;
}

// ------------------------------------------------------------------------------------------------ ending

void ProcessTransport::LosePeer(const PeerPtr& peer, const Status& reason) {
  if (std::exchange(peer->phase, Phase::kLost) == Phase::kLost) return;
  if (peer->control >= 0) {
    loop_.Unwatch(peer->control);
    close(std::exchange(peer->control, -1));
  }
  by_token_.erase(peer->token);
  CloseEndpoint(peer.get());
  peer->waiting.clear();
  peer->writer.Clear();
  peer->reader.Clear();
  std::erase(polled_, peer);
  if (peer->accepted) --accepted_;
  bool closed;
  {
    std::lock_guard lock(mutex_);
    peer->open = false;
    closed = closed_;
  }
  const auto handler = std::move(peer->handler);
  if (handler != nullptr) handler->OnLost(peer->id, closed ? Status(ErrorCode::kClosed, "the transport was closed") : reason);
  std::lock_guard lock(mutex_);
  peers_.erase(peer->id);
  if (peers_.empty()) peer_gone_.notify_all();
}

void ProcessTransport::LeaveAll() {
  std::vector<PeerPtr> peers;
  {
    std::lock_guard lock(mutex_);
    for (const int listener : listeners_) {
      loop_.Unwatch(listener);
      close(listener);
    }
    listeners_.clear();
    for (const auto& [id, peer] : peers_) {
      peer->open = false;
      peers.push_back(peer);
    }
  }
  for (const PeerPtr& peer : peers) Leave(peer);
}

// The last thing on the progress thread.
void ProcessTransport::CloseAll() {
  LeaveAll();
  std::vector<PeerPtr> peers;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, peer] : peers_) peers.push_back(peer);
  }
  for (const PeerPtr& peer : peers) LosePeer(peer, Lost("closed"));
  CloseUcx();
}

Result<std::unique_ptr<Transport>> MakeProcessTransport(const ProcessTransportOptions& options) {
  TransportReach reach = LocalReach();
  const UcxApi* ucx = nullptr;
  if (!reach.rdma_devices.empty() || options.tcp_by_ucx) {
    // Here, not on the progress thread: it changes the environment.
    const Result<const UcxApi*> loaded = LoadUcx();
    if (loaded.ok()) {
      ucx = loaded.value();
    } else if (options.tcp_by_ucx) {
      return loaded.status();
    } else {
      reach.rdma_devices.clear();
      reach.no_rdma = loaded.status().message();
    }
  }
  if (options.choice == TransportChoice::kRdma && reach.rdma_devices.empty()) {
    return Status(ErrorCode::kTransport, "rdma: " + reach.no_rdma);
  }
  if (options.choice == TransportChoice::kShm && reach.host.empty()) {
    return Status(ErrorCode::kTransport, "shm: there is no /dev/shm");
  }
  return std::unique_ptr<Transport>(std::make_unique<ProcessTransport>(ucx, reach, options));
}

std::string DescribeTransports() {
  const TransportReach reach = LocalReach();
  std::string text = std::string("shm: ") + (reach.host.empty() ? "there is no /dev/shm" : "works between processes of this host");
  const Result<const UcxApi*> ucx = LoadUcx();
  if (reach.rdma_devices.empty()) {
    text += "\nrdma: " + reach.no_rdma;
  } else if (!ucx.ok()) {
    text += "\nrdma: " + ucx.status().message();
  } else {
    const std::string& device = reach.rdma_devices.front();
    const auto ignore = [](void*, const void*, size_t, void*, size_t, const ucp_am_recv_param_t*) { return UCS_OK; };
    const auto engine = UcxEngine::Make(*ucx.value(), TransportChoice::kRdma, device, ignore, nullptr);
    text += "\nrdma: " + (engine.ok() ? "works (" + device + ")" : engine.status().message());
  }
  text += "\ntcp: works";
  if (!ucx.ok()) return text + "\nucx: " + ucx.status().message();
  return text + "\nucx: " + ucx.value()->version + " (" + ucx.value()->path + ")";
}

}  // namespace persia
