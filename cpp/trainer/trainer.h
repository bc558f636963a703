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
// Thread-safety: internally synchronised, as a ModelTrainer.
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
#include "store/step_store.h"
#include "trainer/dense_training.h"
#include "trainer/model_trainer.h"
#include "trainer/nn_worker.h"
#include "trainer/predictor.h"
#include "trainer/snapshot_files.h"
#include "trainer/stage_meter.h"
#include "trainer/trained_totals.h"
#include "trainer/turnstile.h"
#include "worker/embedding_worker.h"
#include "worker/held_batches.h"

namespace persia {

class Trainer final : public ModelTrainer {
 public:
  // The store is a LocalStore of config.tables unless another one is given.
  static Result<std::unique_ptr<Trainer>> Create(TrainerConfig config, std::unique_ptr<ParameterStore> store = nullptr);
  ~Trainer() override;  // closes
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  const TrainerConfig& config() const override { return config_; }
  void Close() override;
  void Push(std::shared_ptr<const Batch> batch, Completion accepted) override;
  void Drain(Completion done, bool more_comes = false) override;
  void Pause(std::optional<uint64_t> at, Completion paused) override;
  void Resume() override;
  bool at_rest() const override;
  Result<std::vector<SnapshotFile>> Save(const std::string& directory) override;
  Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files) override;
  Status Predict(const Batch& batch, std::vector<float>* outputs) override;
  TrainerProgress progress() const override;
  TrainerCounters counters() const override;
  std::vector<StageReport> StageReports() const override;
  Result<std::string> Trace() const override;
  ParameterStore& store() override { return *store_; }

  // The dense network of a worker, in async the one of all. Only while nothing moves.
  DenseModel& dense_model(uint32_t rank) { return workers_[rank]->dense().model(); }
  // The stages of all workers, and `prepare` as one of worker 0.
  std::vector<const StageMeter*> stages() const;

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
  Status PrepareParts(const Batch& batch, std::span<StepSlot* const> slots);
  void FillMasks(const Batch& batch, float* input) const;

  void Fail(Status status);
  Status failure() const;
  std::optional<uint64_t> NextPause() const;  // under mutex_
  uint64_t applied() const;                   // by all workers
  std::optional<uint64_t> RestingAt() const;  // the last step, while no worker moves
  void Signal();                              // runs the completions whose condition now holds
  void WorkerEnded();

  std::vector<InFlight> InFlightLookups() const;
  Result<PipelineState> StateOfPipeline() const;
  Status RestorePipeline(const RestoredPipeline& state);
  Status StartAfter(uint64_t step, uint64_t dense_updates);

  const TrainerConfig config_;
  std::unique_ptr<ParameterStore> store_;
  StepStore step_store_;
  EmbeddingWorker worker_;
  HeldBatches batches_;
  Turnstile turns_;
  std::shared_ptr<DenseStore> dense_store_;  // async
  std::vector<std::shared_ptr<LossScaler>> scalers_;  // of the workers, all alike; async: the one of all
  int64_t dense_ahead_ = 0;                  // updates of the dense optimizer less steps when they began, not in async
  uint64_t skipped_before_ = 0;              // steps, before a restore
  TrainedTotals totals_;
  std::vector<std::unique_ptr<NnWorker>> workers_;
  std::vector<StalenessGate*> gates_;  // of the workers

  BoundedQueue<Intake> intake_;  // no bound of its own: every entry has a caller who waits for its completion
  uint64_t prepared_ = 0;        // last step handed in; prepare thread, Restore
  StageMeter prepare_meter_;
  std::mutex predict_mutex_;             // guards what follows
  EmbeddingPlan predict_plan_;          // scratch of Predict, as what follows
  AlignedBuffer<float> predict_input_;
  std::optional<Predictor> predictor_;  // of several workers on the CPU

  mutable std::mutex mutex_;  // guards what follows
  Status failure_;
  uint32_t ended_ = 0;  // workers; when all have, every trained step is applied and nothing moves any more
  std::vector<Waiting> drains_;
  std::vector<Waiting> pauses_;  // asked for, not yet reached
  uint32_t holds_ = 0;           // reached, not yet ended

  std::mutex closing_;  // one Close at a time
  std::thread prepare_thread_;
};

}  // namespace persia
