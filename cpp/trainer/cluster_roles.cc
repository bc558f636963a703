#include "trainer/cluster_roles.h"

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "collective/ring_collective.h"
#include "net/process_transport.h"
#include "store/parameter_server.h"
#include "trainer/loader_server.h"
#include "trainer/nn_server.h"
#include "worker/embedding_server.h"

namespace persia {
namespace {

Result<std::shared_ptr<CountingTransport>> MakeTransport(const NetOptions& net) {
  ProcessTransportOptions options;
  options.choice = net.transport;
  options.secret = net.secret;
  Result<std::unique_ptr<Transport>> transport = MakeProcessTransport(options);
  if (!transport.ok()) return transport.status();
  return std::make_shared<CountingTransport>(std::move(*transport));
}

std::string ListenAddress(const NetOptions& net) {
  const std::string host = net.host.find(':') == std::string::npos ? net.host : std::string("[").append(net.host) + "]";
  return host + ":" + std::to_string(net.port);
}

RpcServerOptions Rpc(const NetOptions& net) {
  RpcServerOptions rpc;
  rpc.secret = net.secret;
  rpc.threads = std::clamp(std::thread::hardware_concurrency(), 3u, 16u);
  return rpc;
}

RoleClientsOptions Clients(const std::string& role, const std::vector<std::string>& addresses,
                           const RoleOptions& options) {
  return {role, addresses, options.net.secret, options.rank, options.net.deadline_ms};
}

// What the roles have in common; `Server` is the service behind one.
template <typename Server>
class Role : public ClusterRole {
 public:
  Role(std::shared_ptr<CountingTransport> transport, std::unique_ptr<Server> server, const RoleOptions& options)
      : transport_(std::move(transport)), server_(std::move(server)), options_(options) {}
  ~Role() override { CloseAll(); }

  Status Listen() {
    Result<std::string> address = server_->Listen(ListenAddress(options_.net));
    if (address.ok()) address_ = *address;
    return address.status();
  }

  const std::string& address() const override { return address_; }

  Status Connect(const ClusterPeers& peers) override {
    {
      std::lock_guard lock(mutex_);
      if (state_ != RoleState::kListening || connecting_) {
        return Status(ErrorCode::kUsage, "a role is connected once, before it is closed");
      }
      connecting_ = true;
    }
    PERSIA_RETURN_IF_ERROR(ConnectServer(peers));
    std::lock_guard lock(mutex_);
    if (state_ == RoleState::kListening) state_ = RoleState::kRunning;
    return Status::Ok();
  }

  void OnEnd(std::function<void(Status)> ended) override {
    std::optional<Status> now;
    {
      std::lock_guard lock(mutex_);
      now = end_;
      if (!now) waiting_.push_back(ended);
    }
    if (now) ended(*now);
  }

  RoleState state() const override {
    std::lock_guard lock(mutex_);
    return state_;
  }

  RoleCounters counters() const override {
    const RpcServerCounts rpc = server_->counts();
    const CountingTransport::Counts bytes = transport_->counts();
    RoleCounters counters{rpc.requests, rpc.repeated, bytes.received, bytes.sent, transport_->carriers()};
    Count(counters);
    return counters;
  }

  void Close() override { CloseAll(); }

 protected:
  virtual Status ConnectServer(const ClusterPeers& peers) = 0;
  virtual void Count(RoleCounters& counters) const = 0;

  void AddAddress(const std::string& more) { address_ += more; }

  // The first end counts.
  void End(const Status& status) {
    std::vector<std::function<void(Status)>> waiting;
    {
      std::lock_guard lock(mutex_);
      if (end_) return;
      end_ = status;
      std::swap(waiting, waiting_);
    }
    for (auto& ended : waiting) ended(status);
  }

  void CloseAll() {
    std::lock_guard closing(closing_);
    {
      std::lock_guard lock(mutex_);
      if (state_ == RoleState::kStopped) return;
      state_ = RoleState::kDraining;
    }
    server_->Close();
    transport_->Close();
    {
      std::lock_guard lock(mutex_);
      state_ = RoleState::kStopped;
    }
    End(Status::Ok());
  }

  const std::shared_ptr<CountingTransport> transport_;
  const std::unique_ptr<Server> server_;
  const RoleOptions options_;

