// The units of own products that run here, for tests of each.
#pragma once

#include <doctest/doctest.h>

#include <type_traits>
#include <vector>

#include "dense/packed.h"
#include "dense/product_unit.h"

namespace persia {

// Those for packed values of type T, float or Bf16, the portable one first; says how many are left out.
template <typename T>
std::vector<ProductUnit> UnitsHere() {
  std::vector<ProductUnit> units;
  size_t all = 2;
  if constexpr (std::is_same_v<T, float>) {
    units.push_back(ProductUnit::kFp32Portable);
    if (BestFp32Unit() != ProductUnit::kLibrary) units.push_back(ProductUnit::kFp32Avx512);
  } else {
    all = 3;
    units.push_back(ProductUnit::kBf16Portable);
    if (HasAvx512Bf16()) units.push_back(ProductUnit::kBf16Avx512);
    if (HasAmxBf16()) units.push_back(ProductUnit::kBf16Amx);
  }
  const std::string precision = IsBf16(units[0]) ? "bf16" : "fp32";
  if (units.size() < all) {
    MESSAGE("not run: ", all - units.size(), " of ", all, " units for ", precision, " products, which this CPU lacks");
  }
  return units;
}

// Of all precisions.
inline std::vector<ProductUnit> AllUnitsHere() {
  std::vector<ProductUnit> units = UnitsHere<float>();
  for (const ProductUnit unit : UnitsHere<Bf16>()) units.push_back(unit);
  return units;
}

}  // namespace persia
