// The value of a new row, from (seed, sign) alone: the same on any shard layout, in any order, on any thread.
#pragma once

#include <cstdint>

namespace persia {

enum class InitializerType { kUniform, kNormal, kZeros };

struct InitializerConfig {
  InitializerType type = InitializerType::kUniform;
  float low = -0.01f, high = 0.01f;   // uniform
  float mean = 0.0f, stddev = 0.01f;  // normal
};

// Fills `row` (dim) f32. Source of the stream: base/rng.h with RandomKey(seed, sign).
void InitializeRow(const InitializerConfig& config, uint64_t seed, uint64_t sign, float* row, uint32_t dim);

}  // namespace persia
