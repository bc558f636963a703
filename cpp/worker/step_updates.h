// StepUpdates: brings the embedding gradients of a step to the store, once for each row.
//
// With several NN workers that train on parts of one global batch (sync, hybrid), each sends the gradients of its part.
// They are kept until all parts of the step are there, summed per sign in the order of ranks, and applied in one
// request: a row optimizer that isn't linear (Adagrad, Adam) then does what it would do for the whole batch in one
// worker, and the result does not depend on who comes first. Everybody returns when the sum is applied, so a worker's
// next lookup sees the parts of the others too.
//
// With one part (a single worker, or async, where workers are on their own) gradients pass straight through.
//
//   rank 0 ── Apply(step t) ──┐
//   rank 1 ── Apply(step t) ──┼─ the last one sums and applies { worker 0, sequence t } ─► everybody returns
//   rank 2 ── Apply(step t) ──┘
//
// Thread-safety: internally synchronised; one call at a time a rank.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "batch/dedup.h"
#include "batch/feature_schema.h"
#include "store/parameter_store.h"
#include "worker/embedding_worker.h"
#include "worker/row_staleness.h"

namespace persia {

class StepUpdates {
 public:
  // All outlive this. Gradients of rows are clipped to the schema's clip_norm once all parts are added up.
  StepUpdates(const FeatureSchema& schema, ParameterStore& store, RowStaleness& staleness, uint32_t parts);

  // Applies the plan's aggregated gradients; `id` is the worker's rank and the step. With several parts it waits for
  // those of the other ranks. The plan's gradients may be clipped. kAborted: a rank left before it brought its part;
  // nothing of the step was applied.
  Status Apply(RequestId id, EmbeddingPlan& plan);

  // A rank brings nothing more: whoever waits for it gets an error.
  void Leave(uint32_t rank);

 private:
  // Gradients of the distinct signs of a row class, over all parts.
  struct Merged {
    Deduplicator dedup;
    AlignedBuffer<uint64_t> signs;
    AlignedBuffer<float> gradients;  // (distinct, dim)
  };

  Status ApplyMerged(uint64_t step);
  void Merge(uint32_t row_class);
  Status Send(RequestId id, std::span<const GradientBlock> blocks);

  const FeatureSchema& schema_;
  ParameterStore& store_;
  RowStaleness& staleness_;
  const uint32_t parts_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<EmbeddingPlan*> brought_;  // by rank; empty: not there yet
  uint32_t count_ = 0;                   // of those there
  uint64_t rounds_ = 0;                  // steps that were applied
  std::optional<uint32_t> left_;         // the first rank to leave
  Status result_;                        // of the last round: stays until everybody has come again
  std::vector<Merged> merged_;           // by row class
  std::vector<GradientBlock> blocks_;
};

}  // namespace persia
