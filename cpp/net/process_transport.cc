#include "net/process_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "net/control_message.h"
#include "net/event_loop.h"
#include "net/rpc_session.h"
#include "net/shm_link.h"
#include "net/socket_address.h"
#include "net/ucx_engine.h"

namespace persia {
namespace {

constexpr std::chrono::milliseconds kLinger{1'000};  // for what was sent before a disconnect
constexpr std::chrono::milliseconds kDrain{5'000};   // for UCX to end what it has, when a transport closes

// What goes before each payload. A goodbye is the first two fields alone; in shared memory, a header of zeros.
struct FrameHead {
  uint64_t token;
  uint64_t number;  // 0, 1, … of its connection and direction
  MessageHeader message;
};
static_assert(sizeof(FrameHead) == 16 + sizeof(MessageHeader));
constexpr size_t kGoodbyeBytes = 16;

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }
std::string ErrnoText() { return std::strerror(errno); }

class ProcessTransport;

// A message on its way out; lives until UCX is done with it.
struct Outgoing {
  ProcessTransport* transport = nullptr;
  PeerId peer = 0;
  bool goodbye = false;
  FrameHead head{};
  Payload payload;
  std::array<ucp_dt_iov_t, Payload::kMostPieces> pieces{};
};

// A message that came, on its way to its turn.
struct Arrived {
  MessageHeader header;
  Buffer payload;
  void* descriptor = nullptr;  // of UCX: what a payload that is not fetched yet is fetched by
  bool whole = true;           // false: the payload is being fetched
  bool goodbye = false;
};

enum class Phase {
  kConnecting,  // the socket
  kGreeting,    // control messages go back and forth
  kOpen,
  kLeaving,     // goodbye was sent; until the other side ends the control connection
  kLost,
};

// The progress thread's, except where said.
struct Peer {
  PeerId id = 0;
  bool accepted = false;
  Phase phase = Phase::kConnecting;
  std::shared_ptr<PeerHandler> handler;
  Acceptor acceptor;
  std::string from;
  int control = -1;
  std::string received, unsent;  // of the control connection
  uint64_t token = 0;        // in messages that come
  uint64_t token_there = 0;  // in messages that go
  ControlAnswer answer;
  UcxEngine* engine = nullptr;
  ucp_ep_h endpoint = nullptr;
  bool wired = false;  // a message has come by UCX: both ends of the endpoint are connected
  std::deque<std::unique_ptr<Outgoing>> waiting;  // for the endpoint
  uint64_t next_out = 0, next_in = 0;
  std::map<uint64_t, Arrived> arrived;  // from next_in on

  // Shared memory: what is being written and read, and how far that is.
  std::unique_ptr<ShmLink> link;
  std::deque<std::unique_ptr<Outgoing>> writing;
  size_t written = 0;  // of the first message, with its head
  FrameHead reading{};
  size_t read_bytes = 0;  // of the head, then of the payload
  Arrived arriving;

  // Guarded by the transport's mutex.
  bool open = true;  // takes messages
  bool admitted = true;
  uint64_t queued_bytes = 0;
  std::string description = "not connected yet";
};
using PeerPtr = std::shared_ptr<Peer>;

// What is being fetched.
struct Fetch {
  ProcessTransport* transport;
  PeerId peer;
  uint64_t number;
  Buffer payload;  // outlives a peer that is lost meanwhile
};

class ProcessTransport final : public Transport, private Poller {
 public:
  // `ucx` may be null: shared memory only.
  ProcessTransport(const UcxApi* ucx, const ProcessTransportOptions& options)
      : ucx_(ucx), options_(options), reach_(LocalReach()), loop_("net", options.transport.spin_us, this) {}
  ~ProcessTransport() override { Close(); }

  Result<std::string> Listen(const std::string& address, Acceptor acceptor) override;
  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) override;
  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override;
  void Admit(PeerId peer) override;
  void Disconnect(PeerId peer) override;
  void Post(std::function<void()> task) override { loop_.Post(std::move(task)); }
  void PostAt(SteadyClock::time_point time, std::function<void()> task) override { loop_.PostAt(time, std::move(task)); }
  bool OnProgressThread() const override { return loop_.OnLoop(); }
  void Close() override;
  std::string Describe(PeerId peer) const override;

 private:
  // All of these run on the progress thread.
  bool Poll() override;
  bool Arm() override;

  void OnListener(int listener, const Acceptor& acceptor);
  void StartConnecting(const PeerPtr& peer, const SocketAddress& address);
  void OnControl(const PeerPtr& peer, uint32_t events);
  bool ReadControl(const PeerPtr& peer);
  void WriteControl(const PeerPtr& peer, const std::string& bytes);
  void FlushControl(const PeerPtr& peer);
  Status TakeControl(const PeerPtr& peer, const ControlMessage& message);
  Status TakeOffer(const PeerPtr& peer, Bytes body);
  Status TakeAnswer(const PeerPtr& peer, Bytes body);
  Status OpenEndpoint(const PeerPtr& peer, const std::string& worker);
  Result<UcxEngine*> EngineFor(TransportChoice kind, const std::string& interface);
  Result<std::string> MakePlace(const PeerPtr& peer, ChosenTransport* chosen);
  Status Open(const PeerPtr& peer, const std::string& place);

  void Transmit(const PeerPtr& peer, std::unique_ptr<Outgoing> message);
  void TransmitByUcx(const PeerPtr& peer, std::unique_ptr<Outgoing> message);
  void Sent(Outgoing* message, ucs_status_t status);
  static void OnSent(void* request, ucs_status_t status, void* user_data);
  void Leave(const PeerPtr& peer);

  static ucs_status_t OnFrame(void* arg, const void* header, size_t header_length, void* data, size_t length,
                              const ucp_am_recv_param_t* param);
  ucs_status_t TakeFrame(Bytes head, void* data, size_t length, uint64_t attributes);
  Status CheckFrame(const Peer& peer, Bytes head, size_t length, Arrived* arrived);
  Status CheckAdmitted(const Peer& peer, size_t payload_bytes) const;
  void FetchPayload(const PeerPtr& peer, uint64_t number);
  static void OnFetched(void* request, ucs_status_t status, size_t length, void* user_data);
  void Fetched(Fetch* fetch, ucs_status_t status);
  void DeliverInOrder(const PeerPtr& peer);
  void Deliver(const PeerPtr& peer, Arrived arrived);
  bool PollLinks();
  bool WriteLink(const PeerPtr& peer);
  bool ReadLink(const PeerPtr& peer);
  bool ReadLinkHead(const PeerPtr& peer);
  void WakeOther(const PeerPtr& peer);
  void DeliverArrivals();
  static void OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status);

