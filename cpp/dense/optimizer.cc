#include "dense/optimizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/cpu.h"

namespace persia {
namespace {

constexpr size_t kChunk = size_t{1} << 16;

struct SgdCoefficients {
  float gradient_scale, l2, momentum, lr;
};

struct AdamCoefficients {
  float gradient_scale, l2, keep;  // keep: what decoupled weight decay leaves of a parameter
  float rise1, beta2, rise2;       // rise: 1 - beta
  float step_size, root_correction2, eps;
};

PERSIA_ALWAYS_INLINE void SgdBody(const SgdCoefficients& k, size_t count, const float* __restrict gradients,
                                  float* __restrict parameters) {
  for (size_t i = 0; i < count; ++i) {
    parameters[i] -= k.lr * (gradients[i] * k.gradient_scale + k.l2 * parameters[i]);
  }
}

PERSIA_ALWAYS_INLINE void MomentumBody(const SgdCoefficients& k, size_t count, const float* __restrict gradients,
                                       float* __restrict parameters, float* __restrict momentum) {
  for (size_t i = 0; i < count; ++i) {
    const float gradient = gradients[i] * k.gradient_scale + k.l2 * parameters[i];
    momentum[i] = k.momentum * momentum[i] + gradient;
    parameters[i] -= k.lr * momentum[i];
  }
}

PERSIA_ALWAYS_INLINE void AdamBody(const AdamCoefficients& k, size_t count, const float* __restrict gradients,
                                   float* __restrict parameters, float* __restrict exp_avg,
                                   float* __restrict exp_avg_sq) {
  for (size_t i = 0; i < count; ++i) {
    const float gradient = gradients[i] * k.gradient_scale + k.l2 * parameters[i];
    const float first = exp_avg[i] + k.rise1 * (gradient - exp_avg[i]);
    const float second = k.beta2 * exp_avg_sq[i] + k.rise2 * gradient * gradient;
    exp_avg[i] = first;
    exp_avg_sq[i] = second;
    parameters[i] = k.keep * parameters[i] - k.step_size * (first / (std::sqrt(second) / k.root_correction2 + k.eps));
  }
}

// Eight independent sums, so that the additions overlap and vectorise.
PERSIA_ALWAYS_INLINE double SumOfSquaresBody(size_t count, const float* values) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {};
  const size_t whole = count / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  double sum = 0.0;
  for (const double lane : sums) sum += lane;
  for (size_t i = whole; i < count; ++i) sum += static_cast<double>(values[i]) * values[i];
  return sum;
}

PERSIA_TARGET_AVX2 void SgdAvx2(const SgdCoefficients& k, size_t count, const float* gradients, float* parameters) {
  SgdBody(k, count, gradients, parameters);
}
PERSIA_TARGET_AVX2 void MomentumAvx2(const SgdCoefficients& k, size_t count, const float* gradients, float* parameters,
                                     float* momentum) {
  MomentumBody(k, count, gradients, parameters, momentum);
}
PERSIA_TARGET_AVX2 void AdamAvx2(const AdamCoefficients& k, size_t count, const float* gradients, float* parameters,
                                 float* exp_avg, float* exp_avg_sq) {
  AdamBody(k, count, gradients, parameters, exp_avg, exp_avg_sq);
}
PERSIA_TARGET_AVX2 double SumOfSquaresAvx2(size_t count, const float* values) {
  return SumOfSquaresBody(count, values);
}

void SgdKernel(const SgdCoefficients& k, size_t count, const float* gradients, float* parameters) {
  if (HasAvx2()) return SgdAvx2(k, count, gradients, parameters);
  SgdBody(k, count, gradients, parameters);
}
void MomentumKernel(const SgdCoefficients& k, size_t count, const float* gradients, float* parameters,
                    float* momentum) {
  if (HasAvx2()) return MomentumAvx2(k, count, gradients, parameters, momentum);
  MomentumBody(k, count, gradients, parameters, momentum);
}
void AdamKernel(const AdamCoefficients& k, size_t count, const float* gradients, float* parameters, float* exp_avg,
                float* exp_avg_sq) {
  if (HasAvx2()) return AdamAvx2(k, count, gradients, parameters, exp_avg, exp_avg_sq);
  AdamBody(k, count, gradients, parameters, exp_avg, exp_avg_sq);
}
double SumOfSquares(size_t count, const float* values) {
  return HasAvx2() ? SumOfSquaresAvx2(count, values) : SumOfSquaresBody(count, values);
}

bool IsAdam(const DenseOptimizerConfig& config) { return config.type != DenseOptimizerType::kSgd; }

}  // namespace

