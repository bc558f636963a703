// HostMemory: memory of the host of a kind of its own, such as what a GPU's copy engines reach.
//
// Thread-safety: as the implementation says.
#pragma once

#include <cstddef>

namespace persia {

class HostMemory {
 public:
  virtual ~HostMemory() = default;

  // On a cache line; null when there is none left.
  virtual void* Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;
};

}  // namespace persia
