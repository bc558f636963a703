// How a request goes: progress thread: admitted session? seen before? ──► the queue of handlers (or right here) ──►
// handler ──► RpcReply ──► the session remembers what it must ──► Transport::Send to the session's connection of now.
//
// Locks: the server's mutex guards connections and sessions by number; a session's mutex its requests. The server's is
// never taken while a session's is held, and none while a handler or a transport's callback runs. Transport::Send is
// called under a session's mutex, so that a reply and a new connection of the session don't miss each other; it does not
// block and calls nobody back.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/named_thread.h"
#include "base/spin.h"
#include "net/rpc.h"
#include "net/rpc_session.h"

namespace persia {

// What the server knows of one session: which requests it is executing and the replies that the client may not have.
class RpcSession {
 public:
  RpcSession(Transport* transport, const RpcServerOptions& options, uint64_t number, uint64_t client_id)
      : transport_(transport), options_(options), number_(number), client_id_(client_id) {}

  enum class Verdict { kExecute, kIgnore, kOverloaded };

  uint64_t client_id() const { return client_id_; }
  uint64_t number() const { return number_; }
  uint64_t incarnation() const { return incarnation_; }

  // The connection on which replies go from now on; 0: none. Returns the one before.
  PeerId Attach(PeerId peer) {
    std::lock_guard lock(mutex_);
    if (forgotten_) return peer;
    return std::exchange(peer_, peer);
  }
  void Detach(PeerId peer) {
    std::lock_guard lock(mutex_);
    if (peer_ != peer) return;
    peer_ = 0;
    detached_at_ = SteadyClock::now();
  }
  // Forgotten sessions answer nobody.
  void Forget() {
    std::lock_guard lock(mutex_);
    forgotten_ = true;
    peer_ = 0;
  }
  bool Idle(SteadyClock::time_point since) const {
    std::lock_guard lock(mutex_);
    return peer_ == 0 && detached_at_ < since && running_ == 0;
  }

  // What to do with a request that came on `peer`; answers it again where its reply is known.
  Verdict Admit(PeerId peer, const MessageHeader& header, bool idempotent);
  void Answer(uint64_t id, MessageKind kind, Payload payload, WireFlags flags);

 private:
  struct Entry {
    bool running = true;
    bool idempotent = false;
    bool remembered = false;
    MessageKind kind = MessageKind::kReply;
    WireFlags flags;
    Payload reply;
  };

  void ForgetBelow(uint64_t id);
  void Send(uint64_t id, const Entry& entry, const Payload& reply);

  // The server's, which forgets all sessions before it lets go of it; a forgotten session has no peer and sends nothing.
  Transport* const transport_;
  const RpcServerOptions options_;
  const uint64_t number_;
  const uint64_t client_id_;
  const uint64_t incarnation_ = RandomNumber();

  mutable std::mutex mutex_;  // guards what follows
  PeerId peer_ = 0;
  bool forgotten_ = false;
  SteadyClock::time_point detached_at_ = SteadyClock::now();
  std::map<uint64_t, Entry> entries_;  // ids >= done_below_ that came
  uint64_t done_below_ = 0;
  uint64_t running_ = 0;
  uint64_t remembered_bytes_ = 0;
};

RpcSession::Verdict RpcSession::Admit(PeerId peer, const MessageHeader& header, bool idempotent) {
  std::lock_guard lock(mutex_);
  if (peer != peer_) return Verdict::kIgnore;  // a late message of a connection that was given up
  ForgetBelow(header.done_below);
  if (header.request_id < done_below_) return Verdict::kIgnore;  // the client has its reply
  const auto found = entries_.find(header.request_id);
  if (found == entries_.end()) {
    if (entries_.size() >= options_.max_requests_in_flight) return Verdict::kOverloaded;
    entries_[header.request_id].idempotent = idempotent;
    ++running_;
    return Verdict::kExecute;
  }
  Entry& entry = found->second;
  if (entry.running) return Verdict::kIgnore;
  if (entry.remembered) {
    Send(header.request_id, entry, entry.reply);
  } else {
    entry.kind = MessageKind::kFailure;
    Send(header.request_id, entry, Payload(EncodeStatus(Status(ErrorCode::kAborted,
         "the request was executed once, and its reply, too large to be kept, was lost on the way"))));
  }
  return Verdict::kIgnore;
}

void RpcSession::Answer(uint64_t id, MessageKind kind, Payload payload, WireFlags flags) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || !found->second.running) return;
  Entry& entry = found->second;
  entry.running = false;
  --running_;
  entry.kind = kind;
  entry.flags = flags;
  Send(id, entry, payload);
  if (entry.idempotent || id < done_below_) {
    entries_.erase(found);
  } else if (remembered_bytes_ + payload.bytes() <= options_.max_remembered_bytes) {
    entry.remembered = true;
    entry.reply = payload;
    remembered_bytes_ += payload.bytes();
  }
}

