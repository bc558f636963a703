// What checks the tests while they run, which takes 5 to 100 times as long.
#pragma once

#include <doctest/doctest.h>

namespace persia {

#if defined(__SANITIZE_THREAD__)
constexpr bool kChecksRaces = true;
#else
constexpr bool kChecksRaces = false;
#endif

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Of a long case in which one thread works, so that there is no race to be found:
//   TEST_CASE("…" * OneThread())
inline doctest::skip OneThread() { return doctest::skip(kChecksRaces); }

}  // namespace persia
