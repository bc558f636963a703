// The value of a new row, from (seed, sign) alone: the same on any shard layout, in any order, on any thread.
//
//   uniform           even in [low, high)
//   inverse_sqrt_dim  uniform with ±1/sqrt(dim): rows of length about 0.58 whatever their width
//   normal            mean and stddev; `truncate` = k > 0 draws again until a value lies within k stddev of the mean
//   gamma             shape and scale: mean shape·scale, variance shape·scale²         (Marsaglia & Tsang 2000)
//   poisson           lambda: whole numbers with mean and variance lambda     (Knuth; from 10 up PTRS, Hörmann 1993)
//   zeros
//
// PERSIA calls its methods "bounded", but it truncates none: its normal is truncate = 0, which is the default here.
//
// Thread-safety: InitializeRow is a pure function.
#pragma once

#include <cstdint>

namespace persia {

enum class InitializerType { kUniform, kNormal, kZeros, kGamma, kPoisson, kInverseSqrtDim };

struct InitializerConfig {
  InitializerType type = InitializerType::kUniform;
  float low = -0.01f, high = 0.01f;   // uniform
  float mean = 0.0f, stddev = 0.01f;  // normal
  float truncate = 0.0f;              // normal: in standard deviations; 0: not truncated
  float shape = 1.0f, scale = 1.0f;   // gamma: > 0
  float lambda = 1.0f;                // poisson: >= 0
};

// Fills `row` (dim) f32. Source of the stream: base/rng.h with RandomKey(seed, sign).
void InitializeRow(const InitializerConfig& config, uint64_t seed, uint64_t sign, float* row, uint32_t dim);

}  // namespace persia