  void LosePeer(const PeerPtr& peer, const Status& reason);
  void CloseEndpoint(Peer* peer);
  void LeaveAll();
  void CloseAll();

  PeerPtr Find(PeerId peer) const;

  const UcxApi* const ucx_;
  const ProcessTransportOptions options_;
  const TransportReach reach_;

  mutable std::mutex mutex_;  // guards these, and of the peers what they say
  std::condition_variable peer_gone_;
  std::vector<int> listeners_;
  std::map<PeerId, PeerPtr> peers_;
  PeerId next_peer_ = 1;
  bool closed_ = false;

  // The progress thread's.
  std::map<std::pair<TransportChoice, std::string>, std::unique_ptr<UcxEngine>> engines_;
  std::map<uint64_t, PeerPtr> by_token_;
  std::map<ucp_ep_h, PeerPtr> by_endpoint_;
  std::vector<PeerPtr> linked_;  // by shared memory
  std::vector<PeerPtr> to_deliver_;                        // have arrivals since the last look
  std::vector<std::pair<PeerPtr, uint64_t>> to_fetch_;     // numbers of messages
  std::vector<std::pair<PeerPtr, Status>> to_lose_;        // found inside UCX's callbacks
  std::vector<void*> closing_;                             // UCX's requests to close endpoints
  uint64_t in_ucx_ = 0;                                    // messages that UCX has, out and in
  uint32_t accepted_ = 0;

