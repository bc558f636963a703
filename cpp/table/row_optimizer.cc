// The kernels are plain loops (table/row_kernel.h). Roots and quotients are exact (no reciprocal approximations):
// results stay PyTorch's.
#include "table/row_optimizer.h"

#include <cmath>
#include <limits>

#include "base/status.h"

namespace persia {
namespace {

using Constants = RowOptimizerConstants;

// Steps whose corrections are looked up; later ones, which betas very close to 1 still correct, are worked out.
constexpr size_t kTabulatedSteps = size_t{1} << 16;

PERSIA_ALWAYS_INLINE float Bounded(float w, float bound) { return std::min(std::max(w, -bound), bound); }

// Each value of `out` depends on the old values at its own place only, so `out` may be `row`: the rounds of the loops
// are independent either way.
struct Sgd {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection, const float* row,
                                       const float* gradient, float* out) {
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.l2 * row[i];
      out[i] = Bounded(row[i] - c.lr * g, c.bound);
    }
  }
};

struct MomentumSgd {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection, const float* row,
                                       const float* gradient, float* out) {
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.l2 * row[i];
      const float b = c.momentum * row[dim + i] + g;
      out[dim + i] = b;
      out[i] = Bounded(row[i] - c.lr * b, c.bound);
    }
  }
};

struct Adagrad {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection, const float* row,
                                       const float* gradient, float* out) {
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float w = row[i], g = gradient[i] + c.l2 * w;
      const float s = row[dim + i] + g * g;
      out[dim + i] = s;
      out[i] = Bounded(w - c.lr * g / (std::sqrt(s) + c.eps), c.bound);
    }
  }
};

struct RowwiseAdagrad {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection, const float* row,
                                       const float* gradient, float* out) {
    const float s = row[dim] + SumOfSquares(dim, c, row, gradient) / static_cast<float>(dim);
    out[dim] = s;
    const float rate = c.lr / (std::sqrt(s) + c.eps);
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.l2 * row[i];
      out[i] = Bounded(row[i] - rate * g, c.bound);
    }
  }

 private:
  // Independent partial sums: a single one could not be vectorised without changing its order of additions.
  static PERSIA_ALWAYS_INLINE float SumOfSquares(uint32_t dim, const Constants& c, const float* row,
                                                 const float* gradient) {
    constexpr uint32_t kLanes = 8;
    float partial[kLanes] = {};
    const uint32_t whole = dim / kLanes * kLanes;
    for (uint32_t i = 0; i < whole; i += kLanes) {
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const float g = gradient[i + lane] + c.l2 * row[i + lane];
        partial[lane] += g * g;
      }
    }
    for (uint32_t lane = 0; lane < dim - whole; ++lane) {
      const float g = gradient[whole + lane] + c.l2 * row[whole + lane];
      partial[lane] += g * g;
    }
    for (uint32_t half = kLanes / 2; half > 0; half /= 2) {
      for (uint32_t lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
    }
    return partial[0];
  }
};

struct Adam {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection correction, const float* row,
                                       const float* gradient, float* out) {
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float w = row[i], g = gradient[i] + c.l2 * w;
      const float m = c.beta1 * row[dim + i] + c.one_minus_beta1 * g;
      const float v = c.beta2 * row[2 * dim + i] + c.one_minus_beta2 * g * g;
      out[dim + i] = m;
      out[2 * dim + i] = v;
      const float step = correction.rate * m / (std::sqrt(v) * correction.inverse_root + c.eps);
      out[i] = Bounded(c.keep * w - step, c.bound);
    }
  }
};

struct Ftrl {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, const Constants& c, AdamCorrection, const float* row,
                                       const float* gradient, float* out) {
    PERSIA_INDEPENDENT_ROUNDS
    for (uint32_t i = 0; i < dim; ++i) {
      const float w = row[i], g = gradient[i] + c.l2 * w;
      const float root = std::sqrt(row[2 * dim + i]);
      const float n = row[2 * dim + i] + g * g;
      const float new_root = std::sqrt(n);
      const float z = row[dim + i] + (g - (new_root - root) * c.inverse_lr * w);
      out[dim + i] = z;
      out[2 * dim + i] = n;
      // Within ±l1 the difference is an exact 0.
      out[i] = Bounded((Bounded(z, c.l1) - z) / (new_root * c.inverse_lr + c.curvature), c.bound);
    }
  }
};

Constants ConstantsOf(const RowOptimizerConfig& config) {
  const bool decoupled = config.type == RowOptimizerType::kAdamW;
  const double lr = config.lr;
  return {.lr = config.lr,
          .momentum = config.momentum,
          .eps = config.eps,
          .bound = config.weight_bound > 0.0f ? config.weight_bound : std::numeric_limits<float>::infinity(),
          .l2 = decoupled ? 0.0f : config.weight_decay,
          .keep = decoupled ? static_cast<float>(1.0 - lr * config.weight_decay) : 1.0f,
          .beta1 = config.beta1,
          .beta2 = config.beta2,
          .one_minus_beta1 = static_cast<float>(1.0 - config.beta1),
          .one_minus_beta2 = static_cast<float>(1.0 - config.beta2),
          .inverse_lr = static_cast<float>(1.0 / lr),
          .curvature = static_cast<float>(config.beta / lr + config.l2),
          .l1 = config.l1};
}

