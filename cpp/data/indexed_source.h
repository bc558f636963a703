// IndexedSource: data whose batches can be made in any order, each by itself, on any thread.
//
// So a pass is resumed at any batch at once, data loaders share batches out by their numbers, and as many threads as
// there are make batches ahead of training.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "batch/batch.h"

namespace persia {

class IndexedSource {
 public:
  virtual ~IndexedSource() = default;

  virtual uint64_t rows() const = 0;     // of all batches
  virtual uint64_t batches() const = 0;  // all of one size, but for the last one

  // Batch number `batch`, < batches(). May be called from several threads at once.
  virtual Result<std::shared_ptr<const Batch>> Read(uint64_t batch) const = 0;
};

}  // namespace persia