 private:
  std::string address_;
  std::mutex closing_;         // one Close at a time
  mutable std::mutex mutex_;   // guards what follows
  RoleState state_ = RoleState::kListening;
  bool connecting_ = false;
  std::optional<Status> end_;
  std::vector<std::function<void(Status)>> waiting_;
};

class ParameterServerRole final : public Role<ParameterServer> {
 public:
  using Role::Role;
  ~ParameterServerRole() override { CloseAll(); }

 private:
  Status ConnectServer(const ClusterPeers&) override { return Status::Ok(); }  // it is only called
  void Count(RoleCounters& counters) const override {
    for (uint32_t c = 0; c < server_->store().row_class_count(); ++c) {
      counters.rows += server_->store().RowCount(c).value();
    }
  }
};

class EmbeddingWorkerRole final : public Role<EmbeddingServer> {
 public:
  using Role::Role;
  ~EmbeddingWorkerRole() override { CloseAll(); }

 private:
  Status ConnectServer(const ClusterPeers& peers) override {
    return server_->Connect(Clients("parameter server", peers.parameter_servers, options_));
  }
  void Count(RoleCounters& counters) const override { counters.batches = server_->held(); }
};

// An NN worker has two addresses: of its requests, and of its place in the ring where gradients are summed.
constexpr char kBetweenAddresses = '+';

std::vector<std::string> PartsOf(const std::vector<std::string>& addresses, bool ring) {
  std::vector<std::string> parts;
  for (const std::string& address : addresses) {
    const size_t end = std::min(address.find(kBetweenAddresses), address.size());
    parts.push_back(ring ? address.substr(std::min(end + 1, address.size())) : address.substr(0, end));
  }
  return parts;
}

// At least what the gradients of a step take: here, or padded on a GPU.
uint64_t MostGradientBytes(const DenseModelConfig& config) {
  constexpr double kPadding = 64u << 20, kMost = 1e18;
  return static_cast<uint64_t>(std::min(2 * DenseModelBytes(config) + kPadding, kMost));
}

class NnWorkerRole final : public Role<NnServer> {
 public:
  using Role::Role;
  ~NnWorkerRole() override {
    CloseAll();
    if (ring_transport_ != nullptr) ring_transport_->Close();
  }

  // Takes a place in a ring for the gradients of a network, with a transport of its own. After Listen.
  Status ListenForRing(const DenseModelConfig& config) {
    most_gradient_bytes_ = MostGradientBytes(config);
    auto transport = MakeTransport(options_.net);
    if (!transport.ok()) return transport.status();
    ring_transport_ = *transport;
    auto member = MakeRingMember(ring_transport_, ListenAddress(options_.net), options_.net.secret);
    if (!member.ok()) return member.status();
    ring_ = std::move(*member);
    AddAddress(kBetweenAddresses + ring_->address());
    return Status::Ok();
  }

 private:
  Status ConnectServer(const ClusterPeers& peers) override {
    std::unique_ptr<Collective> collective;
    if (ring_ != nullptr) {
      auto joined = ring_->Join(options_.rank, PartsOf(peers.nn_workers, true), options_.net.deadline_ms,
                                {.deadline_ms = kSilence * options_.net.deadline_ms, .most_bytes = most_gradient_bytes_});
      if (!joined.ok()) return joined.status();
      collective = std::move(*joined);
    }
    server_->OnFailure([this](const Status& status) { End(status); });
    return server_->Connect({Clients("embedding worker", peers.embedding_workers, options_),
                             Clients("NN worker", PartsOf(peers.nn_workers, false), options_), std::move(collective)});
  }
  void Count(RoleCounters& counters) const override {
    counters.steps = server_->applied();
    if (ring_transport_ == nullptr) return;
    const CountingTransport::Counts bytes = ring_transport_->counts();
    counters.bytes_received += bytes.received;
    counters.bytes_sent += bytes.sent;
    counters.carriers.merge(ring_transport_->carriers());
  }

  std::shared_ptr<CountingTransport> ring_transport_;
  std::unique_ptr<RingMember> ring_;
  uint64_t most_gradient_bytes_ = 0;
};

class DataLoaderRole final : public Role<LoaderServer> {
 public:
  using Role::Role;
  ~DataLoaderRole() override { CloseAll(); }

