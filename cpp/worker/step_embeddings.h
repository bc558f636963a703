// StepEmbeddings: the embedding half of an NN worker's step, as the NN worker sees it: pooled embeddings of its part of
// a batch, whose ids an embedding worker holds, and the way of their gradients back.
//
// In this process it is a view on HeldBatches (held_batches.h), in a cluster a client of embedding workers
// (remote_embeddings.h).
//
// Thread-safety: one Lookup and one Update at a time, beside each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.h"

namespace persia {

// Names the ids of a part of a step between the data loader that brings them and the NN worker that trains on them.
struct PartRef {
  uint64_t step = 0;
  uint32_t rank = 0;  // of the NN worker

  bool operator==(const PartRef&) const = default;
};

class StepEmbeddings {
 public:
  virtual ~StepEmbeddings() = default;

  // Looks the rows of the worker's part of `step` up, of so many samples, and writes the pooled embeddings of sample i
  // to pooled + i·stride.
  virtual Status Lookup(uint64_t step, uint32_t rows, float* pooled, size_t stride) = 0;

  // Applies the gradients of the part's pooled embeddings (rows at `stride` floats), and forgets the part. Returns when
  // they are applied, with those of the other workers where parts of a step are added up.
  virtual Status Update(uint64_t step, uint32_t rows, const float* gradients, size_t stride) = 0;

  // The same for a part that updates no row.
  virtual Status Skip(uint64_t step, uint32_t rows) = 0;

  // This worker brings nothing more: whoever waits for its part of a step gets an error.
  virtual void Leave() = 0;
};

}  // namespace persia
