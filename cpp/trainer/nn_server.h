// NnServer: an NN worker of a cluster, as a service to a driver: the NnWorker of a single process, whose embeddings are
// at embedding workers and whose peers are other processes.
//
//   driver ── Part(step: dense, labels) ──► parts, by step ─► NnWorker: lookup ─► train ─► apply
//          ── Control(pause, drain)     ──►                      │          │        │
//          ◄─ NnState ── Watch                    embedding workers      all-reduce  embedding workers
//
// Parts may come in any order; they are trained in the order of steps. The driver sends no more of them than the worker
// has slots for, since it hears what is applied (NnWorker::slots); beyond that the server refuses.
//
// The state goes to whoever watches as soon as it changes, at the speed at which they ask for it, and every
// `heartbeat_ms` anyway.
//
// In mode async NN worker 0 has the dense store that all share.
//
// Thread-safety: internally synchronised.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "collective/collective.h"
#include "net/role_clients.h"
#include "net/rpc.h"
#include "trainer/model_trainer.h"
#include "trainer/nn_messages.h"
#include "trainer/nn_worker.h"
#include "trainer/remote_dense.h"
#include "trainer/trained_totals.h"

namespace persia {

class NnServer {
 public:
  struct Options {
    TrainerConfig config;  // of the whole cluster; `dense.threads` are those of this process
    uint32_t rank = 0;
    WireFormat activations = WireFormat::kFp32;
    uint64_t heartbeat_ms = 1'000;
    RpcServerOptions rpc;
  };
  struct Peers {
    RoleClientsOptions embedding_workers;
    RoleClientsOptions nn_workers;           // async: with this one
    std::unique_ptr<Collective> collective;  // several workers in sync and hybrid, else empty
  };

  NnServer(std::shared_ptr<Transport> transport, Options options);
  ~NnServer();  // closes

  // As RpcServer::Listen.
  Result<std::string> Listen(const std::string& address) { return rpc_->Listen(address); }
  // Runs, on any thread, when this worker fails by itself: not when a driver stops it. Before Connect.
  void OnFailure(std::function<void(const Status&)> failed) { on_failure_ = std::move(failed); }
  // Makes the network and starts. Requests before this are refused. Once.
  Status Connect(Peers peers);

  uint64_t applied() const;
  Status failure() const;
  RpcServerCounts counts() const { return rpc_->counts(); }
  // Only while nothing moves.
  DenseModel& dense_model() { return worker_->dense().model(); }

  // Applies what is trained, unless that takes longer than kFarewellMs, then stops. Idempotent.
  void Close();

 private:
  using Answer = Result<Buffer>;
  struct Part {
    Buffer payload;  // what `part` points to
    StepPart part;
    RpcReply reply;
  };
  struct Watcher {
    uint64_t version;
    SteadyClock::time_point until;
    RpcReply reply;
  };

  void Register();
  void On(uint16_t type, bool idempotent, std::function<Answer(const RpcRequest& request)> answer);
  Status MakeDense(Peers& peers, std::unique_ptr<DenseTraining>* dense);
  NnWorker::Events EventsOfWorker();

  void TakePart(RpcRequest request, RpcReply reply);
  void PartsLoop();
  void Fill(const StepPart& part, StepSlot& slot) const;
  void Watch(const RpcRequest& request, RpcReply reply);
  void WatchLoop();
  NnState StateNow() const;  // under mutex_
  void Changed();
  void Fail(const Status& status);

  Answer Control(const RpcRequest& request);
  Answer Predict(const RpcRequest& request);
  Answer ReadTensor(const RpcRequest& request);
  Answer WriteTensor(const RpcRequest& request);
  Result<std::span<float>> RangeOf(WireReader& reader);
  Answer ReadInFlight(const RpcRequest& request) const;
  Answer RestoreLookup(const RpcRequest& request);
  Answer StartAfter(const RpcRequest& request);

  const std::shared_ptr<Transport> transport_;
  const Options options_;
  const std::shared_ptr<LossScaler> scaler_;  // of this worker; those that sum gradients are told the same
  std::unique_ptr<RoleClients> embedding_workers_, nn_workers_;
  std::shared_ptr<DenseStore> dense_store_;  // async, rank 0
  std::unique_ptr<DenseService> dense_service_;
  TrainedTotals totals_;
  std::unique_ptr<NnWorker> worker_;
  std::function<void(const Status&)> on_failure_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool connected_ = false, closing_ = false, ended_ = false;
  Status failure_;
  uint64_t version_ = 1, control_ = 0;
  uint64_t dense_ahead_ = 0;        // updates of the worker's own optimizer less steps when it began; else than async
  uint64_t skipped_before_ = 0;     // steps, before a restore
  uint64_t next_step_ = 1;          // to be put into a slot
  std::map<uint64_t, Part> parts_;  // that wait for their turn
  std::vector<Watcher> watchers_;

  const std::unique_ptr<RpcServer> rpc_;
  std::mutex closing_mutex_;  // one Close at a time
  std::thread parts_thread_, watch_thread_;
};

}  // namespace persia