// Of a step t, by beta1^t and beta2^t.
AdamCorrection CorrectionBy(float lr, double power1, double power2) {
  return {static_cast<float>(lr / (1.0 - power1)), static_cast<float>(1.0 / std::sqrt(1.0 - power2))};
}

uint32_t StateWidthOf(const RowOptimizerConfig& config, uint32_t dim) {
  switch (config.type) {
    case RowOptimizerType::kSgd:
      return config.momentum == 0.0f ? 0 : dim;
    case RowOptimizerType::kAdagrad:
      return dim;
    case RowOptimizerType::kRowwiseAdagrad:
      return 1;
    case RowOptimizerType::kAdam:
    case RowOptimizerType::kAdamW:
      return 2 * dim + (config.bias_correction == BiasCorrection::kRow ? 1 : 0);
    case RowOptimizerType::kFtrl:
      return 2 * dim;
  }
  return 0;
}

}  // namespace

RowOptimizer::RowOptimizer(const RowOptimizerConfig& config, uint32_t dim, SimdLevel simd)
    : type_(config.type),
      dim_(dim),
      state_width_(StateWidthOf(config, dim)),
      initial_accumulator_(config.initial_accumulator),
      constants_(ConstantsOf(config)) {
  PERSIA_CHECK(dim > 0 && simd <= BestSimd());
  PickKernel(config, simd);
  if (type_ == RowOptimizerType::kAdam || type_ == RowOptimizerType::kAdamW) {
    step_source_ = config.bias_correction == BiasCorrection::kRow ? StepSource::kRow : StepSource::kGroup;
    TabulateCorrections();
  } else if (type_ == RowOptimizerType::kFtrl) {
    // Else a weight would be divided by 0.
    PERSIA_CHECK(config.lr > 0.0f && config.beta + config.initial_accumulator + config.l2 > 0.0f);
  }
}

void RowOptimizer::PickKernel(const RowOptimizerConfig& config, SimdLevel simd) {
  switch (config.type) {
    case RowOptimizerType::kSgd:
      if (config.momentum == 0.0f) {
        PickRowKernel<Sgd>(simd, dim_, &kernel_);
      } else {
        PickRowKernel<MomentumSgd>(simd, dim_, &kernel_);
      }
      break;
    case RowOptimizerType::kAdagrad:
      PickRowKernel<Adagrad>(simd, dim_, &kernel_);
      break;
    case RowOptimizerType::kRowwiseAdagrad:
      PickRowKernel<RowwiseAdagrad>(simd, dim_, &kernel_);
      break;
    case RowOptimizerType::kAdam:
    case RowOptimizerType::kAdamW:
      PickRowKernel<Adam>(simd, dim_, &kernel_);
      break;
    case RowOptimizerType::kFtrl:
      PickRowKernel<Ftrl>(simd, dim_, &kernel_);
      break;
  }
  PERSIA_CHECK(kernel_ != nullptr);
}

void RowOptimizer::InitState(float* row) const {
  float* state = row + dim_;
  switch (type_) {
    case RowOptimizerType::kAdagrad:
    case RowOptimizerType::kRowwiseAdagrad:
      std::fill_n(state, state_width_, initial_accumulator_);
      return;
    case RowOptimizerType::kFtrl: {
      const float divisor = std::sqrt(initial_accumulator_) * constants_.inverse_lr + constants_.curvature;
      for (uint32_t i = 0; i < dim_; ++i) {
        state[i] = row[i] == 0.0f ? 0.0f : -(row[i] * divisor + std::copysign(constants_.l1, row[i]));
        state[dim_ + i] = initial_accumulator_;
      }
      return;
    }
    default:
      std::fill_n(state, state_width_, 0.0f);
  }
}

void RowOptimizer::TabulateCorrections() {
  const double beta1 = constants_.beta1, beta2 = constants_.beta2;
  double power1 = 1.0, power2 = 1.0;
  corrections_.resize(1);  // there is no step 0
  while (corrections_.size() < kTabulatedSteps && !Converged(corrections_.back())) {
    power1 *= beta1;
    power2 *= beta2;
    corrections_.push_back(CorrectionBy(constants_.lr, power1, power2));
  }
}

AdamCorrection RowOptimizer::LateCorrection(uint64_t step) const {
  if (Converged(corrections_.back())) return corrections_.back();
  const auto t = static_cast<double>(step);
  return CorrectionBy(constants_.lr, std::pow(constants_.beta1, t), std::pow(constants_.beta2, t));
}

}  // namespace persia
