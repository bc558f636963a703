// The connection's state changes on the progress thread only: Connecting (Hello sent) → Ready (Welcome came) → lost →
// Connecting …, or refused, for good. A request is sent by whoever calls while Ready, and all open ones, in the order of
// their ids, by the progress thread when Ready begins; both under the one mutex, so that none is left out.
//
// Transport::Send is called under that mutex: it neither blocks nor calls back. RpcDone never runs under it.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/spin.h"
#include "net/rpc.h"
#include "net/rpc_session.h"

namespace persia {
namespace {

constexpr std::chrono::milliseconds kTick{10};            // how exact deadlines are
constexpr std::chrono::milliseconds kWelcomeWithin{5'000};

using Time = SteadyClock::time_point;

class ClientCore final : public PeerHandler, public std::enable_shared_from_this<ClientCore> {
 public:
  ClientCore(Transport* transport, const RpcClientOptions& options)
      : transport_(transport), options_(options), backoff_ms_(options.least_backoff_ms) {}

  void Start() {
    transport_->Post([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Connect();
    });
    std::lock_guard lock(mutex_);
    LookForLoss();
  }

  void Call(uint16_t type, Payload request, const RpcCallOptions& options, RpcDone done) {
    const Time deadline = SteadyClock::now() + std::chrono::milliseconds(options.deadline_ms);
    std::unique_lock lock(mutex_);
    const size_t bytes = request.bytes();
    const bool room = changed_.wait_until(lock, deadline, [&] { return !failure_.ok() || HasRoom(bytes); });
    if (!failure_.ok() || !room) {
      const Status status = failure_.ok() ? Late(type, "had no room for it, other requests are in the way") : failure_;
      lock.unlock();
      return done(status);
    }
    const uint64_t id = next_id_++;
    bytes_ += bytes;
    ++counts_.calls;
    Pending& pending = pending_[id];
    pending = {type, options.flags, options.repeatable, deadline, {}, 0, std::move(request), std::move(done)};
    if (ready_) Send(id, pending);
    ScheduleTick();
  }

  Status WaitUntilReady(uint64_t deadline_ms) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(deadline_ms), [&] { return ready_ || !failure_.ok(); });
    if (!failure_.ok() || ready_) return failure_;
    return Status(ErrorCode::kDeadline, options_.peer_name + " at " + options_.address + " did not admit this client within " +
                                            std::to_string(deadline_ms) + " ms" + LastTrouble());
  }

  RpcClientCounts counts() const {
    std::lock_guard lock(mutex_);
    return counts_;
  }

  std::string Describe() const {
    PeerId peer;
    {
      std::lock_guard lock(mutex_);
      peer = peer_;
    }
    return peer == 0 ? "not connected" : transport_->Describe(peer);
  }

  void Close() {
    PeerId peer;
    {
      std::lock_guard lock(mutex_);
      peer = std::exchange(peer_, 0);
      if (peer != 0 && ready_) {
        MessageHeader header;
        header.kind = MessageKind::kBye;
        static_cast<void>(transport_->Send(peer, header, {}).ok());  // else the server forgets us in time
      }
    }
    Fail(Status(ErrorCode::kClosed, "the connection to " + options_.peer_name + " was closed"));
    if (peer != 0) transport_->Disconnect(peer);
    WaitForCallbacks(*transport_);
  }

  void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) override {
    switch (header.kind) {
      case MessageKind::kWelcome: return OnWelcome(peer, payload.bytes());
      case MessageKind::kRefuse: return OnRefuse(peer, payload.bytes());
      case MessageKind::kReply: return Finish(header.request_id, RpcResponse{header.flags(), std::move(payload)});
      case MessageKind::kFailure: return Finish(header.request_id, FromServer(payload.bytes()));
      default: transport_->Disconnect(peer);  // no server of ours
    }
  }

