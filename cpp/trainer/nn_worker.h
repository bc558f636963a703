// NnWorker: one NN worker: a pipeline of three threads with its own dense network and staleness gate.
//
//   Put ─► lookup ─────► train ──────────────────► apply
//          gate, rows,   forward, backward,         gradients per sign; with the other workers' parts
//          pooling       dense gradients: summed     of the step: row optimizer, gate
//                        over workers, or pushed
//
// A step travels from thread to thread in a StepSlot; the number of slots bounds how far anything runs ahead. Each
// worker gets its part of every step, in order, also when the part has no rows: the others wait for it in the sums.
// What ties workers together is behind interfaces (DenseTraining, StepEmbeddings), so a worker does not know whether the
// others are in its process.
//
// Failure: the first error ends the stage where it happened and is told to the owner, who fails all workers. Steps that
// every worker has trained are still applied.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bounded_queue.h"
#include "trainer/dense_training.h"
#include "trainer/stage_meter.h"
#include "trainer/staleness_gate.h"
#include "trainer/turnstile.h"
#include "worker/step_embeddings.h"

namespace persia {

// What travels through the stages: a worker's part of a step. Buffers keep their size from step to step.
struct StepSlot {
  uint64_t step = 0;
  uint32_t first_row = 0, rows = 0;         // of the step's batch
  uint32_t global_rows = 0;                 // of the step's batch, over all workers
  AlignedBuffer<float> input;               // (rows, input_width): [pooled embeddings | dense]
  AlignedBuffer<float> labels;              // (rows, tasks)
  AlignedBuffer<float> embedding_gradient;  // (rows, embedding_width)
  bool skipped = false;                     // when trained: no row may be updated
};

// What an NN worker gets of its part, beside the ids, which an embedding worker holds.
struct StepPart {
  uint64_t step = 0;
  uint32_t first_row = 0, rows = 0, global_rows = 0;
  const float* dense = nullptr;   // (rows, dense_count)
  const float* labels = nullptr;  // (rows, tasks)
  const uint32_t* filled = nullptr;  // (rows, masked features): batch/mask.h; of a part that came without its ids
};
// Copies a part into a slot, but no masks.
void FillSlot(const StepPart& part, uint32_t columns, const DenseModelConfig& model, StepSlot& slot);
// Copies (rows, dense_count) to their places in the network's input (rows, input_width).
void FillDense(uint32_t rows, const float* dense, uint32_t columns, const DenseModelConfig& model, float* input);

// The part of worker `rank` of `workers` in a batch: runs of rows whose lengths differ by one at most.
struct PartRows {
  uint32_t begin, rows;
};
PartRows PartOfWorker(uint32_t batch_rows, uint32_t rank, uint32_t workers);

// Embeddings that were looked up and not yet trained on: part of a checkpoint.
struct InFlight {
  uint64_t step;
  uint32_t global_rows, first_row, rows;
  const float* pooled;  // (rows, embedding_width) at `stride` floats
  size_t stride;
};

class NnWorker {
 public:
  struct Config {
    uint32_t rank = 0, workers = 1;
    uint64_t staleness = 0;
    StalenessGate::Schedule schedule = StalenessGate::Schedule::kEager;
    uint64_t sync_steps = 0;
    uint32_t input_width = 0, embedding_width = 0;
    size_t trace_spans = 0;  // of each stage
  };
  // Run on the worker's threads, never under a lock.
  struct Events {
    std::function<void()> moved;                      // a lookup or an update is done
    // A part was trained: its share in the mean loss of the step, and in the step's rows.
    std::function<void(double loss, double share)> trained;
    std::function<void(uint32_t rows)> applied;
    std::function<void(Status)> failed;
    std::function<void()> ended;                      // the last trained step is applied, nothing moves any more
  };

  // `turns`: in deterministic mode with several workers, shared by them; it outlives them. Else nullptr.
  NnWorker(const Config& config, std::unique_ptr<StepEmbeddings> embeddings, std::unique_ptr<DenseTraining> dense,
           Turnstile* turns, Events events);
  ~NnWorker();  // after Stop and Join

  void Start();
  // Ends all waiting: what is not yet trained is dropped.
  void Stop(const Status& reason);
  void Join();

  // How many steps may be handed in that are not yet applied.
  size_t slots() const { return SlotsOf(config_.staleness); }
  static size_t SlotsOf(uint64_t staleness);
  // A free slot, waiting for one; nothing when the worker was stopped.
  std::optional<StepSlot*> Take() { return free_.Pop(); }
  void PutBack(StepSlot* slot) { free_.Push(slot); }
  // Hands a slot in as step slot->step.
  void Put(StepSlot* slot) { to_lookup_.Push(slot); }

  StalenessGate& gate() { return gate_; }
  const StalenessGate& gate() const { return gate_; }
  DenseTraining& dense() { return *dense_; }

  // What is in flight, in the order of steps. At rest it stays until the pause ends.
  std::vector<InFlight> in_flight() const;
  // Before the first Put: steps up to this one are done; the dense optimizer is so many steps ahead of the trainer's.
  void StartAfter(uint64_t step, int64_t dense_ahead);
  // Embeddings (rows, embedding_width) that the part of a step is to be trained on, instead of looking them up.
  void RestoreLookup(uint64_t step, uint32_t global_rows, AlignedBuffer<float> pooled);

  std::vector<const StageMeter*> stages() const { return {&lookup_meter_, &train_meter_, &apply_meter_}; }

 private:
  struct Restored {
    uint32_t global_rows;
    AlignedBuffer<float> pooled;
  };

  void LookupLoop();
  void TrainLoop();
  void ApplyLoop();
  Status LookupStep(StepSlot& slot);
  Status UseRestored(StepSlot& slot, const Restored& restored) const;
  bool StartTraining(StepSlot& slot);
  bool FinishTraining(StepSlot& slot, bool last);
  bool TellFailure(const StepSlot& slot, const Status& status);
  Status ApplyStep(StepSlot& slot);
  bool EnterTurn(uint64_t step);

  const Config config_;
  const std::unique_ptr<StepEmbeddings> embeddings_;
  const std::unique_ptr<DenseTraining> dense_;
  Turnstile* const turns_;
  const Events events_;
  StalenessGate gate_;
  int64_t dense_ahead_ = 0;

  std::vector<std::unique_ptr<StepSlot>> slots_;
  BoundedQueue<StepSlot*> free_, to_lookup_, to_train_, to_apply_;

  mutable std::mutex mutex_;                   // guards what follows
  std::map<uint64_t, const StepSlot*> looked_up_;  // looked up, not yet in training
  std::map<uint64_t, Restored> restored_;          // of a checkpoint, not yet used

  StageMeter lookup_meter_, train_meter_, apply_meter_;
  std::vector<std::thread> threads_;
};

}  // namespace persia