void RpcSession::ForgetBelow(uint64_t id) {
  if (id <= done_below_) return;
  done_below_ = id;
  // A request that runs stays, though the client has given it up: it counts until it is done.
  for (auto entry = entries_.begin(); entry != entries_.end() && entry->first < id;) {
    if (entry->second.running) {
      ++entry;
      continue;
    }
    remembered_bytes_ -= entry->second.reply.bytes();
    entry = entries_.erase(entry);
  }
}

void RpcSession::Send(uint64_t id, const Entry& entry, const Payload& reply) {
  if (peer_ == 0) return;  // it comes when the client asks again
  MessageHeader header;
  header.kind = entry.kind;
  header.request_id = id;
  header.set_flags(entry.flags);
  const Status sent = transport_->Send(peer_, header, reply);
  if (sent.ok() || sent.code() != ErrorCode::kUsage) return;  // a lost connection: the client asks again
  header.kind = MessageKind::kFailure;
  const Status failed = transport_->Send(peer_, header, Payload(EncodeStatus(sent)));
  if (!failed.ok()) peer_ = 0;
}

RpcReply::~RpcReply() { Fail(Status(ErrorCode::kAborted, "the request was dropped without an answer")); }

RpcReply::RpcReply(RpcReply&& other) noexcept : session_(std::move(other.session_)), id_(std::exchange(other.id_, 0)) {}

RpcReply& RpcReply::operator=(RpcReply&& other) noexcept {
  std::swap(session_, other.session_);
  std::swap(id_, other.id_);
  return *this;
}

void RpcReply::Send(Payload payload, WireFlags flags) {
  const uint64_t id = std::exchange(id_, 0);
  if (id == 0) return;
  if (const auto session = session_.lock()) session->Answer(id, MessageKind::kReply, std::move(payload), flags);
}

void RpcReply::Fail(const Status& status) {
  const uint64_t id = std::exchange(id_, 0);
  if (id == 0) return;
  const auto session = session_.lock();
  if (session != nullptr) session->Answer(id, MessageKind::kFailure, Payload(EncodeStatus(status)), {});
}

namespace {

constexpr std::chrono::microseconds kSpin{30};

// Handlers of all sessions take turns on a few threads. Bounded by the sessions' bounds.
class HandlerThreads {
 public:
  explicit HandlerThreads(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      threads_.push_back(StartThread("rpc-" + std::to_string(i + 1), [this] { Work(); }));
    }
  }

  void Push(std::function<void()> work) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      queue_.push_back(std::move(work));
      size_.store(queue_.size(), std::memory_order_relaxed);
    }
    changed_.notify_one();
  }

  // Waits for what runs and returns what did not.
  std::deque<std::function<void()>> Close() {
    std::deque<std::function<void()>> dropped;
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      dropped.swap(queue_);
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return dropped;
  }

 private:
  void Work() {
    for (Spin spin(kSpin);;) {
      while (size_.load(std::memory_order_relaxed) == 0 && spin.Again()) {
      }
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return closed_ || !queue_.empty(); });
      spin.Woken();
      if (queue_.empty()) return;
      const auto work = std::move(queue_.front());
      queue_.pop_front();
      size_.store(queue_.size(), std::memory_order_relaxed);
      lock.unlock();
      work();
    }
  }

  std::mutex mutex_;  // guards queue_ and closed_
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool closed_ = false;
  std::atomic<size_t> size_{0};  // a hint for spinning; the queue is looked at under the lock
  std::vector<std::thread> threads_;
};

// What the transport's callbacks hold on to: it may outlive the RpcServer by a moment.
class ServerCore final : public PeerHandler, public std::enable_shared_from_this<ServerCore> {
 public:
  ServerCore(Transport* transport, const RpcServerOptions& options)
      : transport_(transport), options_(options), threads_(options.threads) {}

  void Register(uint16_t type, RpcHandler handler, const RpcHandlerOptions& options) {
    PERSIA_CHECK(!listening_ && !handlers_.contains(type));
    handlers_[type] = {std::move(handler), options};
  }

