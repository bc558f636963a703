// ClusterTrainer: the processes of a cluster as one trainer, in the hands of the data loader.
//
//   Push ─► forward: checks the batch, has its parts sent to embedding workers and NN workers (StepForwarder);
//                    one that another data loader holds is sent by that   then: accepted
//
//   watch, one for each NN worker: what it has applied, whether it rests, whether it failed
//   control: what NN workers shall do: pause, go on, drain, stop
//
// Flow: a step is forwarded when every NN worker has a slot for it, which is known from what they have applied. So nobody
// holds more of it than NN workers have slots for, and requests never wait for training. A batch that another data
// loader sends is accepted when that is told to, so several data loaders send at once; what goes wrong there ends training.
//
// Rests: a pause that is asked for holds back later steps until all NN workers know of it; so all rest at the same step.
// "As soon as possible" means after what was forwarded.
//
// A checkpoint has the same files as that of a single process and loads into one, and into a cluster of any size: rows
// and weights go through here.
//
// Failure: the first error, of this process or told by an NN worker, ends training everywhere: NN workers apply what all
// of them have trained. A process that is lost is kPeerLost with its role and rank, at the latest after the deadline
// of the calls that it leaves unanswered.
//
// Thread-safety: internally synchronised, as a ModelTrainer.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/bounded_queue.h"
#include "net/role_clients.h"
#include "store/remote_store.h"
#include "trainer/loader_clients.h"
#include "trainer/model_trainer.h"
#include "trainer/nn_messages.h"
#include "trainer/snapshot_files.h"
#include "trainer/step_forwarder.h"

namespace persia {

class ClusterTrainer final : public ModelTrainer {
 public:
  struct Options {
    TrainerConfig config;  // of the whole cluster
    RoleClientsOptions parameter_servers, embedding_workers, nn_workers;
    std::shared_ptr<LoaderClients> loaders;  // closed with the trainer
    RemoteStore::Wire wire;
    bool closes_transport = false;  // at the end: it serves nobody else
  };

  // Waits until every process answers: kPeerLost names one that doesn't. kConfigUnsupported: the config asks for what a
  // cluster can't do.
  static Result<std::unique_ptr<ClusterTrainer>> Create(std::shared_ptr<Transport> transport, Options options);
  ~ClusterTrainer() override;  // closes

  const TrainerConfig& config() const override { return config_; }
  // Ends training in the other processes too: NN workers apply what they have trained. Those that don't end within
  // kFarewellMs are not waited for.
  void Close() override;
  void Push(std::shared_ptr<const Batch> batch, Completion accepted) override;
  void Drain(Completion done, bool more_comes = false) override;
  // kUsage also where `at` was forwarded already.
  void Pause(std::optional<uint64_t> at, Completion paused) override;
  void Resume() override;
  bool at_rest() const override;
  Result<std::vector<SnapshotFile>> Save(const std::string& directory) override;
  Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files) override;
  Status Predict(const Batch& batch, std::vector<float>* outputs) override;
  TrainerProgress progress() const override;
  // Asks the other processes; of one that does not answer soon, what it said last.
  TrainerCounters counters() const override;
  std::vector<StageReport> StageReports() const override;
  Result<std::string> Trace() const override;
  ParameterStore& store() override { return store_; }

 private:
  struct Intake {
    std::shared_ptr<const Batch> batch;  // empty: a drain
    Completion done;
    bool more_comes = false;
  };
  struct Waiting {
    uint64_t step;
    Completion done;
  };
  struct Worker {
    NnState state;
    bool gone = false;  // ended, or lost
    std::thread watch;
  };

  ClusterTrainer(std::shared_ptr<Transport> transport, Options options);
  uint32_t workers() const { return config_.nn_workers; }

  void ForwardLoop();
  void Accept(Intake& intake);
  void AcceptDrain(Completion done, bool more_comes);
  Status WaitForRoom();
  Status Check(const Batch& batch) const;
  Status Forward(const std::shared_ptr<const Batch>& batch, uint64_t step);

  void WatchLoop(uint32_t rank);
  void Lost(uint32_t rank, const Status& status);
  void ControlLoop();
  Status SendControl(const NnControl& control);
  void SendStop(const Status& reason);

  void Fail(const Status& status);
  Status failure() const;
  // What follows: under mutex_.
  uint64_t applied() const;
  // Of NN worker 0; skipped in async, where each has a scale of its own: those of all.
  LossScaler::State Scaling() const;
  std::optional<uint64_t> NextPause() const;
  NnControl WantedControl() const;
  bool Rests(uint64_t step) const;
  bool AllGone() const;

  void Signal();  // runs the completions whose condition now holds

  Result<std::vector<std::vector<uint8_t>>> Seen(std::optional<uint64_t> deadline_ms) const;
  // Lookups in flight of all NN workers, and their rows.
  struct InFlightRows {
    std::vector<AlignedBuffer<float>> rows;
    std::vector<InFlight> lookups;
  };
  Status ReadInFlight(InFlightRows* in_flight) const;
  // The dense network of NN worker 0: tensors on memory of their own.
  struct DenseCopy {
    std::vector<AlignedBuffer<float>> values;
    std::vector<NamedTensor> tensors;
  };
  Status ReadShapes(DenseCopy* dense) const;
  Status ReadValues(DenseCopy* dense) const;
  Status WriteValues(const DenseCopy& dense) const;
  Status RestorePipeline(const RestoredPipeline& state);
  Status SendStart(const RestoredPipeline& state);

  const std::shared_ptr<Transport> transport_;
  const bool closes_transport_;
  const TrainerConfig config_;
  const RemoteStore::Wire wire_;
  RoleClients parameter_servers_, embedding_workers_, nn_workers_;
  const std::shared_ptr<LoaderClients> loaders_;
  const StepForwarder forwarder_;
  RemoteStore store_;

  BoundedQueue<Intake> intake_;  // no bound of its own: every entry has a caller who waits for its completion
  StageMeter prepare_meter_;
  std::atomic<uint32_t> next_holder_{0};  // embedding worker of the next prediction

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Status failure_;
  bool closing_ = false;
  std::vector<Worker> workers_;
  uint64_t forwarded_ = 0;        // last step that NN workers have, or get now
  uint64_t drained_to_ = 0;
  uint64_t wanted_ = 0, known_ = 0;  // numbers of the last control that was asked for, and that all workers follow
  std::vector<Waiting> drains_;
  std::vector<Waiting> pauses_;   // asked for, not yet reached
  uint32_t holds_ = 0;            // reached, not yet ended
  uint64_t rest_step_ = 0;        // while there are holds
  uint64_t samples_before_ = 0;   // of a restored checkpoint
  uint64_t step_before_ = 0;
  mutable StoreCounters last_counters_;
  mutable std::vector<uint64_t> last_distinct_;

  std::mutex closing_mutex_;  // one Close at a time
  std::thread forward_thread_, control_thread_;
};

}  // namespace persia