  EventLoop loop_;  // last: its thread uses all of the above
};

// ------------------------------------------------------------------------------------------------ any thread

PeerPtr ProcessTransport::Find(PeerId peer) const {
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
    const std::string why = ErrnoText();
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
  message->transport = this;
  message->peer = id;
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
  if (found != peers_.end()) found->second->admitted = true;
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

// ------------------------------------------------------------------------------------------------ the control connection

void Configure(int socket) {
  const int one = 1, idle = 10, interval = 2, count = 5;
  const unsigned timeout_ms = 20'000;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  // Notices a host that went without a word.
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

void ProcessTransport::OnListener(int listener, const Acceptor& acceptor) {
  for (;;) {
    const int socket = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return;
    if (accepted_ >= options_.transport.max_peers) {
      close(socket);
      continue;
    }
    Configure(socket);
    const auto peer = std::make_shared<Peer>();
    peer->accepted = true;
    peer->admitted = false;
    peer->acceptor = acceptor;
    peer->phase = Phase::kGreeting;
    peer->control = socket;
    peer->token = RandomNumber();
    peer->from = SocketAddress::OfPeer(socket).ToString();
    ++accepted_;
    {
      std::lock_guard lock(mutex_);
      peer->id = next_peer_++;
      peers_[peer->id] = peer;
    }
    loop_.Watch(socket, [this, peer](uint32_t events) { OnControl(peer, events); }, EPOLLIN | EPOLLRDHUP);
    loop_.PostAt(SteadyClock::now() + std::chrono::milliseconds(options_.transport.connect_ms), [this, peer] {
      if (peer->phase == Phase::kGreeting) LosePeer(peer, Lost("it did not finish connecting in time"));
    });
  }
}

void ProcessTransport::StartConnecting(const PeerPtr& peer, const SocketAddress& address) {
  if (peer->phase != Phase::kConnecting) return;
  peer->control = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (peer->control < 0) return LosePeer(peer, Lost("no socket: " + ErrnoText()));
  Configure(peer->control);
  if (connect(peer->control, address.get(), address.length()) != 0 && errno != EINPROGRESS) {
    return LosePeer(peer, Lost("cannot reach " + address.ToString() + ": " + ErrnoText()));
  }
  loop_.Watch(peer->control, [this, peer](uint32_t events) { OnControl(peer, events); }, EPOLLOUT | EPOLLRDHUP);
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
    loop_.Change(peer->control, EPOLLIN | EPOLLRDHUP);
    return WriteControl(peer, EncodeOffer({options_.secret, options_.choice, reach_, peer->token}));
  }
  if ((events & EPOLLOUT) != 0) FlushControl(peer);
  const bool ended = !ReadControl(peer);
  while (peer->phase != Phase::kLost) {
    Result<std::optional<ControlMessage>> message = NextControlMessage(&peer->received);
    if (!message.ok()) return LosePeer(peer, message.status());
    if (!message.value().has_value()) break;
    const Status taken = TakeControl(peer, *message.value());
    if (!taken.ok()) return LosePeer(peer, taken);
  }
  if (!ended || peer->phase == Phase::kLost) return;
  // What UCX has not handed over yet may hold a goodbye and messages before it: a few more rounds.
  for (int round = 0; round < 64 && peer->phase == Phase::kOpen; ++round) Poll();
  if (peer->phase == Phase::kLeaving) return LosePeer(peer, Status(ErrorCode::kAborted, "disconnected"));
  LosePeer(peer, Lost("the other side has gone"));
}

// False: the other side has ended it.
bool ProcessTransport::ReadControl(const PeerPtr& peer) {
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t count = recv(peer->control, bytes.data(), bytes.size(), 0);
    if (count == 0) return false;
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    peer->received.append(bytes.data(), static_cast<size_t>(count));
    if (peer->received.size() > 2 * ControlHead::kMostBodyBytes) return false;
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
  loop_.Change(peer->control, EPOLLIN | EPOLLRDHUP | (peer->unsent.empty() ? 0u : uint32_t{EPOLLOUT}));
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
  if (message.kind == ControlKind::kWake && peer->link != nullptr) return Status::Ok();  // Poll comes after this
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
      peer->link = std::move(link.value());
      return peer->link->name();
    }
    if (options_.choice == TransportChoice::kShm || ucx_ == nullptr) return link.status();
    *chosen = {TransportChoice::kTcp, link.status().message()};
  }
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
    peer->link = std::move(link.value());
  } else {
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
  if (peer->link != nullptr) {
    peer->link->Unlink();
    linked_.push_back(peer);
  } else {
    PERSIA_RETURN_IF_ERROR(OpenEndpoint(peer, place));
  }
  peer->phase = Phase::kOpen;
  {
    std::lock_guard lock(mutex_);
    const std::string device = peer->engine != nullptr ? " (" + peer->engine->device() + ")" : "";
    peer->description = TransportChoiceName(peer->answer.chosen.kind) + device + ", because " + peer->answer.chosen.why;
  }
  while (!peer->waiting.empty() && peer->phase == Phase::kOpen) {
    auto message = std::move(peer->waiting.front());
    peer->waiting.pop_front();
    Transmit(peer, std::move(message));
  }
  // The other side may have been quicker with its messages.
  for (const auto& [number, arrived] : peer->arrived) to_fetch_.emplace_back(peer, number);
  to_deliver_.push_back(peer);
  return Status::Ok();
}

