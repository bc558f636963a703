// A whole cluster in this process: every role with a transport of its own on one in-process network.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "collective/local_collective.h"
#include "net/in_process_transport.h"
#include "store/parameter_server.h"
#include "trainer/cluster_trainer.h"
#include "trainer/loader_server.h"
#include "trainer/nn_server.h"
#include "trainer_fixtures.h"
#include "worker/embedding_server.h"

namespace persia {

inline TrainerConfig ClusterConfig(TrainerMode mode, uint32_t workers) { return WorkersConfig(mode, workers, false); }

// One process at rest after batches of all sizes.
inline std::unique_ptr<Trainer> TrainedAlone(TrainerConfig config, uint64_t steps) {
  config.nn_workers = 1;
  auto trainer = Make(config);
  TrainSizes(*trainer, 1, steps);
  Rest(*trainer);
  return trainer;
}

inline bool Mentions(const Status& status, const std::string& what) {
  if (status.message().find(what) != std::string::npos) return true;
  std::fprintf(stderr, "the message is: %s, not about %s\n", status.message().c_str(), what.c_str());
  return false;
}

struct ClusterShape {
  uint32_t parameter_servers = 2, embedding_workers = 2, data_loaders = 1;
  RemoteStore::Wire wire = {};
  WireFormat activations = WireFormat::kFp32;
  uint64_t deadline_ms = 30'000;
  // Puts something around each transport, by the name of its role ("ps-0", "ew-1", "nn-0", "dl-1", "driver").
  std::function<std::shared_ptr<Transport>(const std::string& name, std::unique_ptr<Transport>)> wrap = {};
};

class TestCluster {
 public:
  TestCluster(const TrainerConfig& config, const ClusterShape& shape) : config_(config), shape_(shape) {
    for (uint32_t i = 0; i < shape.parameter_servers; ++i) StartParameterServer(i);
    for (uint32_t i = 0; i < shape.embedding_workers; ++i) StartEmbeddingWorker(i);
    for (uint32_t i = 0; i < config.nn_workers; ++i) {
      const auto transport = TransportOf("nn-" + std::to_string(i));
      nn.push_back(std::make_unique<NnServer>(transport, NnServer::Options{config, i, shape.activations, std::min<uint64_t>(200, shape.deadline_ms / 4), Rpc()}));
      nn_addresses_.push_back(Listen(*nn.back(), "nn-" + std::to_string(i)));
    }
    const bool sums = config.mode != TrainerMode::kAsync && config.nn_workers > 1;
    auto collectives = sums ? MakeLocalCollectives(config.nn_workers, {.deadline_ms = kSilence * shape.deadline_ms})
                            : std::vector<std::unique_ptr<Collective>>(config.nn_workers);
    for (uint32_t i = 0; i < config.nn_workers; ++i) {
      const Status status = nn[i]->Connect({Clients("embedding worker", ew_addresses_),
                                            Clients("NN worker", nn_addresses_), std::move(collectives[i])});
      REQUIRE_MESSAGE(status.ok(), status.message());
    }
    queues.resize(shape.data_loaders);
    for (uint32_t i = 1; i < shape.data_loaders; ++i) StartDataLoader(i);
    const auto driver = TransportOf("driver");
    loaders = std::make_shared<LoaderClients>(driver, Clients("data loader", dl_addresses_));
    auto made = ClusterTrainer::Create(driver, {config, Clients("parameter server", ps_addresses_),
                                                Clients("embedding worker", ew_addresses_),
                                                Clients("NN worker", nn_addresses_), loaders, shape.wire, false});
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    trainer = std::move(*made);
  }

  // From the driver back, as a launcher does it.
  ~TestCluster() {
    trainer.reset();
    dl.clear();
    nn.clear();
    ew.clear();
    ps.clear();
    for (const auto& transport : transports_) transport->Close();
  }

  RoleClientsOptions Clients(const std::string& role, const std::vector<std::string>& addresses) const {
    return {role, addresses, kSecret, 1, shape_.deadline_ms};
  }
  std::shared_ptr<Transport> TransportOf(const std::string& name) {
    auto transport = MakeInProcessTransport(network_, name);
    transports_.push_back(shape_.wrap ? shape_.wrap(name, std::move(transport))
                                      : std::shared_ptr<Transport>(std::move(transport)));
    by_name_[name] = transports_.back();
    return transports_.back();
  }
  // Ends the transport of a role, as a killed process does: nothing is said.
  void Kill(const std::string& name) { by_name_.at(name)->Close(); }

  std::vector<std::unique_ptr<ParameterServer>> ps;
  std::vector<std::unique_ptr<EmbeddingServer>> ew;
  std::vector<std::unique_ptr<NnServer>> nn;
  std::vector<std::unique_ptr<LoaderServer>> dl;      // from number 1 on
  std::vector<std::shared_ptr<LoaderQueue>> queues;   // by number; that of the driver is empty
  std::shared_ptr<LoaderClients> loaders;
  std::unique_ptr<ClusterTrainer> trainer;

 private:
  static constexpr const char* kSecret = "a secret of more than 16 bytes";

  static RpcServerOptions Rpc() {
    RpcServerOptions options;
    options.secret = kSecret;
    options.threads = 3;
    return options;
  }

  template <typename Role>
  static std::string Listen(Role& role, const std::string& name) {
    const Result<std::string> address = role.Listen(name + ":0");
    REQUIRE_MESSAGE(address.ok(), address.status().message());
    return address.value();
  }

  void StartParameterServer(uint32_t rank) {
    const std::string name = "ps-" + std::to_string(rank);
    ps.push_back(std::make_unique<ParameterServer>(
        TransportOf(name), ParameterServer::Options{config_.tables, StepOptions(config_), Rpc()}));
    ps_addresses_.push_back(Listen(*ps.back(), name));
  }

  void StartEmbeddingWorker(uint32_t rank) {
    const std::string name = "ew-" + std::to_string(rank);
    ew.push_back(std::make_unique<EmbeddingServer>(
        TransportOf(name),
        EmbeddingServer::Options{config_.schema, config_.tables, config_.nn_workers, MergesParts(config_),
                                 config_.nn_workers * NnWorker::SlotsOf(config_.staleness), shape_.wire, Rpc()}));
    ew_addresses_.push_back(Listen(*ew.back(), name));
    const Status status = ew.back()->Connect(Clients("parameter server", ps_addresses_));
    REQUIRE_MESSAGE(status.ok(), status.message());
  }

  void StartDataLoader(uint32_t rank) {
    const std::string name = "dl-" + std::to_string(rank);
    queues[rank] = std::make_shared<LoaderQueue>();
    dl.push_back(std::make_unique<LoaderServer>(
        TransportOf(name), LoaderServer::Options{config_, shape_.wire.codec, Rpc()}, queues[rank]));
    dl_addresses_.push_back(Listen(*dl.back(), name));
    const Status status =
        dl.back()->Connect({Clients("embedding worker", ew_addresses_), Clients("NN worker", nn_addresses_)});
    REQUIRE_MESSAGE(status.ok(), status.message());
  }

  const TrainerConfig config_;
  const ClusterShape shape_;
  const std::shared_ptr<InProcessNetwork> network_ = MakeInProcessNetwork();
  std::vector<std::shared_ptr<Transport>> transports_;
  std::map<std::string, std::shared_ptr<Transport>> by_name_;
  std::vector<std::string> ps_addresses_, ew_addresses_, nn_addresses_, dl_addresses_{""};
};

}  // namespace persia
