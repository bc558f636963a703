// The embedding worker: turns the ids of a batch into pooled embeddings and the gradients of those back into one
// gradient a row. Forward: ids -> signs -> distinct signs per row class -> lookup -> pooling. Backward: the same map
// the other way.
//
// Ids of a sample that repeat count as often as they occur. Mean divides by the number of ids, sqrt by its root. Of max,
// a float's gradient goes to the id that it was taken from. An unpooled feature has a vector for each place of its
// sequences; places that a sample does not fill are zeros, and what comes back for them is dropped. With a hash stack the
// vector of an id is the sum of several rows.
//
// Rows that only frozen features bring are looked up like others and get no gradient. A row's gradient from one batch
// is scaled down where it is longer than the schema's clip_norm.
//
// Beside that it estimates how many distinct ids each feature has brought to training, by a HyperLogLog of their signs.
//
// Thread-safety: an EmbeddingWorker may be used from several threads at once: it is immutable but for the HyperLogLogs,
// which are internally synchronised. An EmbeddingPlan belongs to one batch and is handed from stage to stage. Plans are
// reused: nothing allocates in steady state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/hyperloglog.h"
#include "batch/batch.h"
#include "batch/dedup.h"
#include "batch/feature_schema.h"
#include "store/parameter_store.h"

namespace persia {

// What the embedding worker remembers of a batch between lookup and update.
struct EmbeddingPlan {
  struct Class {
    AlignedBuffer<uint64_t> signs;      // (distinct) in order of first occurrence; room for one per id
    AlignedBuffer<float> rows;          // (distinct, dim): embeddings, later gradients
    uint32_t distinct = 0;
    uint32_t trained = 0;               // those of features that are not frozen come first
  };
  struct Feature {
    AlignedBuffer<uint32_t> offsets;    // (rows · vectors + 1)
    AlignedBuffer<uint32_t> positions;  // (offsets[rows · vectors]): index into the class's distinct signs
    AlignedBuffer<uint32_t> chosen;     // pooling max: (rows, dim), from where in `positions` each float was taken
    uint32_t new_begin = 0, new_end = 0;  // those of the class's signs that it was the first feature to bring
  };
  uint32_t rows = 0;                    // samples
  std::vector<Class> classes;           // by row class
  std::vector<Feature> features;        // by feature
  std::vector<Deduplicator> dedup;      // by row class, scratch
  std::vector<LookupBlock> lookups;     // what the store is called with, scratch
  std::vector<GradientBlock> updates;   // what Aggregate made: views on `classes`
};

class EmbeddingWorker {
 public:
  // Both outlive the worker.
  EmbeddingWorker(const FeatureSchema& schema, EmbeddingRows& rows);

  // Fills the plan from the batch's ids; the batch is not needed afterwards. The batch was validated.
  void Prepare(const Batch& batch, EmbeddingPlan& plan) const;

  // Looks the plan's rows up and writes the pooled embeddings of sample i to pooled + i·stride, (embedding_width) f32.
  // A sample without ids in a feature gets zeros there. The ids of a training lookup count as seen.
  Status Lookup(RequestId id, LookupMode mode, EmbeddingPlan& plan, float* pooled, size_t stride) const;

  // Sums the gradients of the pooled embeddings ((rows, embedding_width) at `stride` floats) per distinct sign,
  // feature by feature in sample order: the plan's `updates`. Overwrites the plan's rows.
  void Aggregate(EmbeddingPlan& plan, const float* gradients, size_t stride) const;

  // Makes updates of no row, for a step that is skipped. Its parts meet in the store all the same.
  void Skip(EmbeddingPlan& plan) const;

  // Clips the aggregated gradients: where they are those of a whole step.
  void Clip(EmbeddingPlan& plan) const;

  // Aggregates, clips and applies once.
  Status Apply(RequestId id, EmbeddingPlan& plan, const float* gradients, size_t stride) const;

  // About how many distinct ids of a feature training lookups have seen, those before a restore included; the standard
  // error is 1.6 %.
  uint64_t distinct_ids(size_t feature) const;
  // What that is estimated from, (HyperLogLog::kRegisters) a feature: part of a checkpoint. False: not such registers.
  std::vector<uint8_t> SaveSeen(size_t feature) const { return seen_[feature].Save(); }
  bool RestoreSeen(size_t feature, std::span<const uint8_t> registers) { return seen_[feature].Restore(registers); }

 private:
  void CountIds(const EmbeddingPlan& plan) const;

  const FeatureSchema& schema_;
  EmbeddingRows& rows_;
  const std::vector<size_t> order_;        // features as their signs are numbered
  const std::vector<bool> shares_signs_;   // by feature: whether one numbered before has the same group and row class
  mutable std::vector<HyperLogLog> seen_;  // by feature: the signs of its training lookups
};

}  // namespace persia
