// ModelTrainer: what a program holds to train one model: in this process (trainer.h) or on the processes of a cluster
// (cluster_trainer.h), with the same calls and the same meaning.
//
// Thread-safety: internally synchronised. Completions run on the trainer's threads (or inside the call when there is
// nothing to wait for), never under a lock; they must be short and must not call the trainer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "batch/batch.h"
#include "batch/feature_schema.h"
#include "checkpoint/snapshot.h"
#include "dense/dense_device.h"
#include "dense/dense_model.h"
#include "dense/loss_scaler.h"
#include "store/parameter_store.h"
#include "store/row_staleness.h"
#include "store/step_store.h"
#include "trainer/dense_training.h"
#include "trainer/stage_meter.h"
#include "trainer/staleness_gate.h"

namespace persia {

enum class TrainerMode { kSync, kHybrid, kAsync };

struct TrainerConfig {
  FeatureSchema schema;
  std::vector<TableOptions> tables;  // one for each row class of the schema
  DenseModelConfig dense;            // `threads` are shared out over the NN workers, each has at least one
  DenseDevice device = DenseDevice::kCpu;  // of the dense networks
  TrainerMode mode = TrainerMode::kHybrid;
  uint64_t staleness = 0;            // bound; sync: 0
  // Lookups only as far ahead as keeps the stages busy, else as far as the bound allows (deterministic: exactly so far).
  bool just_in_time = false;
  uint64_t sync_steps = 0;           // the first ones, whose lookups see all earlier gradients in every mode
  // Ordered schedule, and sums in an order of their own: bit-identical reruns, with any number of threads of the dense
  // network. Not in async with several workers.
  bool deterministic = false;
  uint32_t nn_workers = 1;
  LossScaling loss_scaling;
  uint32_t accumulate = 1;           // pieces in which a worker trains its part, for the memory of the activations
  uint32_t row_staleness_one_in = RowStaleness::kOneIn;  // rows sampled for the effective staleness
  size_t trace_spans = 0;            // kept for each stage of each worker; 0: no trace

  // Dense columns of a batch; the network's dense inputs are these, then the schema's masks.
  uint32_t dense_columns() const { return dense.dense_count - schema.mask_width; }
  // Where the masks are in a row of the network's input.
  uint32_t masks_offset() const { return dense.embedding_width + dense_columns(); }
};

// Whether the parts that NN workers have of a step are added up before they are applied: where they share one batch.
bool MergesParts(const TrainerConfig& config);
StepStore::Options StepOptions(const TrainerConfig& config);
StalenessGate::Schedule ScheduleOf(const TrainerConfig& config);
// What no NN worker can train with. kConfigUnsupported: async on a GPU. Errors of ValidateDenseModel.
Status CheckDenseConfig(const TrainerConfig& config);

// The dense model of an NN worker.
DenseModelConfig WorkerModel(const TrainerConfig& config, uint32_t threads);
// Of the same shape, for one that only computes gradients: without optimizer state.
DenseModelConfig ReplicaModel(DenseModelConfig model);

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

// Of one row class: of the table, and by feature group with signs of no group last.
struct ClassCounters {
  TableCounters table;
  std::vector<TableCounters> groups;
};

struct TrainerCounters {
  std::vector<ClassCounters> classes;
  std::vector<uint64_t> distinct;  // about how many ids of each feature training has seen
};

// A stage of the pipeline, of one of the NN workers; `prepare` counts as one of worker 0.
struct StageReport {
  std::string name;
  uint32_t worker = 0;
  StageTotals totals;
};

class ModelTrainer {
 public:
  virtual ~ModelTrainer() = default;

  virtual const TrainerConfig& config() const = 0;

  // Stops and joins the threads; what is waiting, and every later call, gets kClosed. May be called again.
  virtual void Close() = 0;

  // Hands in the batch of the next step. `accepted` runs when the batch was prepared (its memory is free again) or
  // refused (kBatchInvalid): waiting for it is the back-pressure.
  virtual void Push(std::shared_ptr<const Batch> batch, Completion accepted) = 0;

  // `done` runs when every batch pushed before is applied. Pauses at steps that were not pushed are withdrawn
  // (kAborted), unless more batches are to come.
  virtual void Drain(Completion done, bool more_comes = false) = 0;

  // Brings the pipeline to rest after step `at`, or as soon as possible; `paused` runs when it is. From then on it
  // rests until each pause that was reached is ended by one Resume. Several may be asked for, at several steps. kUsage
  // when `at` has passed. To come to rest in deterministic mode, batches must still be pushed or a drain asked for: see
  // StalenessGate.
  virtual void Pause(std::optional<uint64_t> at, Completion paused) = 0;
  // Ends one pause that was reached.
  virtual void Resume() = 0;
  virtual bool at_rest() const = 0;

  // Writes tables, network and pipeline state to `directory`. Only at rest (kUsage).
  virtual Result<std::vector<SnapshotFile>> Save(const std::string& directory) = 0;
  // Checks all files of a snapshot, then replaces the trainer's state. Only before the first Push.
  virtual Status Restore(const std::string& directory, const std::vector<SnapshotFile>& files) = 0;

  // Outputs of the tasks for a batch, (rows, tasks) f32; labels are not needed. Any thread.
  virtual Status Predict(const Batch& batch, std::vector<float>* outputs) = 0;

  virtual TrainerProgress progress() const = 0;
  virtual TrainerCounters counters() const = 0;
  virtual std::vector<StageReport> StageReports() const = 0;
  // The last spans of all stages in Chrome's JSON format (stage_meter.h).
  virtual Result<std::string> Trace() const = 0;

  // The rows, for `table.get` and `table.set` (worker/rows.h).
  virtual ParameterStore& store() = 0;
};

}  // namespace persia