  Result<std::string> Listen(const std::string& address) {
    if (options_.secret.size() < kLeastSecretBytes || options_.secret.size() > kMostSecretBytes) {
      return Status(ErrorCode::kConfigInvalid, "the session secret has " + std::to_string(options_.secret.size()) +
                                                   " bytes, expected 16 to 64");
    }
    listening_ = true;
    return transport_->Listen(address, [self = shared_from_this()](PeerId peer, const std::string&) {
      return self->Accept(peer);
    });
  }

  RpcServerCounts counts() const {
    std::lock_guard lock(mutex_);
    RpcServerCounts counts = counts_;
    counts.sessions = sessions_.size();
    return counts;
  }

  void Close() {
    std::map<PeerId, std::shared_ptr<RpcSession>> connections;
    std::map<uint64_t, std::shared_ptr<RpcSession>> sessions;
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      connections.swap(connections_);
      sessions.swap(sessions_);
    }
    // What runs is still answered. What was dropped is not, so that clients ask again, perhaps another server.
    const auto dropped = threads_.Close();
    for (const auto& [number, session] : sessions) session->Forget();
    for (const auto& [peer, session] : connections) transport_->Disconnect(peer);
    WaitForCallbacks(*transport_);
  }

  void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) override {
    std::shared_ptr<RpcSession> session;
    {
      std::lock_guard lock(mutex_);
      const auto found = connections_.find(peer);
      if (found == connections_.end()) return;
      session = found->second;
    }
    if (header.kind == MessageKind::kHello) return Greet(peer, payload.bytes());  // also one that comes twice
    if (session != nullptr && header.kind == MessageKind::kRequest) return Take(session, peer, header, std::move(payload));
    if (session != nullptr && header.kind == MessageKind::kBye) return Forget(session, peer);
    Refuse(peer, Status(ErrorCode::kProtocol, session == nullptr ? "the first message of a connection must be a Hello"
                                                                 : "a client sends requests only"));
  }

  void OnLost(PeerId peer, const Status&) override {
    std::shared_ptr<RpcSession> session;
    {
      std::lock_guard lock(mutex_);
      const auto found = connections_.find(peer);
      if (found == connections_.end()) return;
      session = std::move(found->second);
      connections_.erase(found);
    }
    if (session != nullptr) session->Detach(peer);
  }

 private:
  struct Registered {
    RpcHandler handler;
    RpcHandlerOptions options;
  };

  std::shared_ptr<PeerHandler> Accept(PeerId peer) {
    std::lock_guard lock(mutex_);
    if (closed_) return nullptr;
    connections_[peer] = nullptr;
    transport_->PostAt(SteadyClock::now() + std::chrono::milliseconds(options_.hello_ms),
                       [weak = weak_from_this(), peer] {
                         if (const auto self = weak.lock()) self->DisconnectIfSilent(peer);
                       });
    return shared_from_this();
  }

  void DisconnectIfSilent(PeerId peer) {
    {
      std::lock_guard lock(mutex_);
      const auto found = connections_.find(peer);
      if (found == connections_.end() || found->second != nullptr) return;
    }
    transport_->Disconnect(peer);
  }

  void Refuse(PeerId peer, const Status& reason) {
    {
      std::lock_guard lock(mutex_);
      ++counts_.refused;
    }
    MessageHeader header;
    header.kind = MessageKind::kRefuse;
    static_cast<void>(transport_->Send(peer, header, Payload(EncodeStatus(reason))).ok());  // lost: it is gone anyway
    transport_->Disconnect(peer);
  }

  void Greet(PeerId peer, Bytes payload) {
    const Result<RpcHello> hello = DecodeHello(payload);
    if (!hello.ok()) return Refuse(peer, hello.status());
    if (hello.value().protocol != kRpcProtocol) {
      return Refuse(peer, Status(ErrorCode::kRefused, "the client speaks protocol " + std::to_string(hello.value().protocol) +
                                                          ", this server " + std::to_string(kRpcProtocol) +
                                                          "; run the same release everywhere"));
    }
    if (!SameSecret(hello.value().secret, options_.secret)) {
      return Refuse(peer, Status(ErrorCode::kRefused, "the session secret is wrong"));
    }
    const auto session = SessionOf(hello.value());
    if (session == nullptr) return Refuse(peer, Status(ErrorCode::kRefused, "the server has as many sessions as it takes"));
    transport_->Admit(peer);
    const PeerId before = session->Attach(peer);
    {
      std::lock_guard lock(mutex_);
      if (const auto found = connections_.find(peer); found != connections_.end()) found->second = session;
    }
    if (before != 0 && before != peer) transport_->Disconnect(before);
    MessageHeader header;
    header.kind = MessageKind::kWelcome;
    static_cast<void>(transport_->Send(peer, header, Payload(EncodeWelcome(session->incarnation()))).ok());  // else OnLost comes
  }

  // The session of that number, or a new one; null when there are too many.
  std::shared_ptr<RpcSession> SessionOf(const RpcHello& hello) {
    const auto stale = SteadyClock::now() - std::chrono::milliseconds(options_.session_ttl_ms);
    std::lock_guard lock(mutex_);
    if (closed_) return nullptr;
    const auto found = sessions_.find(hello.session);
    if (found != sessions_.end()) return found->second;
    std::erase_if(sessions_, [&](const auto& session) { return session.second->Idle(stale); });
    if (sessions_.size() >= options_.max_sessions) return nullptr;
    auto session = std::make_shared<RpcSession>(transport_, options_, hello.session, hello.client_id);
    sessions_[hello.session] = session;
    return session;
  }

  void Forget(const std::shared_ptr<RpcSession>& session, PeerId peer) {
    session->Forget();
    {
      std::lock_guard lock(mutex_);
      sessions_.erase(session->number());
    }
    transport_->Disconnect(peer);
  }

  void Take(const std::shared_ptr<RpcSession>& session, PeerId peer, const MessageHeader& header, Buffer payload) {
    const auto found = handlers_.find(header.type);
    const bool known = found != handlers_.end();
    const auto verdict = session->Admit(peer, header, known && found->second.options.idempotent);
    {
      std::lock_guard lock(mutex_);
      ++(verdict == RpcSession::Verdict::kExecute ? counts_.requests : counts_.repeated);
    }
    if (verdict == RpcSession::Verdict::kOverloaded) {
      return Refuse(peer, Status(ErrorCode::kProtocol, "the client has more requests in flight than this server takes, " +
                                                           std::to_string(options_.max_requests_in_flight)));
    }
    if (verdict != RpcSession::Verdict::kExecute) return;
    RpcReply reply(session, header.request_id);
    if (!known) {
      return reply.Fail(Status(ErrorCode::kProtocol, "this server has no requests of type " + std::to_string(header.type)));
    }
    RpcRequest request{session->client_id(), session->number(), header.request_id, header.type, header.flags(),
                       std::move(payload)};
    if (found->second.options.on_progress_thread) return found->second.handler(std::move(request), std::move(reply));
    // A std::function has to be copyable, so what moves is held by pointer.
    auto work = std::make_shared<std::pair<RpcRequest, RpcReply>>(std::move(request), std::move(reply));
    threads_.Push([&handler = found->second.handler, work] { handler(std::move(work->first), std::move(work->second)); });
  }

  Transport* const transport_;
  const RpcServerOptions options_;
  std::map<uint16_t, Registered> handlers_;  // immutable once it listens
  bool listening_ = false;

  mutable std::mutex mutex_;  // guards what follows
  std::map<PeerId, std::shared_ptr<RpcSession>> connections_;  // null: no Hello yet
  std::map<uint64_t, std::shared_ptr<RpcSession>> sessions_;
  RpcServerCounts counts_;
  bool closed_ = false;

  HandlerThreads threads_;
};

class Server final : public RpcServer {
 public:
  Server(std::shared_ptr<Transport> transport, const RpcServerOptions& options)
      : transport_(std::move(transport)), core_(std::make_shared<ServerCore>(transport_.get(), options)) {}
  ~Server() override { Close(); }

  void Register(uint16_t type, RpcHandler handler, const RpcHandlerOptions& options) override {
    core_->Register(type, std::move(handler), options);
  }
  Result<std::string> Listen(const std::string& address) override { return core_->Listen(address); }
  RpcServerCounts counts() const override { return core_->counts(); }
  void Close() override {
    if (std::exchange(closed_, true)) return;
    core_->Close();
  }

 private:
  const std::shared_ptr<Transport> transport_;
  const std::shared_ptr<ServerCore> core_;
  bool closed_ = false;
};

}  // namespace

std::unique_ptr<RpcServer> MakeRpcServer(std::shared_ptr<Transport> transport, const RpcServerOptions& options) {
  return std::make_unique<Server>(std::move(transport), options);
}

}  // namespace persia
