// A connection is a pair of ends that know each other; an end lives in its transport's table of peers. Sending posts a
// task to the event loop of the other end, which keeps order. All ends of a network are guarded by the network's one
// mutex, which is never held while something is called back.
#include "net/in_process_transport.h"

#include <map>
#include <mutex>
#include <utility>

#include "net/event_loop.h"

namespace persia {
namespace {

class InProcessTransport;

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }

// One direction's view of a connection. `to` and `to_peer` say where its messages go.
struct End {
  std::shared_ptr<PeerHandler> handler;
  std::weak_ptr<InProcessTransport> to;
  PeerId to_peer = 0;
  uint64_t queued_bytes = 0;  // sent to the other side and not yet taken there
  bool open = true;           // false: OnLost is on its way
  bool admitted = true;       // false: accepted, and its handler has not said so yet
};

}  // namespace

class InProcessNetwork {
 public:
  struct Listener {
    std::weak_ptr<InProcessTransport> transport;
    Acceptor acceptor;
  };

  std::mutex mutex;  // guards all of this, and the peers of all transports of the network
  std::map<std::string, Listener> listeners;
  uint64_t next_port = 1;
};

namespace {

// The transport proper. Shared, so that a task on the way to a transport that has gone finds that out.
class InProcessTransport : public std::enable_shared_from_this<InProcessTransport> {
 public:
  InProcessTransport(std::shared_ptr<InProcessNetwork> network, std::string name, const TransportOptions& options)
      : network_(std::move(network)), name_(std::move(name)), options_(options), loop_("net-" + name_, options.spin_us, nullptr) {}

