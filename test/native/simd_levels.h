// The instruction sets that this CPU can run, for tests of the kernels of each.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "base/cpu.h"

namespace persia {

// Says how many are left out.
inline std::vector<SimdLevel> LevelsHere() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level : {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    if (level <= BestSimd()) levels.push_back(level);
  }
  if (levels.size() < 3) MESSAGE("not run: ", 3 - levels.size(), " of 3 instruction sets, which this CPU lacks");
  return levels;
}

}  // namespace persia
