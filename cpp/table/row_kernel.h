// Kernels over one row: a body is written once, as an always-inline function over plain loops, and instantiated for
// every instruction set and for the widths that rows mostly have. A loop of known length becomes straight vector code;
// the others take the same body with the width at run time.
//
// A body is a type with `static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, Args... args)`.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace persia {

template <typename... Args>
using RowKernel = void (*)(uint32_t dim, Args... args);

namespace internal {

// kDim 0: the width is known at run time only.
template <typename Body, uint32_t kDim, typename... Args>
void RunBaseline(uint32_t dim, Args... args) {
  Body::Run(kDim == 0 ? dim : kDim, args...);
}

template <typename Body, uint32_t kDim, typename... Args>
PERSIA_TARGET_AVX2 void RunAvx2(uint32_t dim, Args... args) {
  Body::Run(kDim == 0 ? dim : kDim, args...);
}

template <typename Body, uint32_t kDim, typename... Args>
PERSIA_TARGET_AVX512 void RunAvx512(uint32_t dim, Args... args) {
  Body::Run(kDim == 0 ? dim : kDim, args...);
}

template <typename Body, typename VectorBody, uint32_t kDim, typename... Args>
RowKernel<Args...> PickLevel(SimdLevel simd) {
  switch (simd) {
    case SimdLevel::kAvx512:
      return RunAvx512<VectorBody, kDim, Args...>;
    case SimdLevel::kAvx2:
      return RunAvx2<VectorBody, kDim, Args...>;
    case SimdLevel::kBaseline:
      break;
  }
  return RunBaseline<Body, kDim, Args...>;
}

}  // namespace internal

// Sets *kernel to the instantiation for rows of `dim` at the level `simd`. A VectorBody, with PERSIA_TARGET_AVX2 on its
// Run, is for what plain loops don't express; it must compute the same.
template <typename Body, typename VectorBody = Body, typename... Args>
void PickRowKernel(SimdLevel simd, uint32_t dim, RowKernel<Args...>* kernel) {
  switch (dim) {
    case 8:
      *kernel = internal::PickLevel<Body, VectorBody, 8, Args...>(simd);
      return;
    case 16:
      *kernel = internal::PickLevel<Body, VectorBody, 16, Args...>(simd);
      return;
    case 32:
      *kernel = internal::PickLevel<Body, VectorBody, 32, Args...>(simd);
      return;
    case 64:
      *kernel = internal::PickLevel<Body, VectorBody, 64, Args...>(simd);
      return;
    default:
      *kernel = internal::PickLevel<Body, VectorBody, 0, Args...>(simd);
  }
}

}  // namespace persia