Result<UcxEngine*> ProcessTransport::EngineFor(TransportChoice kind, const std::string& interface) {
  if (ucx_ == nullptr) return LoadUcx().status();
  std::string device;
  if (kind == TransportChoice::kTcp) device = interface;
  if (kind == TransportChoice::kRdma) {
    if (reach_.rdma_devices.empty()) return Status(ErrorCode::kTransport, reach_.no_rdma);
    device = reach_.rdma_devices.front();
  }
  auto& engine = engines_[{kind, device}];
  if (engine == nullptr) {
    auto made = UcxEngine::Make(*ucx_, kind, device, OnFrame, this);
    if (!made.ok()) return made.status();
    engine = std::move(made.value());
    loop_.Watch(engine->event_fd(), [](uint32_t) {}, EPOLLIN);  // only to wake up; Poll does the rest
  }
  return engine.get();
}

// ------------------------------------------------------------------------------------------------ sending

Status ProcessTransport::OpenEndpoint(const PeerPtr& peer, const std::string& worker) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_FLAGS;
  params.address = reinterpret_cast<const ucp_address_t*>(worker.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = OnEndpointError;
  params.err_handler.arg = this;
  params.flags = UCP_EP_PARAMS_FLAGS_NO_LOOPBACK;
  const ucs_status_t status = ucx_->ep_create(peer->engine->worker(), &params, &peer->endpoint);
  if (status != UCS_OK) {
    peer->endpoint = nullptr;
    return Status(ErrorCode::kTransport, std::string("UCX cannot reach the other side by ") +
                                             TransportChoiceName(peer->engine->kind()) + ": " + ucx_->status_string(status));
  }
  by_endpoint_[peer->endpoint] = peer;
  return Status::Ok();
}

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
  peer->writing.push_back(std::move(message));
  WriteLink(peer);
}

void ProcessTransport::TransmitByUcx(const PeerPtr& peer, std::unique_ptr<Outgoing> message) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.cb.send = OnSent;
  param.user_data = message.get();
  const Payload& payload = message->payload;
  const void* data = payload.pieces() > 0 ? payload.piece(0).data() : nullptr;
  size_t count = payload.bytes();
  param.datatype = ucp_dt_make_contig(1);
  if (payload.pieces() > 1) {
    for (size_t i = 0; i < payload.pieces(); ++i) {
      message->pieces[i].buffer = const_cast<std::byte*>(payload.piece(i).data());  // UCX only reads it
      message->pieces[i].length = payload.piece(i).size();
    }
    param.datatype = UCP_DATATYPE_IOV;
    data = message->pieces.data();
    count = payload.pieces();
  }
  ++in_ucx_;
  Outgoing* const raw = message.release();
  const size_t head_bytes = raw->goodbye ? kGoodbyeBytes : sizeof(FrameHead);
  const ucs_status_ptr_t request = ucx_->am_send(peer->endpoint, 0, &raw->head, head_bytes, data, count, &param);
  if (UCS_PTR_IS_PTR(request)) return;  // OnSent comes
  Sent(raw, UCS_PTR_STATUS(request));
}

void ProcessTransport::OnSent(void* request, ucs_status_t status, void* user_data) {
  auto* message = static_cast<Outgoing*>(user_data);
  ProcessTransport* const transport = message->transport;
  transport->Sent(message, status);
  transport->ucx_->request_free(request);
}