 private:
  Status ConnectServer(const ClusterPeers& peers) override {
    return server_->Connect({Clients("embedding worker", peers.embedding_workers, options_),
                             Clients("NN worker", PartsOf(peers.nn_workers, false), options_)});
  }
  void Count(RoleCounters& counters) const override { counters.batches = server_->ready(); }
};

template <typename RoleOfServer, typename Server>
Result<std::unique_ptr<ClusterRole>> Listening(std::shared_ptr<CountingTransport> transport,
                                               std::unique_ptr<Server> server, const RoleOptions& options) {
  auto role = std::make_unique<RoleOfServer>(std::move(transport), std::move(server), options);
  PERSIA_RETURN_IF_ERROR(role->Listen());
  return std::unique_ptr<ClusterRole>(std::move(role));
}

}  // namespace

Result<std::unique_ptr<ClusterRole>> MakeParameterServerRole(const TrainerConfig& config, const RoleOptions& options) {
  auto transport = MakeTransport(options.net);
  if (!transport.ok()) return transport.status();
  ParameterServer::Options server{config.tables, StepOptions(config), Rpc(options.net)};
  return Listening<ParameterServerRole>(*transport, std::make_unique<ParameterServer>(*transport, server), options);
}

Result<std::unique_ptr<ClusterRole>> MakeEmbeddingWorkerRole(const TrainerConfig& config, const RoleOptions& options) {
  auto transport = MakeTransport(options.net);
  if (!transport.ok()) return transport.status();
  const size_t most_held = config.nn_workers * NnWorker::SlotsOf(config.staleness);
  EmbeddingServer::Options server{config.schema,         config.tables, config.nn_workers, MergesParts(config), most_held,
                                  options.wire.rows, Rpc(options.net)};
  return Listening<EmbeddingWorkerRole>(*transport, std::make_unique<EmbeddingServer>(*transport, std::move(server)),
                                        options);
}

Result<std::unique_ptr<ClusterRole>> MakeNnWorkerRole(const TrainerConfig& config, const RoleOptions& options) {
  if (options.size != config.nn_workers || options.rank >= options.size) {
    return Status(ErrorCode::kConfigInvalid, "NN worker " + std::to_string(options.rank) + " of " +
                                                 std::to_string(options.size) + ", but the config has " +
                                                 std::to_string(config.nn_workers));
  }
  auto transport = MakeTransport(options.net);
  if (!transport.ok()) return transport.status();
  const uint64_t heartbeat_ms = std::clamp<uint64_t>(options.net.deadline_ms / 4, 10, 1'000);
  NnServer::Options server{config, options.rank, options.wire.activations, heartbeat_ms, Rpc(options.net)};
  auto role = std::make_unique<NnWorkerRole>(*transport, std::make_unique<NnServer>(*transport, std::move(server)),
                                             options);
  PERSIA_RETURN_IF_ERROR(role->Listen());
  if (MergesParts(config)) PERSIA_RETURN_IF_ERROR(role->ListenForRing(config.dense));
  return std::unique_ptr<ClusterRole>(std::move(role));
}

Result<std::unique_ptr<ClusterRole>> MakeDataLoaderRole(const TrainerConfig& config, const RoleOptions& options,
                                                        std::shared_ptr<LoaderQueue> queue) {
  auto transport = MakeTransport(options.net);
  if (!transport.ok()) return transport.status();
  LoaderServer::Options server{config, options.wire.rows.codec, Rpc(options.net)};
  return Listening<DataLoaderRole>(
      *transport, std::make_unique<LoaderServer>(*transport, std::move(server), std::move(queue)), options);
}

Result<ClusterDriver> MakeClusterDriver(const TrainerConfig& config, const RoleOptions& options,
                                        const ClusterPeers& peers) {
  auto transport = MakeTransport(options.net);
  if (!transport.ok()) return transport.status();
  auto loaders = std::make_shared<LoaderClients>(*transport, Clients("data loader", peers.data_loaders, options));
  auto trainer = ClusterTrainer::Create(
      *transport, {config, Clients("parameter server", peers.parameter_servers, options),
                   Clients("embedding worker", peers.embedding_workers, options),
                   Clients("NN worker", PartsOf(peers.nn_workers, false), options), loaders, options.wire.rows, true});
  if (!trainer.ok()) return trainer.status();
  return ClusterDriver{std::shared_ptr<ModelTrainer>(std::move(*trainer)), std::move(loaders)};
}

}  // namespace persia
