// What multiplies matrices on a CPU, chosen at run time: OpenBLAS, or own kernels on packed matrices.
//
// Own kernels of one precision share layouts, partition and everything but the products themselves, whose sums they
// form in different orders: results differ by the rounding of float32, and are the same bits on one unit for any number
// of threads.
#pragma once

#include "base/cpu.h"

namespace persia {

enum class ProductUnit {
  kLibrary,       // float32 by OpenBLAS (dense/product.h)
  kFp32Portable,  // plain C++: the reference for tests, too slow for use
  kFp32Avx512,    // AVX-512
  kBf16Portable,  // like kFp32Portable
  kBf16Avx512,    // AVX512-BF16: dot products of pairs in vectors
  kBf16Amx,       // AMX-BF16: dot products of tiles
};

inline bool IsBf16(ProductUnit unit) { return unit >= ProductUnit::kBf16Portable; }

// The fastest that this CPU has for float32. With vectors of 256 bits own kernels came to OpenBLAS's rate, not beyond.
inline ProductUnit BestFp32Unit() {
  return BestSimd() == SimdLevel::kAvx512 ? ProductUnit::kFp32Avx512 : ProductUnit::kLibrary;
}

// The fastest for bf16 that this CPU has in hardware; kLibrary without any.
inline ProductUnit BestBf16Unit() {
  if (HasAmxBf16()) return ProductUnit::kBf16Amx;
  return HasAvx512Bf16() ? ProductUnit::kBf16Avx512 : ProductUnit::kLibrary;
}

inline const char* ProductUnitName(ProductUnit unit) {
  switch (unit) {
    case ProductUnit::kLibrary:
      return "OpenBLAS";
    case ProductUnit::kFp32Portable:
      return "portable fp32";
    case ProductUnit::kFp32Avx512:
      return "AVX-512";
    case ProductUnit::kBf16Portable:
      return "portable bf16";
    case ProductUnit::kBf16Avx512:
      return "AVX512-BF16";
    case ProductUnit::kBf16Amx:
      return "AMX-BF16";
  }
  return "";
}

}  // namespace persia