void ProcessTransport::Sent(Outgoing* raw, ucs_status_t status) {
  const std::unique_ptr<Outgoing> message(raw);
  --in_ucx_;
  const PeerPtr peer = Find(message->peer);
  if (peer == nullptr) return;
  {
    std::lock_guard lock(mutex_);
    peer->queued_bytes -= message->payload.bytes();
  }
  // A lost peer's messages end with an error too; it is known already.
  if (status != UCS_OK && peer->phase != Phase::kLost) {
    to_lose_.emplace_back(peer, Lost(std::string("UCX could not send: ") + ucx_->status_string(status)));
  }
}

// Says goodbye behind everything that was sent. The other side then ends the control connection.
void ProcessTransport::Leave(const PeerPtr& peer) {
  const Status done(ErrorCode::kAborted, "disconnected");
  if (peer->phase == Phase::kLost || peer->phase == Phase::kLeaving) return;
  if (peer->phase != Phase::kOpen && peer->waiting.empty()) return LosePeer(peer, done);
  auto goodbye = std::make_unique<Outgoing>();
  goodbye->transport = this;
  goodbye->peer = peer->id;
  goodbye->goodbye = true;
  goodbye->head.message.magic = 0;
  Transmit(peer, std::move(goodbye));
  loop_.PostAt(SteadyClock::now() + kLinger, [this, peer, done] { LosePeer(peer, done); });
}

// ------------------------------------------------------------------------------------------------ receiving

bool ProcessTransport::Poll() {
  bool any = false;
  for (const auto& [key, engine] : engines_) any = (engine != nullptr && engine->Progress()) || any;
  any = PollLinks() || any;
  DeliverArrivals();
  return any;
}

bool ProcessTransport::Arm() {
  for (const auto& [key, engine] : engines_) {
    if (engine != nullptr && !engine->Arm()) return false;
  }
  // All of them, so that none is left without having said that it sleeps.
  bool sleeps = true;
  for (const PeerPtr& peer : linked_) sleeps = peer->link->Sleep(!peer->writing.empty()) && sleeps;
  return sleeps;
}

ucs_status_t ProcessTransport::OnFrame(void* arg, const void* header, size_t header_length, void* data, size_t length,
                                   const ucp_am_recv_param_t* param) {
  const Bytes head(static_cast<const std::byte*>(header), header_length);
  return static_cast<ProcessTransport*>(arg)->TakeFrame(head, data, length, param->recv_attr);
}