  void OnLost(PeerId peer, const Status& reason) override {
    // A refused client is refused again: by the server, or by the transport before it. A closed transport is no more.
    if (reason.code() == ErrorCode::kRefused || reason.code() == ErrorCode::kClosed) Fail(reason);
    std::lock_guard lock(mutex_);
    if (peer_ != peer) return;
    if (std::exchange(ready_, false)) LookForLoss();
    peer_ = 0;
    trouble_ = reason.message();
    if (!failure_.ok()) return;
    transport_->PostAt(SteadyClock::now() + std::chrono::milliseconds(backoff_ms_), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Connect();
    });
    backoff_ms_ = std::min(2 * backoff_ms_, options_.most_backoff_ms);
  }

 private:
  struct Pending {
    uint16_t type = 0;
    WireFlags flags;
    bool repeatable = false;
    Time deadline;
    Time sent_at;
    uint64_t sent_to = 0;  // the incarnation; 0: never sent
    Payload request;
    RpcDone done;
  };
  using Pendings = std::map<uint64_t, Pending>;

  // On the progress thread, so that nothing of the new peer is called back before its number is known.
  void Connect() {
    std::lock_guard lock(mutex_);
    if (!failure_.ok() || peer_ != 0) return;
    const Result<PeerId> peer = transport_->Connect(options_.address, shared_from_this());
    if (!peer.ok()) {
      trouble_ = peer.status().message();
      // Not an address, or closed: no later attempt would fare better. Fail takes the lock itself.
      transport_->Post([weak = weak_from_this(), status = peer.status()] {
        if (const auto self = weak.lock()) self->Fail(status);
      });
      return;
    }
    peer_ = peer.value();
    MessageHeader header;
    header.kind = MessageKind::kHello;
    const RpcHello hello{kRpcProtocol, session_, options_.client_id, options_.secret};
    static_cast<void>(transport_->Send(peer_, header, Payload(EncodeHello(hello))).ok());  // else OnLost comes
    transport_->PostAt(SteadyClock::now() + kWelcomeWithin, [weak = weak_from_this(), number = peer_] {
      if (const auto self = weak.lock()) self->DisconnectIfNotWelcome(number);
    });
  }

  // Under the lock: the server is lost when it does not admit this client within lost_after_ms from now on.
  void LookForLoss() {
    if (options_.lost_after_ms == 0) return;
    const auto until = SteadyClock::now() + std::chrono::milliseconds(options_.lost_after_ms);
    transport_->PostAt(until, [weak = weak_from_this(), connections = counts_.connections] {
      if (const auto self = weak.lock()) self->LoseUnlessConnectedSince(connections);
    });
  }

  void LoseUnlessConnectedSince(uint64_t connections) {
    Status lost;
    {
      std::lock_guard lock(mutex_);
      if (counts_.connections != connections) return;
      lost = Status(ErrorCode::kPeerLost, options_.peer_name + " at " + options_.address + " could not be reached for " +
                                              std::to_string(options_.lost_after_ms) + " ms" + LastTrouble());
    }
    Fail(std::move(lost).With("peer", options_.peer_name));
  }

  void DisconnectIfNotWelcome(PeerId peer) {
    {
      std::lock_guard lock(mutex_);
      if (peer_ != peer || ready_) return;
    }
    transport_->Disconnect(peer);
  }

  void OnWelcome(PeerId peer, Bytes payload) {
    const Result<uint64_t> incarnation = DecodeWelcome(payload);
    if (!incarnation.ok()) return transport_->Disconnect(peer);
    Pendings unknown;  // sent to a server that has forgotten them
    {
      std::lock_guard lock(mutex_);
      if (peer_ != peer || ready_) return;
      ready_ = true;
      incarnation_ = incarnation.value();
      backoff_ms_ = options_.least_backoff_ms;
      ++counts_.connections;
      for (auto at = pending_.begin(); at != pending_.end();) {
        const auto next = std::next(at);
        const Pending& pending = at->second;
        if (pending.sent_to != 0 && pending.sent_to != incarnation_ && !pending.repeatable) Take(at, &unknown);
        at = next;
      }
      for (auto& [id, pending] : pending_) Send(id, pending);
    }
    changed_.notify_all();
    End(std::move(unknown), Status(ErrorCode::kPeerLost, options_.peer_name + " was restarted: whether it had executed the "
                                                         "request is not known"));
  }

  void OnRefuse(PeerId, Bytes payload) {
    const Status reason = DecodeStatus(payload);
    Fail(Status(ErrorCode::kRefused, options_.peer_name + " at " + options_.address + " refused this client: " +
                                         reason.message()));
  }

  Status FromServer(Bytes payload) const {
    Status status = DecodeStatus(payload);
    return std::move(status).With("peer", options_.peer_name);
  }

  void Finish(uint64_t id, Result<RpcResponse> response) {
    RpcDone done;
    {
      std::lock_guard lock(mutex_);
      const auto found = pending_.find(id);
      if (found == pending_.end()) return;  // answered before, or given up
      bytes_ -= found->second.request.bytes();
      done = std::move(found->second.done);
      pending_.erase(found);
    }
    changed_.notify_all();
    done(std::move(response));
  }

  // Ends everything, for good; the first failure counts.
  void Fail(const Status& status) {
    Pendings all;
    Status failure;
    {
      std::lock_guard lock(mutex_);
      if (failure_.ok()) failure_ = status;
      failure = failure_;
      ready_ = false;
      while (!pending_.empty()) Take(pending_.begin(), &all);
    }
    changed_.notify_all();
    End(std::move(all), failure);
  }

  void OnTick() {
    Pendings late;
    {
      std::lock_guard lock(mutex_);
      ticking_ = false;
      const Time now = SteadyClock::now();
      const auto resend_after = std::chrono::milliseconds(options_.resend_ms);
      for (auto at = pending_.begin(); at != pending_.end();) {
        const auto next = std::next(at);
        Pending& pending = at->second;
        if (pending.deadline <= now) {
          Take(at, &late);
        } else if (ready_ && now - pending.sent_at >= resend_after) {
          Send(at->first, pending);
        }
        at = next;
      }
      if (!pending_.empty()) ScheduleTick();
    }
    if (late.empty()) return;
    changed_.notify_all();
    for (auto& [id, pending] : late) {
      std::unique_lock lock(mutex_);
      const Status status = Late(pending.type, "did not answer");
      lock.unlock();
      pending.done(status);
    }
  }

  void End(Pendings pendings, const Status& status) {
    for (auto& [id, pending] : pendings) pending.done(status);
  }

  // What follows is called under the lock.

  bool HasRoom(size_t bytes) const {
    if (pending_.empty()) return true;
    return pending_.size() < options_.max_requests_in_flight && bytes_ + bytes <= options_.max_bytes_in_flight &&
           next_id_ - pending_.begin()->first < kMostAhead * options_.max_requests_in_flight;
  }

  void Take(Pendings::iterator at, Pendings* to) {
    bytes_ -= at->second.request.bytes();
    to->insert(pending_.extract(at));
  }

  void Send(uint64_t id, Pending& pending) {
    counts_.resent += pending.sent_to != 0;
    pending.sent_to = incarnation_;
    pending.sent_at = SteadyClock::now();
    MessageHeader header;
    header.kind = MessageKind::kRequest;
    header.type = pending.type;
    header.set_flags(pending.flags);
    header.request_id = id;
    header.done_below = pending_.begin()->first;
    const Status sent = transport_->Send(peer_, header, pending.request);
    if (sent.ok() || sent.code() != ErrorCode::kUsage) return;  // a lost connection: OnLost comes, then another try
    transport_->Post([weak = weak_from_this(), id, sent] {
      if (const auto self = weak.lock()) self->Finish(id, sent);
    });
  }

  void ScheduleTick() {
    if (std::exchange(ticking_, true)) return;
    transport_->PostAt(SteadyClock::now() + kTick, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->OnTick();
    });
  }

  std::string LastTrouble() const { return trouble_.empty() ? "" : "; the last trouble was: " + trouble_; }

  Status Late(uint16_t type, const std::string& what) const {
    return Status(ErrorCode::kDeadline, options_.peer_name + " at " + options_.address + " " + what +
                                            " before the deadline of a request of type " + std::to_string(type) + LastTrouble())
        .With("peer", options_.peer_name);
  }

  // The client's, which closes before it lets go of it. Not owned here: the last owner of this may be a task on the
  // transport's own thread.
  Transport* const transport_;
  const RpcClientOptions options_;
  const uint64_t session_ = RandomNumber();

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Pendings pending_;  // by id
  uint64_t next_id_ = 1;
  uint64_t bytes_ = 0;  // of pending requests
  PeerId peer_ = 0;
  bool ready_ = false;
  uint64_t incarnation_ = 0;
  uint64_t backoff_ms_;
  bool ticking_ = false;
  std::string trouble_;  // the last reason for a lost connection
  Status failure_;
  RpcClientCounts counts_;
};

