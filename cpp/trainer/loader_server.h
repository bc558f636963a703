// LoaderServer: a data loader of a cluster that does not drive, as a service to the driver. It reads its share of the
// batches of each pass; those that the driver wants trained go from here to embedding workers and NN workers, past the
// driver, which only says which one is which step.
//
//   driver ── Open, Ask, Send(batch, step) ──► LoaderQueue ◄── reader
//                                                  │
//                                             StepForwarder ──► embedding workers, NN workers
//
// Bounds: the queue's, and as many batches on their way as the driver orders: NN workers have slots for them.
//
// Thread-safety: internally synchronised.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "net/role_clients.h"
#include "net/rpc.h"
#include "trainer/loader_queue.h"
#include "trainer/step_forwarder.h"

namespace persia {

class LoaderServer {
 public:
  struct Options {
    TrainerConfig config;  // of the whole cluster
    IdCodec codec = IdCodec::kRaw;
    RpcServerOptions rpc;
  };
  struct Peers {
    RoleClientsOptions embedding_workers, nn_workers;
  };

  // `queue` is closed with it.
  LoaderServer(std::shared_ptr<Transport> transport, Options options, std::shared_ptr<LoaderQueue> queue);
  ~LoaderServer();  // closes

  // As RpcServer::Listen.
  Result<std::string> Listen(const std::string& address) { return rpc_->Listen(address); }
  // Requests before this are refused. Once.
  Status Connect(Peers peers);

  size_t ready() const { return queue_->ready(); }
  RpcServerCounts counts() const { return rpc_->counts(); }

  // Idempotent.
  void Close();

 private:
  // What there is once it is connected.
  struct Connected {
    Connected(const std::shared_ptr<Transport>& transport, const Options& options, Peers peers);

    RoleClients embedding_workers, nn_workers;
    StepForwarder forwarder;
  };

  void Register();
  void Ask(const RpcRequest& request, RpcReply reply);
  Status Send(const RpcRequest& request);
  Connected* connected() const;

  const std::shared_ptr<Transport> transport_;
  const Options options_;
  const std::shared_ptr<LoaderQueue> queue_;
  mutable std::mutex mutex_;
  std::unique_ptr<Connected> connected_;  // guarded by mutex_ until it is there; it stays
  const std::unique_ptr<RpcServer> rpc_;
};

}  // namespace persia
