// What multiplies bf16 numbers on a CPU, chosen at run time.
//
// All units share layouts, partition and everything but the products themselves, whose sums they form in different
// orders: results differ by the rounding of float32, and are the same bits on one unit for any number of threads.
#pragma once

#include "base/cpu.h"

namespace persia {

enum class Bf16Unit {
  kNone,      // products are in float32
  kPortable,  // plain C++: the reference for tests, too slow for use
  kAvx512,    // AVX512-BF16: dot products of pairs in vectors
  kAmx,       // AMX-BF16: dot products of tiles
};

// The fastest that this CPU has in hardware; kNone without any.
inline Bf16Unit BestBf16Unit() {
  if (HasAmxBf16()) return Bf16Unit::kAmx;
  return HasAvx512Bf16() ? Bf16Unit::kAvx512 : Bf16Unit::kNone;
}

inline const char* Bf16UnitName(Bf16Unit unit) {
  switch (unit) {
    case Bf16Unit::kNone:
      return "none";
    case Bf16Unit::kPortable:
      return "portable";
    case Bf16Unit::kAvx512:
      return "AVX512-BF16";
    case Bf16Unit::kAmx:
      return "AMX-BF16";
  }
  return "";
}

}  // namespace persia
