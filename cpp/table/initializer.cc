#include "table/initializer.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/cpu.h"
#include "base/rng.h"

namespace persia {
namespace {

double TruncatedNormal(double truncate, Rng& rng) {
  // A narrow middle of the bell is nearly even: there, drawing evenly and keeping by density rejects less than drawing
  // normally and keeping what falls within.
  if (truncate < 1.0) {
    for (;;) {
      const double x = rng.Uniform(-truncate, truncate);
      if (rng.Uniform() < std::exp(-0.5 * x * x)) return x;
    }
  }
  double x = rng.Normal();
  while (std::abs(x) > truncate) x = rng.Normal();
  return x;
}

// Standard gamma of shape >= 1: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000).
double GammaFromOne(double shape, Rng& rng) {
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = rng.Normal();
    const double root = 1.0 + c * x;
    if (root <= 0.0) continue;
    const double v = root * root * root;
    const double u = 1.0 - rng.Uniform();  // (0, 1]: the logarithm is finite
    if (u < 1.0 - 0.0331 * x * x * x * x) return d * v;
    if (std::log(u) < 0.5 * x * x + d * (1.0 - v + std::log(v))) return d * v;
  }
}

double Gamma(double shape, Rng& rng) {
  if (shape >= 1.0) return GammaFromOne(shape, rng);
  const double power = std::pow(1.0 - rng.Uniform(), 1.0 / shape);
  return GammaFromOne(shape + 1.0, rng) * power;
}

// log(k!) of a whole number k >= 0; Stirling's series is good to 1e-11 from 10 up. (std::lgamma writes a global.)
double LogFactorial(double k) {
  if (k < 10.0) {
    double factorial = 1.0;
    for (double i = 2.0; i <= k; ++i) factorial *= i;
    return std::log(factorial);
  }
  const double square = k * k;
  const double series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * square)) / square) / k;
  return (k + 0.5) * std::log(k) - k + 0.9189385332046727 + series;  // log(2·pi) / 2
}

// Knuth (The Art of Computer Programming, volume 2): how many uniform numbers it takes until their product is small.
double SmallPoisson(double lambda, Rng& rng) {
  const double limit = std::exp(-lambda);
  double product = rng.Uniform(), count = 0.0;
  for (; product > limit; ++count) product *= rng.Uniform();
  return count;
}

// Hörmann, "The transformed rejection method for generating Poisson random variables" (1993), algorithm PTRS; for
// lambda >= 10.
double LargePoisson(double lambda, Rng& rng) {
  const double b = 0.931 + 2.53 * std::sqrt(lambda);
  const double a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
  const double fast = 0.9277 - 3.6224 / (b - 2.0);
  for (;;) {
    const double u = rng.Uniform() - 0.5;
    const double v = 1.0 - rng.Uniform();  // (0, 1]: the logarithm is finite
    const double us = 0.5 - std::abs(u);
    const double k = std::floor((2.0 * a / us + b) * u + lambda + 0.43);
    if (us >= 0.07 && v <= fast) return k;
    if (k < 0.0 || (us < 0.013 && v > us)) continue;
    const double density = k * std::log(lambda) - lambda - LogFactorial(k);
    if (std::log(v * inverse_alpha / (a / (us * us) + b)) <= density) return k;
  }
}

// Rng::Uniform(low, high) from the number `index` of the stream, in arithmetic that AVX2 has: it converts no 64-bit
// integers, but their halves become doubles by setting the exponent that gives their bits the right weight. All exact.
PERSIA_ALWAYS_INLINE float UniformAt(double low, double high, uint64_t key, uint64_t index) {
  const uint64_t bits = Rng::At(key, index) >> 11;
  const double upper = std::bit_cast<double>(0x4530000000000000u | (bits >> 32)) - 0x1.00000001p84;
  const double number = upper + std::bit_cast<double>(0x4330000000000000u | (bits & 0xffffffffu));
  return static_cast<float>(low + (high - low) * (number * 0x1.0p-53));
}

PERSIA_ALWAYS_INLINE void FillUniformBody(double low, double high, uint64_t key, float* __restrict row, uint32_t dim) {
  constexpr uint32_t kBlock = 8;
  const uint32_t whole = dim / kBlock * kBlock;
  for (uint32_t i = 0; i < whole; i += kBlock) {
    const uint64_t block = Rng::Skip(key, i);
    for (uint32_t lane = 0; lane < kBlock; ++lane) row[i + lane] = UniformAt(low, high, block, lane);
  }
  for (uint32_t i = whole; i < dim; ++i) row[i] = UniformAt(low, high, key, i);
}

#if defined(__x86_64__)
// Without FMA, at whatever level: a fused sum would round to other values than the baseline's.
__attribute__((target("avx2"))) void FillUniformAvx2(double low, double high, uint64_t key, float* row, uint32_t dim) {
  FillUniformBody(low, high, key, row, dim);
}
#endif

void FillUniform(double low, double high, uint64_t key, float* row, uint32_t dim) {
#if defined(__x86_64__)
  if (HasAvx2()) return FillUniformAvx2(low, high, key, row, dim);
#endif
  FillUniformBody(low, high, key, row, dim);
}

// `draw` gives the next value.
template <typename Draw>
void Fill(float* row, uint32_t dim, const Draw& draw) {
  for (uint32_t i = 0; i < dim; ++i) row[i] = static_cast<float>(draw());
}

void FillNormal(const InitializerConfig& config, Rng& rng, float* row, uint32_t dim) {
  if (config.truncate > 0.0f) {
    Fill(row, dim, [&] { return config.mean + config.stddev * TruncatedNormal(config.truncate, rng); });
  } else {
    Fill(row, dim, [&] { return config.mean + config.stddev * rng.Normal(); });
  }
}

}  // namespace

void InitializeRow(const InitializerConfig& config, uint64_t seed, uint64_t sign, float* row, uint32_t dim) {
  const uint64_t key = RandomKey(seed, sign);
  Rng rng(key);
  switch (config.type) {
    case InitializerType::kUniform:
      return FillUniform(config.low, config.high, key, row, dim);
    case InitializerType::kInverseSqrtDim: {
      const auto bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
      return FillUniform(-bound, bound, key, row, dim);
    }
    case InitializerType::kNormal:
      return FillNormal(config, rng, row, dim);
    case InitializerType::kGamma:
      return Fill(row, dim, [&] { return config.scale * Gamma(config.shape, rng); });
    case InitializerType::kPoisson:
      if (config.lambda < 10.0f) return Fill(row, dim, [&] { return SmallPoisson(config.lambda, rng); });
      return Fill(row, dim, [&] { return LargePoisson(config.lambda, rng); });
    case InitializerType::kZeros:
      std::fill_n(row, dim, 0.0f);
      return;
  }
}

}  // namespace persia
