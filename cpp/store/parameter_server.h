// ParameterServer: one of a cluster's stores of embedding rows, as a service: a LocalStore behind a StepStore, where the
// parts of steps of all NN workers come together.
//
//   embedding worker 0 ── lookups, parts of steps ──┐
//   embedding worker 1 ── …                       ──┼─► StepStore ─► LocalStore
//   driver             ── whole rows, counters ─────┘
//
// The answer to a part goes out when the step is applied, so it needs no thread while it waits. Each request is executed
// once (net/rpc.h); a part that comes again all the same is recognised by its rank and step.
//
// Bounds: requests by the RPC server; scans under way by kMostScans, the oldest of which ends for a new one.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/rpc.h"
#include "store/local_store.h"
#include "store/step_store.h"
#include "store/store_messages.h"

namespace persia {

class ScanSessions;

class ParameterServer {
 public:
  static constexpr size_t kMostScans = 4;

  struct Options {
    std::vector<TableOptions> tables;  // by row class
    StepStore::Options steps;
    RpcServerOptions rpc;
  };

  // The transport is closed by its owner, after this.
  ParameterServer(std::shared_ptr<Transport> transport, const Options& options);
  ~ParameterServer();  // closes

  // As RpcServer::Listen.
  Result<std::string> Listen(const std::string& address) { return rpc_->Listen(address); }

  const LocalStore& store() const { return store_; }
  RpcServerCounts counts() const { return rpc_->counts(); }

  // Answers what it has begun, then stops. Idempotent.
  void Close();

 private:
  using Answer = Result<Buffer>;

  void Register();
  // A request that is answered at once.
  void On(uint16_t type, bool idempotent, std::function<Answer(const RpcRequest& request)> answer);
  void Lookup(const RpcRequest& request, RpcReply reply);
  void Apply(const RpcRequest& request, RpcReply reply);
  Answer Write(const RpcRequest& request);
  Answer Read(const RpcRequest& request) const;
  Answer RestoreApplied(const RpcRequest& request);
  StoreCounters Counters() const;

  std::vector<uint32_t> dims_, widths_;  // by row class
  LocalStore store_;
  StepStore steps_;
  const std::unique_ptr<ScanSessions> scans_;
  const std::unique_ptr<RpcServer> rpc_;
};

}  // namespace persia
