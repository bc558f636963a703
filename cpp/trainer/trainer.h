// Trainer: trains one model in this process, with one or several NN workers.
//
//   Push ─► prepare ─┬─► NN worker 0: lookup ─► train ─► apply      prepare: checks the batch, shares its rows out,
//                    ├─► NN worker 1: lookup ─► train ─► apply               signs, distinct signs
//                    └─► …                                          the rest: nn_worker.h
//
// A batch that is pushed is one *step*: in runs of rows as equal as can be it goes to all workers, the first rows to
// worker 0. Nothing is lost or trained twice, whatever its size; a worker whose part is empty takes part in the sums
// with zeros.
//
//  - sync, hybrid: dense gradients are summed over the workers, embedding gradients per row, and both are means over
//    the whole batch: n workers train like one that gets all rows. sync has a staleness bound of 0.
//  - async: each worker trains on its part as on a batch of its own, against a shared dense store, and sends its
//    embedding gradients alone. A fast worker is ahead of a slow one by as many steps as there are slots.
//
// Prediction uses the same tables and network between steps and changes nothing.
//
// Failure: an invalid batch is refused alone. Any other error (a loss that is not finite, say) stops all workers: steps
// that every worker has trained already are still applied, everything waiting gets the error, and so does every later
// call.
//
// Thread-safety: internally synchronised. Completions run on the trainer's threads (or inside the call when there is
// nothing to wait for), never under a lock; they must be short and must not call the trainer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bounded_queue.h"
#include "batch/batch.h"
#include "batch/feature_schema.h"
#include "checkpoint/snapshot.h"
#include "dense/dense_model.h"
#include "dense/loss_scaler.h"
#include "store/local_store.h"
#include "trainer/dense_training.h"
#include "trainer/nn_worker.h"
#include "trainer/stage_meter.h"
#include "trainer/turnstile.h"
#include "worker/embedding_worker.h"
#include "worker/row_staleness.h"
#include "worker/step_updates.h"

namespace persia {

enum class TrainerMode { kSync, kHybrid, kAsync };

struct TrainerConfig {
  FeatureSchema schema;
  std::vector<TableOptions> tables;  // one for each row class of the schema
  DenseModelConfig dense;            // `threads` are shared out over the NN workers, each has at least one
  TrainerMode mode = TrainerMode::kHybrid;
  uint64_t staleness = 0;            // bound; sync: 0
  // Lookups only as far ahead as keeps the stages busy, else as far as the bound allows (deterministic: exactly so far).
  bool just_in_time = false;
  // Ordered schedule, and sums in an order of their own: bit-identical reruns, with any number of threads of the dense
  // network. Not in async with several workers.
  bool deterministic = false;
  uint32_t nn_workers = 1;
  LossScaling loss_scaling;
  uint32_t accumulate = 1;           // pieces in which a worker trains its part, for the memory of the activations
  uint32_t row_staleness_one_in = RowStaleness::kOneIn;  // rows sampled for the effective staleness
  size_t trace_spans = 0;            // kept for each stage of each worker; 0: no trace
};

// Totals since the trainer was made; `steps` and `samples` count what was applied, including before a restore.
struct TrainerProgress {
  uint64_t steps = 0;           // that all workers have applied
  uint64_t samples = 0;
  double loss_sum = 0.0;        // of the mean losses of `loss_steps` trained steps; parts of steps count as parts
  double loss_steps = 0.0;
  uint64_t skipped = 0;         // steps (async: parts of them) whose gradients were not finite, ever
  float loss_scale = 1.0f;      // of the next step
  uint64_t staleness = 0;       // now, of the worker that is most behind
  uint64_t most_staleness = 0;  // of any lookup so far
  std::vector<uint64_t> staleness_histogram;  // lookups of all workers by staleness, 0 … bound
  RowStaleness::Totals row_staleness;
  DenseStore::Staleness dense_staleness;      // async
};

using Completion = std::function<void(Status)>;

class Trainer {
 public:
  // The store is a LocalStore of config.tables unless another one is given.
  static Result<std::unique_ptr<Trainer>> Create(TrainerConfig config, std::unique_ptr<ParameterStore> store = nullptr);
  ~Trainer();  // closes
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  const TrainerConfig& config() const { return config_; }

  // Stops and joins the threads; what is waiting, and every later call, gets kClosed. May be called again.
  void Close();

  // Hands in the batch of the next step. `accepted` runs when the batch was prepared (its memory is free again) or
  // refused (kBatchInvalid): waiting for it is the back-pressure.
  void Push(std::shared_ptr<const Batch> batch, Completion accepted);

  // `done` runs when every batch pushed before is applied. Pauses at steps that were not pushed are withdrawn
  // (kAborted), unless more batches are to come.
  void Drain(Completion done, bool more_comes = false);

