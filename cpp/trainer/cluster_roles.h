// The roles of a cluster as processes hold them: each with a transport of its own, an address, and peers that it is told
// later, since addresses are known only when all listen.
//
//   listening ── Connect ──► running ── Close ──► draining ──► stopped
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/counting_transport.h"
#include "net/transport_choice.h"
#include "trainer/cluster_trainer.h"
#include "trainer/loader_clients.h"
#include "trainer/loader_queue.h"
#include "trainer/model_trainer.h"

namespace persia {

// How a process takes part in the data plane.
struct NetOptions {
  std::string host;       // an address of this host
  uint32_t port = 0;      // 0: any
  TransportChoice transport = TransportChoice::kAuto;
  std::string secret;     // of the run
  uint64_t deadline_ms = 60'000;
};

struct WireOptions {
  RemoteStore::Wire rows;
  WireFormat activations = WireFormat::kFp32;
};

struct RoleOptions {
  NetOptions net;
  WireOptions wire;
  uint32_t rank = 0, size = 1;  // of its role
};

// By rank.
struct ClusterPeers {
  std::vector<std::string> parameter_servers, embedding_workers, nn_workers;
  std::vector<std::string> data_loaders;  // that of number 0, the driver, is empty: nobody connects to it
};

struct RoleCounters {
  uint64_t requests = 0, repeated = 0;
  uint64_t bytes_received = 0, bytes_sent = 0;
  uint64_t rows = 0, batches = 0, steps = 0;  // now, of the roles that have them
};

enum class RoleState { kListening, kRunning, kDraining, kStopped };

class ClusterRole {
 public:
  virtual ~ClusterRole() = default;  // closes

  virtual const std::string& address() const = 0;
  // Waits for the peers. Once (kUsage). kPeerLost: one does not answer.
  virtual Status Connect(const ClusterPeers& peers) = 0;
  // `ended` runs once: when the role fails by itself, or, with Ok, when it was closed. At once where that was before.
  virtual void OnEnd(std::function<void(Status)> ended) = 0;
  virtual RoleState state() const = 0;
  virtual RoleCounters counters() const = 0;
  // Answers what it has begun, then stops. Idempotent.
  virtual void Close() = 0;
};

// `config` is that of the whole cluster; `dense.threads` are those of this process. Errors: kTransport, kConfigInvalid.
Result<std::unique_ptr<ClusterRole>> MakeParameterServerRole(const TrainerConfig& config, const RoleOptions& options);
Result<std::unique_ptr<ClusterRole>> MakeEmbeddingWorkerRole(const TrainerConfig& config, const RoleOptions& options);
Result<std::unique_ptr<ClusterRole>> MakeNnWorkerRole(const TrainerConfig& config, const RoleOptions& options);

// One that does not drive: it sends what `queue` is given.
Result<std::unique_ptr<ClusterRole>> MakeDataLoaderRole(const TrainerConfig& config, const RoleOptions& options,
                                                        std::shared_ptr<LoaderQueue> queue);

// What data loader 0 holds, with a transport of its own.
struct ClusterDriver {
  std::shared_ptr<ModelTrainer> trainer;
  std::shared_ptr<LoaderClients> loaders;
};
Result<ClusterDriver> MakeClusterDriver(const TrainerConfig& config, const RoleOptions& options,
                                        const ClusterPeers& peers);

}  // namespace persia
