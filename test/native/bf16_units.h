// The units of bf16 products that run here, for tests of each.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "dense/bf16_unit.h"

namespace persia {

// The portable one first; says how many are left out.
inline std::vector<Bf16Unit> Bf16UnitsHere() {
  std::vector<Bf16Unit> units = {Bf16Unit::kPortable};
  if (HasAvx512Bf16()) units.push_back(Bf16Unit::kAvx512);
  if (HasAmxBf16()) units.push_back(Bf16Unit::kAmx);
  if (units.size() < 3) MESSAGE("not run: ", 3 - units.size(), " of 3 units for bf16 products, which this CPU lacks");
  return units;
}

}  // namespace persia
