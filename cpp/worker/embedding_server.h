// EmbeddingServer: an embedding worker of a cluster, as a service between data loaders, NN workers and parameter servers.
//
//   data loader ── Hold(ref, ids) ──► HeldBatches ◄── Lookup(ref), Update(ref) ── NN worker
//                                          │
//                                          ▼
//                                     RemoteStore ──► parameter servers
//
// Bounds: a part is held from the data loader's request to the NN worker's update, so data loaders bound their number
// (ClusterTrainer: slots of the NN workers); beyond `most_held` the server refuses. Requests wait for parameter servers
// on a thread of their own, of which there is one for each lookup and update that can be under way.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "net/role_clients.h"
#include "net/rpc.h"
#include "store/remote_store.h"
#include "worker/embedding_messages.h"
#include "worker/held_batches.h"

namespace persia {

class EmbeddingServer {
 public:
  struct Options {
    FeatureSchema schema;
    std::vector<TableOptions> tables;  // by row class, as the parameter servers have them
    uint32_t nn_workers = 1;
    bool merges = false;               // parts of a step are added up by the parameter servers
    size_t most_held = 0;
    RemoteStore::Wire wire;
    RpcServerOptions rpc;              // `threads` is set here
  };

  EmbeddingServer(std::shared_ptr<Transport> transport, Options options);
  ~EmbeddingServer();  // closes

  // As RpcServer::Listen.
  Result<std::string> Listen(const std::string& address) { return rpc_->Listen(address); }
  // Requests before this are refused. Once.
  Status Connect(RoleClientsOptions servers);

  size_t held() const;
  RpcServerCounts counts() const { return rpc_->counts(); }

  // Answers what it has begun, then stops. Idempotent.
  void Close();

 private:
  using Answer = Result<Buffer>;

  // What there is once it is connected.
  struct Connected {
    Connected(std::shared_ptr<Transport> transport, const Options& options, RoleClientsOptions peers);

    RoleClients servers;
    RemoteStore store;
    EmbeddingWorker worker;
    HeldBatches batches;
  };

  void Register();
  void On(uint16_t type, bool idempotent, std::function<Answer(Connected& all, const RpcRequest& request)> answer);
  Answer Hold(Connected& all, const RpcRequest& request) const;
  Answer Lookup(Connected& all, const RpcRequest& request) const;
  Answer Update(Connected& all, const RpcRequest& request) const;
  Answer Skip(Connected& all, const RpcRequest& request) const;
  Answer Predict(Connected& all, const RpcRequest& request) const;
  Answer Leave(Connected& all, const RpcRequest& request) const;
  Answer Seen(Connected& all) const;
  Answer RestoreSeen(Connected& all, const RpcRequest& request) const;
  Status CheckIds(const Batch& batch) const;

  const std::shared_ptr<Transport> transport_;
  const Options options_;
  mutable std::mutex mutex_;
  std::unique_ptr<Connected> connected_;  // guarded by mutex_ until it is there; it stays
  const std::unique_ptr<RpcServer> rpc_;
};

}  // namespace persia
