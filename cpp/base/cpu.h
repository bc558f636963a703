// Run-time choice of instruction set without a second build: a kernel body is written once as an always-inline function
// and instantiated for the baseline and for AVX2 + FMA; the caller picks with HasAvx2().
#pragma once

#if defined(__x86_64__)
#define PERSIA_TARGET_AVX2 __attribute__((target("avx2,fma")))
#else
#define PERSIA_TARGET_AVX2
#endif
#define PERSIA_ALWAYS_INLINE inline __attribute__((always_inline))

namespace persia {

inline bool HasAvx2() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
#else
  return false;
#endif
}

}  // namespace persia
