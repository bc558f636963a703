// Numbers the distinct signs of a batch in order of first occurrence.
//
// An open-addressing set sized for the batch, cleared by a generation stamp rather than by writing, so that a batch
// costs time in its own ids only.
// Thread-safety: thread-confined.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"

namespace persia {

class Deduplicator {
 public:
  // The stamps are cleared after `most_generations` batches; tests make that happen early.
  explicit Deduplicator(uint32_t most_generations = UINT32_MAX) : most_generations_(most_generations) {}

  // Starts a batch with at most `most_signs` occurrences. Allocates only when no batch before was as large.
  void Reset(size_t most_signs);

  // The number of `sign` among the distinct signs so far. A new sign gets the next number and is written to
  // signs_out[number].
  uint32_t Insert(uint64_t sign, uint64_t* signs_out);

  uint32_t distinct() const { return distinct_; }

 private:
  struct Slot {
    uint64_t sign;
    uint32_t number;
    uint32_t generation;  // the slot is in use when this is the current generation; 0 is never current
  };

  AlignedBuffer<Slot> slots_;
  size_t mask_ = 0;  // slots in use this batch - 1: at least twice the occurrences, a power of two
  uint32_t most_generations_;
  uint32_t generation_ = 0;
  uint32_t distinct_ = 0;
};

}  // namespace persia