  // Brings the pipeline to rest after step `at`, or as soon as possible; `paused` runs when it is. From then on it
  // rests until each pause that was reached is ended by one Resume. Several may be asked for, at several steps. kUsage
  // when `at` has passed. To come to rest in deterministic mode, batches must still be pushed or a drain asked for: see
  // StalenessGate.
  void Pause(std::optional<uint64_t> at, Completion paused);
  // Ends one pause that was reached.
  void Resume();
  bool at_rest() const;

  // Writes tables, network and pipeline state to `directory`. Only at rest (kUsage).
  Result<std::vector<SnapshotFile>> Save(const std::string& directory);
  // Checks all files of a snapshot, then replaces the trainer's state. Only before the first Push.
  Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files);

  // Outputs of the tasks for a batch, (rows, tasks) f32; labels are not needed. Any thread.
  Status Predict(const Batch& batch, std::vector<float>* outputs);

  TrainerProgress progress() const;
  // The dense network of a worker, in async the one of all. Only while nothing moves.
  DenseModel& dense_model(uint32_t rank) { return workers_[rank]->dense().model(); }
  // The stages of all workers, and `prepare` as one of worker 0.
  std::vector<const StageMeter*> stages() const;
  ParameterStore& store() { return *store_; }
  const EmbeddingWorker& worker() const { return worker_; }

 private:
  struct Intake {
    std::shared_ptr<const Batch> batch;  // empty: a drain
    Completion done;
    bool more_comes = false;  // after a drain
  };
  struct Waiting {
    uint64_t step;
    Completion done;
  };

  Trainer(TrainerConfig config, std::unique_ptr<ParameterStore> store);

  Status MakeWorkers();
  Status MakeDense(std::vector<std::unique_ptr<DenseTraining>>* dense);
  NnWorker::Events EventsOfWorker();
  uint32_t workers() const { return config_.nn_workers; }

  void PrepareLoop();
  void Accept(Intake& intake);
  void AcceptDrain(Completion done, bool more_comes);
  Status PrepareParts(const Batch& batch, std::span<StepSlot* const> slots) const;
  void PreparePart(const Batch& part, StepSlot& slot) const;
  Status CheckLabels(const Batch& batch) const;

  void Fail(Status status);
  Status failure() const;
  std::optional<uint64_t> NextPause() const;  // under mutex_
  uint64_t applied() const;                   // by all workers
  void Signal();                              // runs the completions whose condition now holds
  void WorkerEnded();

  std::vector<InFlight> InFlightLookups() const;
  Result<SnapshotFile> SavePipeline(const std::string& directory) const;
  Status RestorePipeline(const std::string& directory);
  Status RestoreInFlight(SnapshotReader& reader);
  void ShareOutInFlight(uint64_t step, uint32_t global_rows, const AlignedBuffer<float>& pooled,
                        const std::vector<bool>& known);
  Status RestoreSeen(SnapshotReader& reader);
  Status RestoreScaling(SnapshotReader& reader);
  void StartAfter(uint64_t step, uint64_t dense_updates);

  const TrainerConfig config_;
  std::unique_ptr<ParameterStore> store_;
  EmbeddingWorker worker_;
  RowStaleness row_staleness_;
  StepUpdates updates_;
  Turnstile turns_;
  std::shared_ptr<DenseStore> dense_store_;  // async
  std::vector<std::shared_ptr<LossScaler>> scalers_;  // of the workers, all alike; async: the one of all
  int64_t dense_ahead_ = 0;                  // updates of the dense optimizer less steps when they began, not in async
  uint64_t skipped_before_ = 0;              // steps, before a restore
  std::vector<std::unique_ptr<NnWorker>> workers_;
  std::vector<StalenessGate*> gates_;  // of the workers

  BoundedQueue<Intake> intake_;  // no bound of its own: every entry has a caller who waits for its completion
  uint64_t prepared_ = 0;        // last step handed in; prepare thread, Restore
  StageMeter prepare_meter_;
  std::mutex predict_mutex_;
  std::unique_ptr<StepSlot> predict_slot_;  // scratch of Predict

  mutable std::mutex mutex_;  // guards what follows
  Status failure_;
  uint32_t ended_ = 0;  // workers; when all have, every trained step is applied and nothing moves any more
  std::vector<Waiting> drains_;
  std::vector<Waiting> pauses_;  // asked for, not yet reached
  uint32_t holds_ = 0;           // reached, not yet ended
  uint64_t samples_ = 0;
  double loss_sum_ = 0, loss_steps_ = 0;

  std::mutex closing_;  // one Close at a time
  std::thread prepare_thread_;
};

}  // namespace persia
