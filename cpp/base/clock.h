// Monotonic time in seconds, for rates and durations only; never part of a result.
#pragma once

#include <chrono>

namespace persia {

inline double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace persia
