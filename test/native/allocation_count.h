// Counts the test program's calls of operator new, for tests that a steady state allocates nothing.
#pragma once

#include <cstdint>

namespace persia {

// Sanitizers bring an operator new of their own: nothing is counted there and such tests are skipped.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCountsAllocations = false;
#else
constexpr bool kCountsAllocations = true;
#endif

// Calls so far, of all threads.
uint64_t AllocationCount();

}  // namespace persia
