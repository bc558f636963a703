#include "trainer/cluster_roles.h"

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "net/ucx_transport.h"
#include "store/parameter_server.h"
#include "trainer/nn_server.h"
#include "worker/embedding_server.h"

namespace persia {
namespace {

Result<std::shared_ptr<CountingTransport>> MakeTransport(const NetOptions& net) {
  UcxOptions options;
  options.choice = net.transport;
  options.secret = net.secret;
  Result<std::unique_ptr<Transport>> transport = MakeUcxTransport(options);
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
    RoleCounters counters{rpc.requests, rpc.repeated, bytes.received, bytes.sent};
    Count(counters);
    return counters;
  }

  void Close() override { CloseAll(); }

 protected:
  virtual Status ConnectServer(const ClusterPeers& peers) = 0;
  virtual void Count(RoleCounters& counters) const = 0;

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

class NnWorkerRole final : public Role<NnServer> {
 public:
  using Role::Role;
  ~NnWorkerRole() override { CloseAll(); }

 private:
  Status ConnectServer(const ClusterPeers& peers) override {
    server_->OnFailure([this](const Status& status) { End(status); });
    return server_->Connect({Clients("embedding worker", peers.embedding_workers, options_),
                             Clients("NN worker", peers.nn_workers, options_), nullptr});
  }
  void Count(RoleCounters& counters) const override { counters.steps = server_->applied(); }
};

template <typename RoleOfServer, typename Server>
Result<std::unique_ptr<ClusterRole>> Listening(std::shared_ptr<CountingTransport> transport,
                                               std::unique_ptr<Server> server, const RoleOptions& options) {
  auto role = std::make_unique<RoleOfServer>(std::move(transport), std::move(server), options);
  PERSIA_RETURN_IF_ERROR(role->Listen());
  return std::unique_ptr<ClusterRole>(std::move(role));
}

// A driver whose transport ends after it.
class Driver final : public ModelTrainer {
 public:
  Driver(std::shared_ptr<Transport> transport, std::unique_ptr<ClusterTrainer> trainer)
      : transport_(std::move(transport)), trainer_(std::move(trainer)) {}
  ~Driver() override { Driver::Close(); }

  const TrainerConfig& config() const override { return trainer_->config(); }
  void Close() override {
    trainer_->Close();
    transport_->Close();
  }
  void Push(std::shared_ptr<const Batch> batch, Completion accepted) override {
    trainer_->Push(std::move(batch), std::move(accepted));
  }
  void Drain(Completion done, bool more_comes) override { trainer_->Drain(std::move(done), more_comes); }
  void Pause(std::optional<uint64_t> at, Completion paused) override { trainer_->Pause(at, std::move(paused)); }
  void Resume() override { trainer_->Resume(); }
  bool at_rest() const override { return trainer_->at_rest(); }
  Result<std::vector<SnapshotFile>> Save(const std::string& directory) override { return trainer_->Save(directory); }
  Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files) override {
    return trainer_->Restore(directory, files);
  }
  Status Predict(const Batch& batch, std::vector<float>* outputs) override { return trainer_->Predict(batch, outputs); }
  TrainerProgress progress() const override { return trainer_->progress(); }
  TrainerCounters counters() const override { return trainer_->counters(); }
  std::vector<StageReport> StageReports() const override { return trainer_->StageReports(); }
  Result<std::string> Trace() const override { return trainer_->Trace(); }
  ParameterStore& store() override { return trainer_->store(); }

 private:
  const std::shared_ptr<Transport> transport_;
  const std::unique_ptr<ClusterTrainer> trainer_;
};

}  // namespace
}  // namespace persia
