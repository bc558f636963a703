// Counts the test program's calls of operator new, for tests that a steady state allocates nothing.
#pragma once

#include <cstdint>

#include "sanitizers.h"

namespace persia {

// Sanitizers bring an operator new of their own: nothing is counted there and such tests are skipped.
constexpr bool kCountsAllocations = !kSanitized;

// Calls so far, of all threads.
uint64_t AllocationCount();

}  // namespace persia