// Inside UCX: nobody is called back from here, and no peer is lost.
ucs_status_t ProcessTransport::TakeFrame(Bytes head, void* data, size_t length, uint64_t attributes) {
  const bool fetch = (attributes & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  const ucs_status_t drop = fetch ? UCS_ERR_REJECTED : UCS_OK;
  std::array<uint64_t, 2> ids{};
  if (head.size() < kGoodbyeBytes) return drop;
  std::memcpy(ids.data(), head.data(), kGoodbyeBytes);
  const auto found = by_token_.find(ids[0]);
  if (found == by_token_.end()) return drop;  // of a connection that has ended, or nobody's
  const PeerPtr peer = found->second;
  peer->wired = true;
  Arrived arrived;
  const Status good = CheckFrame(*peer, head.subspan(kGoodbyeBytes), length, &arrived);
  if (!good.ok() || ids[1] < peer->next_in || peer->arrived.contains(ids[1])) {
    to_lose_.emplace_back(peer, good.ok() ? Status(ErrorCode::kProtocol, "a message came twice") : good);
    return drop;
  }
  if (fetch) {
    arrived.descriptor = data;
    arrived.whole = false;
    to_fetch_.emplace_back(peer, ids[1]);
  } else if (!arrived.goodbye) {
    arrived.payload = Buffer::CopyOf({static_cast<const std::byte*>(data), length});
  }
  peer->arrived.emplace(ids[1], std::move(arrived));
  to_deliver_.push_back(peer);
  return fetch ? UCS_INPROGRESS : UCS_OK;
}

Status ProcessTransport::CheckFrame(const Peer& peer, Bytes head, size_t length, Arrived* arrived) {
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
  std::lock_guard lock(mutex_);
  if (peer.admitted || payload_bytes <= kMostUnadmittedBytes) return Status::Ok();
  return Status(ErrorCode::kProtocol, "a message of " + std::to_string(payload_bytes) + " bytes came from a stranger");
}

void ProcessTransport::FetchPayload(const PeerPtr& peer, uint64_t number) {
  const auto found = peer->arrived.find(number);
  if (found == peer->arrived.end() || found->second.descriptor == nullptr) return;
  if (peer->phase == Phase::kGreeting) return;  // Open asks again
  const size_t bytes = found->second.header.payload_bytes;
  const Status good = CheckAdmitted(*peer, bytes);
  if (!good.ok()) return LosePeer(peer, good);
  void* const descriptor = std::exchange(found->second.descriptor, nullptr);
  auto fetch = std::make_unique<Fetch>(Fetch{this, peer->id, number, Buffer(bytes)});
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.cb.recv_am = OnFetched;
  param.user_data = fetch.get();
  param.datatype = ucp_dt_make_contig(1);
  ++in_ucx_;
  Fetch* const raw = fetch.release();
  const ucs_status_ptr_t request =
      ucx_->am_recv_data(peer->engine->worker(), descriptor, raw->payload.data(), bytes, &param);
  if (UCS_PTR_IS_PTR(request)) return;  // OnFetched comes
  Fetched(raw, UCS_PTR_STATUS(request));
}

void ProcessTransport::OnFetched(void* request, ucs_status_t status, size_t, void* user_data) {
  auto* fetch = static_cast<Fetch*>(user_data);
  ProcessTransport* const transport = fetch->transport;
  transport->Fetched(fetch, status);
  transport->ucx_->request_free(request);
}

void ProcessTransport::Fetched(Fetch* raw, ucs_status_t status) {
  const std::unique_ptr<Fetch> fetch(raw);
  --in_ucx_;
  const PeerPtr peer = Find(fetch->peer);
  if (peer == nullptr) return;
  const auto found = peer->arrived.find(fetch->number);
  if (found == peer->arrived.end()) return;
  if (status != UCS_OK) {
    to_lose_.emplace_back(peer, Lost(std::string("UCX could not fetch a message: ") + ucx_->status_string(status)));
    return;
  }
  found->second.payload = std::move(fetch->payload);
  found->second.whole = true;
  to_deliver_.push_back(peer);
}

// What UCX's callbacks have noted, now that it has returned.
void ProcessTransport::DeliverArrivals() {
  while (!to_fetch_.empty() || !to_deliver_.empty() || !to_lose_.empty()) {
    for (const auto& [peer, number] : std::exchange(to_fetch_, {})) FetchPayload(peer, number);
    for (const PeerPtr& peer : std::exchange(to_deliver_, {})) DeliverInOrder(peer);
    for (const auto& [peer, reason] : std::exchange(to_lose_, {})) LosePeer(peer, reason);
  }
  std::erase_if(closing_, [&](void* request) {
    if (ucx_->request_check_status(request) == UCS_INPROGRESS) return false;
    ucx_->request_free(request);
    return true;
  });
}

void ProcessTransport::DeliverInOrder(const PeerPtr& peer) {
  // A client may be quicker with its messages than with its place, over two connections: these wait for Open.
  while (peer->phase == Phase::kOpen || peer->phase == Phase::kLeaving) {
    const auto first = peer->arrived.find(peer->next_in);
    if (first == peer->arrived.end() || !first->second.whole) return;
    Arrived arrived = std::move(first->second);
    peer->arrived.erase(first);
    ++peer->next_in;
    Deliver(peer, std::move(arrived));
  }
}

void ProcessTransport::Deliver(const PeerPtr& peer, Arrived arrived) {
  if (arrived.goodbye) return LosePeer(peer, Lost("the other side ended the connection"));
  Status good = CheckAdmitted(*peer, arrived.payload.size());
  if (good.ok()) good = CheckPayload(arrived.header, arrived.payload.bytes());
  if (!good.ok()) return LosePeer(peer, good);
  if (peer->phase == Phase::kOpen) peer->handler->OnMessage(peer->id, arrived.header, std::move(arrived.payload));
}

// ------------------------------------------------------------------------------------------------ shared memory

bool ProcessTransport::PollLinks() {
  bool any = false;
  // A callback may lose peers, which changes the list.
  for (size_t i = 0; i < linked_.size(); ++i) {
    const PeerPtr peer = linked_[i];
    bool moved = ReadLink(peer);
    if (peer->phase != Phase::kLost) moved = WriteLink(peer) || moved;
    any = any || moved;
  }
  return any;
}

// Writes what there is room for. False: nothing.
bool ProcessTransport::WriteLink(const PeerPtr& peer) {
  bool any = false;
  while (!peer->writing.empty()) {
    Outgoing& message = *peer->writing.front();
    const Bytes head(reinterpret_cast<const std::byte*>(&message.head), sizeof(FrameHead));
    size_t begin = 0;  // of the piece, in the message
    size_t wrote = 0;
    for (size_t i = 0; i <= message.payload.pieces(); ++i) {
      const Bytes piece = i == 0 ? head : message.payload.piece(i - 1);
      if (peer->written < begin + piece.size()) {
        const size_t count = peer->link->Write(piece.subspan(peer->written - begin));
        wrote += count;
        peer->written += count;
        if (peer->written < begin + piece.size()) break;
      }
      begin += piece.size();
    }
    any = any || wrote > 0;
    if (peer->written < sizeof(FrameHead) + message.payload.bytes()) break;
    peer->written = 0;
    const auto done = std::move(peer->writing.front());
    peer->writing.pop_front();
    std::lock_guard lock(mutex_);
    peer->queued_bytes -= done->payload.bytes();
  }
  if (any) WakeOther(peer);
  return any;
}

// Reads at most a ring's worth, so that other peers get their turn. False: nothing was there.
bool ProcessTransport::ReadLink(const PeerPtr& peer) {
  size_t budget = kShmRingBytes;
  bool any = false;
  while (budget > 0 && (peer->phase == Phase::kOpen || peer->phase == Phase::kLeaving)) {
    if (peer->read_bytes < sizeof(FrameHead) && !ReadLinkHead(peer)) break;
    if (peer->phase == Phase::kLost) return true;
    const size_t have = peer->read_bytes - sizeof(FrameHead);
    const size_t count = peer->link->Read(peer->arriving.payload.span().subspan(have));
    peer->read_bytes += count;
    budget -= std::min(budget, count + 1);
    any = true;
    if (have + count < peer->arriving.payload.size()) {
      if (count == 0) break;
      continue;
    }
    peer->read_bytes = 0;
    Deliver(peer, std::move(peer->arriving));
  }
  if (peer->phase == Phase::kLost) return true;
  if (!peer->link->sound()) LosePeer(peer, Status(ErrorCode::kProtocol, "the shared memory is damaged"));
  if (any && peer->phase != Phase::kLost) WakeOther(peer);
  return any;
}

// True: the head is there and right, and memory for the payload is taken; or the peer is lost.
bool ProcessTransport::ReadLinkHead(const PeerPtr& peer) {
  auto* const head = reinterpret_cast<std::byte*>(&peer->reading);
  peer->read_bytes += peer->link->Read({head + peer->read_bytes, sizeof(FrameHead) - peer->read_bytes});
  if (peer->read_bytes < sizeof(FrameHead)) return false;
  peer->arriving = Arrived();
  const bool goodbye = peer->reading.message.magic == 0;
  const Bytes header(reinterpret_cast<const std::byte*>(&peer->reading.message), goodbye ? 0 : sizeof(MessageHeader));
  Status good = CheckFrame(*peer, header, peer->reading.message.payload_bytes, &peer->arriving);
  if (peer->reading.token != peer->token || peer->reading.number != peer->next_in++) {
    good = Status(ErrorCode::kProtocol, "a message is not of this connection or out of turn");
  }
  if (!good.ok()) {
    LosePeer(peer, good);
    return true;
  }
  if (!goodbye) peer->arriving.payload = Buffer(peer->arriving.header.payload_bytes);
  return true;
}

void ProcessTransport::WakeOther(const PeerPtr& peer) {
  if (peer->link->MustWake()) WriteControl(peer, EncodeWake());
}

// ------------------------------------------------------------------------------------------------ ending

// Inside UCX: nobody is called back from here.
void ProcessTransport::OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status) {
  auto* transport = static_cast<ProcessTransport*>(arg);
  const auto found = transport->by_endpoint_.find(endpoint);
  if (found == transport->by_endpoint_.end()) return;
  transport->to_lose_.emplace_back(found->second,
                                   Lost(std::string("the connection broke: ") + transport->ucx_->status_string(status)));
}

