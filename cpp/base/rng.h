// Counter-based random numbers: the n-th number of a stream is a pure function of (key, n), so a value never depends on
// who draws it, when, or on which shard. This is SplitMix64 with the key as its start (Steele, Lea, Flood 2014).
//
// Thread-safety: a Rng is thread-confined; RandomKey is a pure function.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/hash.h"

namespace persia {

// Combines two keys into one with no structure left: (seed, sign), (seed, layer), …
constexpr uint64_t RandomKey(uint64_t a, uint64_t b) { return Mix64(Mix64(a + 0x9e3779b97f4a7c15ULL) ^ b); }

class Rng {
 public:
  explicit constexpr Rng(uint64_t key) : state_(key) {}

  // The number `index` (0, 1, …) of the stream of `key`.
  static constexpr uint64_t At(uint64_t key, uint64_t index) { return Mix64(Skip(key, index + 1)); }

  // The key of the stream without its first `count` numbers.
  static constexpr uint64_t Skip(uint64_t key, uint64_t count) { return key + count * kIncrement; }

  constexpr uint64_t Next() {
    state_ += kIncrement;
    return Mix64(state_);
  }

  // Uniform in [0, 1) with 53 bits. As a signed number it converts in one instruction.
  constexpr double Uniform() { return static_cast<double>(static_cast<int64_t>(Next() >> 11)) * 0x1.0p-53; }

  // Uniform in [low, high).
  constexpr double Uniform(double low, double high) { return low + (high - low) * Uniform(); }

  // Standard normal by Box and Muller (1958); uses two numbers of the stream.
  double Normal() {
    const double u = 1.0 - Uniform();  // (0, 1]: the logarithm is finite
    const double v = Uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  static constexpr uint64_t kIncrement = 0x9e3779b97f4a7c15ULL;

  uint64_t state_;
};

}  // namespace persia