DenseOptimizer::DenseOptimizer(const DenseOptimizerConfig& config, size_t count) : config_(config), count_(count) {
  if (IsAdam(config_) || config_.momentum != 0.0) first_.Resize(count);
  if (IsAdam(config_)) second_.Resize(count);
  first_.Fill(0.0f);
  second_.Fill(0.0f);
  partial_norms_.Resize(chunks());
}

uint32_t DenseOptimizer::chunks() const { return static_cast<uint32_t>((count_ + kChunk - 1) / kChunk); }

DenseOptimizer::Range DenseOptimizer::Chunk(uint32_t chunk) const {
  const size_t begin = chunk * kChunk;
  return {begin, std::min(kChunk, count_ - begin)};
}

Status DenseOptimizer::Step(ThreadPool& pool, uint64_t step, double lr_factor, const float* gradients,
                            float* parameters) {
  double gradient_scale = 1.0;
  if (config_.clip_norm > 0.0) {
    const double norm = GradientNorm(pool, gradients);
    if (!std::isfinite(norm)) {
      return Status(ErrorCode::kNonFiniteLoss, "the norm of the dense gradients is not finite at step " +
                                                   std::to_string(step) +
                                                   "; nothing was applied; lower the learning rate or check the data");
    }
    gradient_scale = std::min(1.0, config_.clip_norm / (norm + 1e-6));
  }
  const double lr = config_.lr * lr_factor;
  if (IsAdam(config_)) {
    StepAdam(pool, step, lr, gradient_scale, gradients, parameters);
  } else {
    StepSgd(pool, lr, gradient_scale, gradients, parameters);
  }
  return Status::Ok();
}

double DenseOptimizer::GradientNorm(ThreadPool& pool, const float* gradients) {
  pool.ParallelFor(chunks(), [&](uint32_t chunk) {
    const auto [begin, count] = Chunk(chunk);
    partial_norms_[chunk] = SumOfSquares(count, gradients + begin);
  });
  double sum = 0.0;
  for (const double partial : partial_norms_.span()) sum += partial;
  return std::sqrt(sum);
}

void DenseOptimizer::StepSgd(ThreadPool& pool, double lr, double gradient_scale, const float* gradients,
                             float* parameters) {
  const SgdCoefficients k{static_cast<float>(gradient_scale), static_cast<float>(config_.weight_decay),
                          static_cast<float>(config_.momentum), static_cast<float>(lr)};
  pool.ParallelFor(chunks(), [&](uint32_t chunk) {
    const auto [begin, count] = Chunk(chunk);
    if (first_.size() != 0) {
      MomentumKernel(k, count, gradients + begin, parameters + begin, first_.data() + begin);
    } else {
      SgdKernel(k, count, gradients + begin, parameters + begin);
    }
  });
}

void DenseOptimizer::StepAdam(ThreadPool& pool, uint64_t step, double lr, double gradient_scale,
                              const float* gradients, float* parameters) {
  const bool decoupled = config_.type == DenseOptimizerType::kAdamW;
  const double steps = static_cast<double>(step);
  AdamCoefficients k;
  k.gradient_scale = static_cast<float>(gradient_scale);
  k.l2 = decoupled ? 0.0f : static_cast<float>(config_.weight_decay);
  k.keep = decoupled ? static_cast<float>(1.0 - lr * config_.weight_decay) : 1.0f;
  k.rise1 = static_cast<float>(1.0 - config_.beta1);
  k.beta2 = static_cast<float>(config_.beta2);
  k.rise2 = static_cast<float>(1.0 - config_.beta2);
  k.step_size = static_cast<float>(lr / (1.0 - std::pow(config_.beta1, steps)));
  k.root_correction2 = static_cast<float>(std::sqrt(1.0 - std::pow(config_.beta2, steps)));
  k.eps = static_cast<float>(config_.eps);
  pool.ParallelFor(chunks(), [&](uint32_t chunk) {
    const auto [begin, count] = Chunk(chunk);
    AdamKernel(k, count, gradients + begin, parameters + begin, first_.data() + begin, second_.data() + begin);
  });
}

std::vector<DenseOptimizer::State> DenseOptimizer::States() {
  if (IsAdam(config_)) return {{"exp_avg", first_.span()}, {"exp_avg_sq", second_.span()}};
  if (first_.size() != 0) return {{"momentum_buffer", first_.span()}};
  return {};
}

}  // namespace persia
