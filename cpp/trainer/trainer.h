// Trainer: trains one model in this process, as a pipeline of four threads.
//
//   Push ─► prepare ─► lookup ─────► train ──────────► apply
//           signs,     gate, rows,   forward, backward  gradients per sign,
//           dedup      pooling       dense optimizer    row optimizer, gate
//
// A step travels from thread to thread in a StepSlot; the number of slots bounds how far preparation runs ahead. The
// StalenessGate orders the stages (see there for modes and determinism). Prediction uses the same tables and network
// between steps and changes nothing.
//
// Failure: an invalid batch is refused alone. Any other error (a loss that is not finite, say) stops the trainer: steps
// already trained are still applied, everything waiting gets the error, and so does every later call.
//
// Thread-safety: internally synchronised. Completions run on the trainer's threads (or inside the call when there is
// nothing to wait for), never under a lock; they must be short and must not call the trainer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bounded_queue.h"
#include "batch/batch.h"
#include "batch/feature_schema.h"
#include "checkpoint/snapshot.h"
#include "dense/dense_model.h"
#include "store/local_store.h"
#include "trainer/staleness_gate.h"
#include "worker/embedding_worker.h"

namespace persia {

struct TrainerConfig {
  FeatureSchema schema;
  std::vector<TableOptions> tables;  // one for each row class of the schema
  DenseModelConfig dense;
  uint64_t staleness = 0;            // 0: sync
  bool deterministic = false;        // ordered schedule: bit-identical reruns
};

// Totals since the trainer was made; `steps` and `samples` count applied steps, including those before a restore.
struct TrainerProgress {
  uint64_t steps = 0;
  uint64_t samples = 0;
  double loss_sum = 0.0;        // of the mean losses of `loss_steps` trained steps
  uint64_t loss_steps = 0;
  uint64_t staleness = 0;       // now
  uint64_t most_staleness = 0;  // of any lookup so far
};

using Completion = std::function<void(Status)>;

class Trainer {
 public:
  static Result<std::unique_ptr<Trainer>> Create(TrainerConfig config);
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
  // (kAborted).
  void Drain(Completion done);

  // Brings the pipeline to rest after step `at`, or as soon as possible; `paused` runs when it is. From then on it
  // rests until each pause that was reached is ended by one Resume. Several may be asked for, at several steps. kUsage
  // when `at` has passed. To come to rest in deterministic mode, batches must still be pushed or a drain asked for: see
  // StalenessGate.
  void Pause(std::optional<uint64_t> at, Completion paused);
  // Ends one pause that was reached.
  void Resume();
  bool at_rest() const { return gate_.state().at_rest; }

  // Writes tables, network and pipeline state to `directory`. Only at rest (kUsage).
  Result<std::vector<SnapshotFile>> Save(const std::string& directory);
  // Checks all files of a snapshot, then replaces the trainer's state. Only before the first Push.
  Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files);

  // Outputs of the tasks for a batch, (rows, tasks) f32; labels are not needed. Any thread.
  Status Predict(const Batch& batch, std::vector<float>* outputs);

  TrainerProgress progress() const;
  ParameterStore& store() { return *store_; }
  const EmbeddingWorker& worker() const { return worker_; }

 private:
  // What travels through the stages. Buffers keep their size from step to step.
  struct StepSlot {
    uint64_t step = 0;
    uint32_t rows = 0;
    EmbeddingPlan plan;
    AlignedBuffer<float> input;               // (rows, input_width): [pooled embeddings | dense]
    AlignedBuffer<float> labels;              // (rows, tasks)
    AlignedBuffer<float> embedding_gradient;  // (rows, embedding_width)
  };
  struct Intake {
    std::shared_ptr<const Batch> batch;  // empty: a drain
    Completion done;
  };
  struct Waiting {
    uint64_t step;
    Completion done;
  };

  Trainer(TrainerConfig config, std::unique_ptr<DenseModel> model);

  void PrepareLoop();
  void LookupLoop();
  void TrainLoop();
  void ApplyLoop();
  void Accept(Intake& intake);
  void AcceptDrain(Completion done);
  Status PrepareStep(const Batch& batch, StepSlot& slot) const;
  Status LookupStep(StepSlot& slot);
  Status TrainStep(StepSlot& slot);
  Status ApplyStep(StepSlot& slot);

  Status CheckLabels(const Batch& batch) const;

  void Fail(Status status);
  Status failure() const;
  std::optional<uint64_t> NextPause() const;  // under mutex_
  void Signal();  // runs the completions whose condition now holds
  void FailWaiting();

  Result<SnapshotFile> SavePipeline(const std::string& directory) const;
  Status RestorePipeline(const std::string& directory);
  Status RestoreInFlight(SnapshotReader& reader);
  Status RestoreSeen(SnapshotReader& reader);

  const TrainerConfig config_;
  std::unique_ptr<LocalStore> store_;
  EmbeddingWorker worker_;
  std::unique_ptr<DenseModel> model_;
  std::mutex model_mutex_;  // one user of the network at a time: the train stage or a prediction
  StalenessGate gate_;

  std::vector<std::unique_ptr<StepSlot>> slots_;
  BoundedQueue<Intake> intake_;  // no bound of its own: every entry has a caller who waits for its completion
  BoundedQueue<StepSlot*> free_, to_lookup_, to_train_, to_apply_;
  uint64_t prepared_ = 0;                                      // last step handed in; prepare thread, Restore
  std::mutex predict_mutex_;
  std::unique_ptr<StepSlot> predict_slot_;  // scratch of Predict

  mutable std::mutex mutex_;  // guards what follows
  Status failure_;
  bool finished_ = false;  // after a failure: every trained step is applied, nothing moves any more
  std::vector<Waiting> drains_;
  std::vector<Waiting> pauses_;  // asked for, not yet reached
  uint32_t holds_ = 0;           // reached, not yet ended
  std::map<uint64_t, const StepSlot*> looked_up_;  // in flight: looked up, not yet in training
  std::map<uint64_t, AlignedBuffer<float>> restored_lookups_;  // by step, of a checkpoint, not yet used
  TrainerProgress totals_;

  std::mutex closing_;  // one Close at a time
  std::vector<std::thread> threads_;
};

}  // namespace persia