void ProcessTransport::LosePeer(const PeerPtr& peer, const Status& reason) {
  if (std::exchange(peer->phase, Phase::kLost) == Phase::kLost) return;
  if (peer->control >= 0) {
    loop_.Unwatch(peer->control);
    close(std::exchange(peer->control, -1));
  }
  by_token_.erase(peer->token);
  for (auto& [number, arrived] : peer->arrived) {
    if (arrived.descriptor != nullptr) ucx_->am_data_release(peer->engine->worker(), arrived.descriptor);
  }
  peer->arrived.clear();
  peer->waiting.clear();
  peer->writing.clear();
  std::erase(linked_, peer);
  CloseEndpoint(peer.get());
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

// At once, whatever is on the way; UCX then ends the messages that it still has. Over RDMA, UCX 1.13 does not survive that
// while an endpoint is still being connected: such a one is closed behind what it has to send.
void ProcessTransport::CloseEndpoint(Peer* peer) {
  if (peer->endpoint == nullptr) return;
  by_endpoint_.erase(peer->endpoint);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  const bool at_once = peer->wired || peer->engine->kind() != TransportChoice::kRdma;
  param.flags = at_once ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  const ucs_status_ptr_t request = ucx_->ep_close(std::exchange(peer->endpoint, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) closing_.push_back(request);
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
  const auto end = SteadyClock::now() + kDrain;
  while ((in_ucx_ > 0 || !closing_.empty()) && SteadyClock::now() < end) Poll();
  for (auto& [key, engine] : engines_) {
    if (engine == nullptr) continue;
    loop_.Unwatch(engine->event_fd());
    // UCX does not survive its end with operations left: better it stays, with the memory that these use.
    if (in_ucx_ > 0 || !closing_.empty()) static_cast<void>(engine.release());
  }
  engines_.clear();
}

}  // namespace

Result<std::unique_ptr<Transport>> MakeProcessTransport(const ProcessTransportOptions& options) {
  const TransportReach reach = LocalReach();
  if (options.choice == TransportChoice::kRdma && reach.rdma_devices.empty()) {
    return Status(ErrorCode::kTransport, "rdma: " + reach.no_rdma);
  }
  if (options.choice == TransportChoice::kShm && reach.host.empty()) {
    return Status(ErrorCode::kTransport, "shm: there is no /dev/shm");
  }
  const UcxApi* ucx = nullptr;
  if (options.choice != TransportChoice::kShm) {
    const Result<const UcxApi*> loaded = LoadUcx();
    // Where the choice is open, shared memory may do without it.
    if (!loaded.ok() && options.choice != TransportChoice::kAuto) return loaded.status();
    if (loaded.ok()) ucx = loaded.value();
  }
  return std::unique_ptr<Transport>(std::make_unique<ProcessTransport>(ucx, options));
}

std::string DescribeTransports() {
  const TransportReach reach = LocalReach();
  std::string text = std::string("shm: ") + (reach.host.empty() ? "there is no /dev/shm" : "works between processes of this host");
  const Result<const UcxApi*> ucx = LoadUcx();
  if (!ucx.ok()) return text + "\nrdma, tcp: " + ucx.status().message();
  for (const TransportChoice kind : {TransportChoice::kRdma, TransportChoice::kTcp}) {
    text += std::string("\n") + TransportChoiceName(kind) + ": ";
    if (kind == TransportChoice::kRdma && reach.rdma_devices.empty()) {
      text += reach.no_rdma;
      continue;
    }
    const std::string device = kind == TransportChoice::kTcp ? "lo" : reach.rdma_devices.front();
    const auto ignore = [](void*, const void*, size_t, void*, size_t, const ucp_am_recv_param_t*) { return UCS_OK; };
    const auto engine = UcxEngine::Make(*ucx.value(), kind, device, ignore, nullptr);
    text += engine.ok() ? "works (" + device + ")" : engine.status().message();
  }
  return text + "\nucx: " + ucx.value()->version + " (" + ucx.value()->path + ")";
}

}  // namespace persia
