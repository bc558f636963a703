// Run-time choice of instruction set without a second build: a kernel body is written once as an always-inline function
// and instantiated for the baseline, for AVX2 (with FMA and F16C) and for AVX-512; the caller picks with HasAvx2() or
// BestSimd(). Results of different levels may differ by rounding where the compiler fuses products with sums.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

#define PERSIA_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#if defined(__clang__)
#define PERSIA_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")))
#else
// Left alone, g++ keeps to 256-bit vectors on some CPUs.
#define PERSIA_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,prefer-vector-width=512")))
#endif
#define PERSIA_TARGET_AVX512BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define PERSIA_TARGET_AMX __attribute__((target("amx-tile,amx-bf16")))
#else
#define PERSIA_TARGET_AVX2
#define PERSIA_TARGET_AVX512
#endif
#define PERSIA_ALWAYS_INLINE inline __attribute__((always_inline))
// Before a loop: what one round writes, no other round reads. Clang finds that out while the program runs.
#if defined(__clang__)
#define PERSIA_INDEPENDENT_ROUNDS
#else
#define PERSIA_INDEPENDENT_ROUNDS _Pragma("GCC ivdep")
#endif

namespace persia {

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

#if defined(__x86_64__)
// By CPUID: not every compiler's __builtin_cpu_supports knows F16C. It needs no more of the operating system than AVX.
inline bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// The best level that this CPU and its operating system run.
inline SimdLevel BestSimd() {
#if defined(__x86_64__)
  static const SimdLevel best = [] {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasF16c()) return SimdLevel::kBaseline;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return avx512 ? SimdLevel::kAvx512 : SimdLevel::kAvx2;
  }();
  return best;
#else
  return SimdLevel::kBaseline;
#endif
}

inline bool HasAvx2() { return BestSimd() >= SimdLevel::kAvx2; }

// Dot products of bf16 pairs in 512-bit vectors (AVX512-BF16; AVX-512 as of kAvx512 with it).
bool HasAvx512Bf16();

// Dot products of bf16 tiles (AMX-BF16; AVX512-BF16 with it). The first call asks the operating system for the tile
// registers, for all threads of the process.
bool HasAmxBf16();

template <typename Body, typename... Args>
PERSIA_TARGET_AVX2 void RunAvx2(Args... args) {
  Body::Run(args...);
}

// Calls the always-inline Body::Run(args…), built for AVX2 where the CPU has it.
template <typename Body, typename... Args>
void RunBestSimd(Args... args) {
  if (HasAvx2()) return RunAvx2<Body>(args...);
  Body::Run(args...);
}

}  // namespace persia