class Client final : public RpcClient {
 public:
  Client(std::shared_ptr<Transport> transport, const RpcClientOptions& options)
      : transport_(std::move(transport)), core_(std::make_shared<ClientCore>(transport_.get(), options)) {
    core_->Start();
  }
  ~Client() override { Close(); }

  void Call(uint16_t type, Payload request, const RpcCallOptions& options, RpcDone done) override {
    core_->Call(type, std::move(request), options, std::move(done));
  }
  Status WaitUntilReady(uint64_t deadline_ms) override { return core_->WaitUntilReady(deadline_ms); }
  RpcClientCounts counts() const override { return core_->counts(); }
  std::string Describe() const override { return core_->Describe(); }
  void Close() override { core_->Close(); }

 private:
  const std::shared_ptr<Transport> transport_;
  const std::shared_ptr<ClientCore> core_;
};

}  // namespace

Result<RpcResponse> RpcClient::Call(uint16_t type, Payload request, const RpcCallOptions& options) {
  struct Answer {
    std::atomic<bool> there{false};  // release store after `response` is written; acquire loads before it is read
    Result<RpcResponse> response = Status(ErrorCode::kInternal, "no answer");
  };
  const auto answer = std::make_shared<Answer>();
  Call(type, std::move(request), options, [answer](Result<RpcResponse> response) {
    answer->response = std::move(response);
    answer->there.store(true, std::memory_order_release);
    answer->there.notify_one();
  });
  Spin spin(std::chrono::microseconds(50));
  while (!answer->there.load(std::memory_order_acquire)) {
    if (!spin.Again()) answer->there.wait(false, std::memory_order_acquire);
  }
  return std::move(answer->response);
}

std::unique_ptr<RpcClient> MakeRpcClient(std::shared_ptr<Transport> transport, const RpcClientOptions& options) {
  return std::make_unique<Client>(std::move(transport), options);
}

}  // namespace persia