  Result<std::string> Listen(const std::string& address, Acceptor acceptor) {
    std::lock_guard lock(network_->mutex);
    if (closed_) return Closed();
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos) return Status(ErrorCode::kTransport, address + " is no address: expected NAME:PORT");
    std::string taken = address;
    if (address.substr(colon) == ":0") taken = address.substr(0, colon + 1) + std::to_string(network_->next_port++);
    if (network_->listeners.contains(taken)) return Status(ErrorCode::kTransport, taken + " is in use");
    network_->listeners[taken] = {weak_from_this(), std::move(acceptor)};
    return taken;
  }

  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) {
    std::unique_lock lock(network_->mutex);
    if (closed_) return Closed();
    const PeerId peer = next_peer_++;
    peers_[peer].handler = std::move(handler);
    const auto listener = network_->listeners.find(address);
    const auto other = listener == network_->listeners.end() ? nullptr : listener->second.transport.lock();
    if (other == nullptr || other->closed_ || other->peers_.size() >= options_.max_peers) {
      Lose(peer, Lost("nobody listens at " + address));
      return peer;
    }
    const PeerId accepted = other->next_peer_++;
    peers_[peer].to = other;
    peers_[peer].to_peer = accepted;
    End& end = other->peers_[accepted];
    end.admitted = false;
    end.to = weak_from_this();
    end.to_peer = peer;
    other->loop_.Post([other = std::weak_ptr(other), accepted, acceptor = listener->second.acceptor, from = name_] {
      if (const auto self = other.lock()) self->Accept(accepted, acceptor, from);
    });
    return peer;
  }

  Status Send(PeerId peer, const MessageHeader& header, Payload payload) {
    if (payload.bytes() > options_.limits.max_payload_bytes) {
      return Status(ErrorCode::kUsage, "a message of " + std::to_string(payload.bytes()) + " bytes is over the limit of " +
                                           std::to_string(options_.limits.max_payload_bytes));
    }
    MessageHeader sealed = header;
    SealMessage(payload, &sealed);
    auto copy = std::make_shared<Buffer>(payload.bytes());
    payload.CopyTo(copy->data());
    std::lock_guard lock(network_->mutex);
    const auto found = peers_.find(peer);
    if (found == peers_.end() || !found->second.open) return Lost("the connection has ended");
    End& end = found->second;
    const auto other = end.to.lock();
    if (other == nullptr) return Lost("the other side has gone");
    end.queued_bytes += copy->size();
    if (end.queued_bytes > options_.max_queued_bytes) {
      Cut(peer, Lost("it does not take what is sent to it"));
      return Lost("the other side does not take what is sent to it");
    }
    const PeerId to_peer = end.to_peer;
    other->loop_.Post([target = std::weak_ptr(other), from = weak_from_this(), peer, to_peer, sealed, copy] {
      if (const auto sender = from.lock()) sender->Taken(peer, copy->size());
      if (const auto self = target.lock()) self->Deliver(to_peer, sealed, std::move(*copy));
    });
    return Status::Ok();
  }

  void Admit(PeerId peer) {
    std::lock_guard lock(network_->mutex);
    const auto found = peers_.find(peer);
    if (found != peers_.end()) found->second.admitted = true;
  }

  void Disconnect(PeerId peer) {
    std::lock_guard lock(network_->mutex);
    Cut(peer, Status(ErrorCode::kAborted, "disconnected"));
  }

  void Post(EventLoop::Task task) { loop_.Post(std::move(task)); }
  void PostAt(SteadyClock::time_point time, EventLoop::Task task) { loop_.PostAt(time, std::move(task)); }
  bool OnProgressThread() const { return loop_.OnLoop(); }

  void Close() {
    std::map<PeerId, End> peers;
    {
      std::lock_guard lock(network_->mutex);
      closed_ = true;
      std::erase_if(network_->listeners, [&](const auto& listener) {
        const auto transport = listener.second.transport.lock();
        return transport == nullptr || transport.get() == this;
      });
      while (!peers_.empty()) {
        auto node = peers_.extract(peers_.begin());
        if (node.mapped().open) TellOther(node.mapped());
        peers.insert(std::move(node));
      }
    }
    loop_.Stop([&] {
      for (auto& [peer, end] : peers) {
        if (end.handler != nullptr) end.handler->OnLost(peer, Status(ErrorCode::kClosed, "the transport was closed"));
      }
    });
  }

 private:
  static Status Closed() { return Status(ErrorCode::kClosed, "the transport was closed"); }

  void Accept(PeerId peer, const Acceptor& acceptor, const std::string& from) {
    auto handler = acceptor(peer, from);
    std::lock_guard lock(network_->mutex);
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return;
    found->second.handler = std::move(handler);
    if (found->second.handler == nullptr) Cut(peer, Lost("refused"));
  }

  void Deliver(PeerId peer, const MessageHeader& sealed, Buffer payload) {
    std::shared_ptr<PeerHandler> handler;
    MessageLimits limits = options_.limits;
    {
      std::lock_guard lock(network_->mutex);
      const auto found = peers_.find(peer);
      if (found == peers_.end() || !found->second.open) return;
      handler = found->second.handler;
      if (!found->second.admitted) limits.max_payload_bytes = kMostUnadmittedBytes;
    }
    MessageHeader header;
    const Bytes raw(reinterpret_cast<const std::byte*>(&sealed), sizeof(sealed));
    Status good = ParseHeader(raw, limits, &header);
    if (good.ok()) good = CheckPayload(header, payload.bytes());
    if (good.ok()) return handler->OnMessage(peer, header, std::move(payload));
    std::lock_guard lock(network_->mutex);
    Cut(peer, good);
  }

  void Taken(PeerId peer, size_t bytes) {
    std::lock_guard lock(network_->mutex);
    const auto found = peers_.find(peer);
    if (found != peers_.end()) found->second.queued_bytes -= bytes;
  }

  // The following are called under the network's mutex.

  // Ends both ends of a connection: this one for `reason`, the other as lost, after what was sent to it.
  void Cut(PeerId peer, const Status& reason) {
    const auto found = peers_.find(peer);
    if (found == peers_.end() || !found->second.open) return;
    TellOther(found->second);
    Lose(peer, reason);
  }

  void TellOther(const End& end) {
    const auto other = end.to.lock();
    if (other == nullptr) return;
    other->loop_.Post([target = end.to, peer = end.to_peer] {
      const auto self = target.lock();
      if (self == nullptr) return;
      std::lock_guard lock(self->network_->mutex);
      const auto found = self->peers_.find(peer);
      if (found != self->peers_.end() && found->second.open) self->Lose(peer, Lost("the other side ended the connection"));
    });
  }

  void Lose(PeerId peer, const Status& reason) {
    peers_[peer].open = false;
    loop_.Post([weak = weak_from_this(), peer, reason] {
      const auto self = weak.lock();
      if (self == nullptr) return;
      std::shared_ptr<PeerHandler> handler;
      {
        std::lock_guard lock(self->network_->mutex);
        auto node = self->peers_.extract(peer);
        if (!node.empty()) handler = std::move(node.mapped().handler);
      }
      if (handler != nullptr) handler->OnLost(peer, reason);
    });
  }

  const std::shared_ptr<InProcessNetwork> network_;
  const std::string name_;
  const TransportOptions options_;
  std::map<PeerId, End> peers_;
  PeerId next_peer_ = 1;
  bool closed_ = false;
  EventLoop loop_;
};

class InProcessHandle final : public Transport {
 public:
  explicit InProcessHandle(std::shared_ptr<InProcessTransport> shared) : shared_(std::move(shared)) {}
  ~InProcessHandle() override { Close(); }

  Result<std::string> Listen(const std::string& address, Acceptor acceptor) override {
    return shared_->Listen(address, std::move(acceptor));
  }
  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) override {
    return shared_->Connect(address, std::move(handler));
  }
  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override {
    return shared_->Send(peer, header, std::move(payload));
  }
  void Admit(PeerId peer) override { shared_->Admit(peer); }
  void Disconnect(PeerId peer) override { shared_->Disconnect(peer); }
  void Post(std::function<void()> task) override { shared_->Post(std::move(task)); }
  void PostAt(SteadyClock::time_point time, std::function<void()> task) override {
    shared_->PostAt(time, std::move(task));
  }
  bool OnProgressThread() const override { return shared_->OnProgressThread(); }
  void Close() override { shared_->Close(); }
  std::string Describe(PeerId) const override { return "in-process"; }

 private:
  const std::shared_ptr<InProcessTransport> shared_;
};

}  // namespace

std::shared_ptr<InProcessNetwork> MakeInProcessNetwork() { return std::make_shared<InProcessNetwork>(); }

std::unique_ptr<Transport> MakeInProcessTransport(std::shared_ptr<InProcessNetwork> network, const std::string& name,
                                                  const TransportOptions& options) {
  return std::make_unique<InProcessHandle>(std::make_shared<InProcessTransport>(std::move(network), name, options));
}

}  // namespace persia
