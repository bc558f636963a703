// StepStore: the rows of training steps, between the embedding worker and the store that holds them. It is where the
// parts of a step come together, in the process of a single trainer as in each parameter server of a cluster.
//
// With several NN workers that train on parts of one global batch (sync, hybrid), each sends the gradients of its part.
// They are kept until all parts of the step are there, summed per sign in the order of ranks, clipped and applied in
// one request: a row optimizer that isn't linear (Adagrad, Adam) then does what it would do for the whole batch in one
// worker, and the result does not depend on who comes first. Everybody hears when the sum is applied, so a worker's
// next lookup sees the parts of the others too.
//
// With one part (a single worker, or async, where workers are on their own) gradients pass straight through.
//
//   rank 0 ── Apply { 0, step t } ──┐
//   rank 1 ── Apply { 1, step t } ──┼─ the last one sums and applies { worker 0, sequence t } ─► everybody hears
//   rank 2 ── Apply { 2, step t } ──┘
//
// It also measures the effective staleness of rows (row_staleness.h).
//
// Thread-safety: internally synchronised; one update at a time a rank. Completions run on the thread that brings the
// last part, never under a lock.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "batch/dedup.h"
#include "store/parameter_store.h"
#include "store/row_staleness.h"

namespace persia {

class StepStore final : public EmbeddingRows {
 public:
  struct Options {
    uint32_t ranks = 1;          // NN workers
    bool merges = false;         // their parts; else each is on its own
    float clip_norm = 0.0f;      // of rows of merged gradients; 0: any. Parts that pass through are not clipped here
    uint32_t row_staleness_one_in = RowStaleness::kOneIn;
  };
  using Done = std::function<void(const Status&)>;

  // `dims` by row class. The store outlives this.
  StepStore(std::vector<uint32_t> dims, ParameterStore& store, const Options& options);

  // `id` is the NN worker's rank and the step, for reads rank and step 0. Workers that share one batch draw alike
  // whether a new id is admitted.
  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override;

  // Applies a rank's gradients of a step, and waits until those of all ranks are there where parts are merged.
  // kAborted: a rank left before it brought its part; nothing of the step was applied.
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override;

  // The same without waiting: the blocks and what they point to stay until `done` was called. A step that was applied
  // already is acknowledged again.
  void Bring(RequestId id, std::span<const GradientBlock> blocks, Done done);

  // A rank brings nothing more: whoever waits for it gets an error.
  void Leave(uint32_t rank);

  uint32_t row_class_count() const override { return static_cast<uint32_t>(dims_.size()); }
  // Steps up to this one are applied (a restored checkpoint). While nobody brings anything.
  void StartAfter(uint64_t step);
  RowStaleness::Totals row_staleness() const { return staleness_.totals(); }

 private:
  struct Part {
    uint64_t step = 0;  // 0: not there
    std::span<const GradientBlock> blocks;
    Done done;
  };
  // Gradients of the distinct signs of a row class, over all parts.
  struct Merged {
    Deduplicator dedup;
    AlignedBuffer<uint64_t> signs;
    AlignedBuffer<float> gradients;  // (distinct, dim)
  };
  // Sampled rows of a lookup that was not yet updated, by row class.
  struct Looked {
    uint64_t step = 0;
    std::vector<std::vector<RowStaleness::Sample>> samples;
  };
  // Of a rank. Far above what a staleness bound lets be on the way: a rank that never updates what it looked up takes
  // no more memory.
  static constexpr size_t kMostLooked = 4096;
  struct Rank {
    Part part;                    // guarded by mutex_
    std::vector<Looked> looked;   // guarded by samples_mutex_; entries are used again
  };

  void Sample(RequestId id, std::span<const LookupBlock> blocks);
  void Measure(RequestId id, std::span<const GradientBlock> blocks);
  Status CheckPart(RequestId id, std::span<const GradientBlock> blocks) const;
  // What follows: under mutex_.
  Status LeftStatus(uint64_t step) const;
  std::vector<Done> TakeParts();
  Status ApplyMerged(uint64_t step);
  void Merge(uint32_t row_class);
  Status Send(RequestId id, std::span<const GradientBlock> blocks);

  const std::vector<uint32_t> dims_;
  ParameterStore& store_;
  const Options options_;
  RowStaleness staleness_;

  std::mutex samples_mutex_;
  std::mutex mutex_;  // guards what follows
  std::vector<Rank> ranks_;
  uint32_t brought_ = 0;         // parts that are there
  uint64_t applied_ = 0;         // last merged step
  std::optional<uint32_t> left_;  // the first rank to leave
  std::vector<Merged> merged_;   // by row class
  std::vector<GradientBlock> blocks_;
};

}  // namespace persia
