// Batch: the samples of one training step, as views on memory that somebody else owns.
//
// A batch from TypeScript points into JavaScript's typed arrays, one from the data reader into the batcher's buffers;
// both are kept alive by `owner`. Nothing is copied on the way to the embedding worker.
//
// Thread-safety: immutable once made; may be read from any thread and destroyed on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "batch/feature_schema.h"

namespace persia {

// The ids of one feature for all samples of a batch (jagged).
// Sample i has ids[offsets[i] .. offsets[i + 1]); without offsets each sample has exactly one id, ids[i].
struct IdColumn {
  std::span<const uint32_t> offsets;  // (rows + 1), never falls, starts with 0 (in a part: anywhere); or empty
  std::span<const uint64_t> ids;      // (offsets[rows] - offsets[0]) or (rows)

  // Places in `ids`.
  uint32_t begin(uint32_t row) const { return offsets.empty() ? row : offsets[row] - offsets[0]; }
  uint32_t end(uint32_t row) const { return offsets.empty() ? row + 1 : offsets[row + 1] - offsets[0]; }
};

// Which batch another data loader of a cluster holds: number `batch` of a pass over the data (trainer/loader_queue.h).
struct BatchPlace {
  uint64_t pass = 0, batch = 0;
};

struct Batch {
  uint32_t rows = 0;
  uint32_t dense_count = 0;
  uint32_t label_count = 0;          // 0: no labels (prediction)
  std::vector<IdColumn> id_columns;  // one per feature, in the order of the schema
  std::span<const float> dense;      // (rows, dense_count), row-major
  std::span<const float> labels;     // (rows, label_count), row-major
  std::shared_ptr<const void> owner;
  std::optional<BatchPlace> place;   // set: the samples are there, and nothing of them is here but their number
};

// Checks every length and offset of a batch against the model, so that later stages need not.
// kBatchInvalid names the feature, the sample and the numbers. `label_count` 0 asks for no labels; the batch may
// still have some. Dense values and labels must be finite. A batch without samples is valid only where no labels are
// asked for.
Status ValidateBatch(const Batch& batch, const FeatureSchema& schema, uint32_t dense_count, uint32_t label_count);

// Rows [begin, begin + rows) of a batch, as views on its memory.
Batch PartOf(const Batch& batch, uint32_t begin, uint32_t rows);

}  // namespace persia
