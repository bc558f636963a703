// The kernels are written once as always-inline bodies over plain loops, which the compiler vectorises, and
// instantiated for the baseline and for AVX2. Roots and quotients are exact (no reciprocal approximations): results
// stay PyTorch's.
#include "table/row_optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/status.h"

namespace persia {
namespace {

using Constants = RowOptimizerConstants;

PERSIA_ALWAYS_INLINE float Bounded(float w, float bound) { return std::min(std::max(w, -bound), bound); }

struct Sgd {
  static PERSIA_ALWAYS_INLINE void Run(const Constants& c, uint32_t dim, float* __restrict row,
                                       const float* __restrict gradient) {
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.weight_decay * row[i];
      row[i] = Bounded(row[i] - c.lr * g, c.bound);
    }
  }
};

struct MomentumSgd {
  static PERSIA_ALWAYS_INLINE void Run(const Constants& c, uint32_t dim, float* __restrict row,
                                       const float* __restrict gradient) {
    float* b = row + dim;
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.weight_decay * row[i];
      b[i] = c.momentum * b[i] + g;
      row[i] = Bounded(row[i] - c.lr * b[i], c.bound);
    }
  }
};

struct Adagrad {
  static PERSIA_ALWAYS_INLINE void Run(const Constants& c, uint32_t dim, float* __restrict row,
                                       const float* __restrict gradient) {
    float* s = row + dim;
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.weight_decay * row[i];
      s[i] += g * g;
      row[i] = Bounded(row[i] - c.lr * g / (std::sqrt(s[i]) + c.eps), c.bound);
    }
  }
};

struct RowwiseAdagrad {
  static PERSIA_ALWAYS_INLINE void Run(const Constants& c, uint32_t dim, float* __restrict row,
                                       const float* __restrict gradient) {
    // Independent partial sums: a single one could not be vectorised without changing its order of additions.
    constexpr uint32_t kLanes = 8;
    float partial[kLanes] = {};
    uint32_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const float g = gradient[i + lane] + c.weight_decay * row[i + lane];
        partial[lane] += g * g;
      }
    }
    for (uint32_t lane = 0; i < dim; ++i, ++lane) {
      const float g = gradient[i] + c.weight_decay * row[i];
      partial[lane] += g * g;
    }
    float sum = 0.0f;
    for (const float value : partial) sum += value;

    row[dim] += sum / static_cast<float>(dim);
    const float rate = c.lr / (std::sqrt(row[dim]) + c.eps);
    for (i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.weight_decay * row[i];
      row[i] = Bounded(row[i] - rate * g, c.bound);
    }
  }
};

struct Adam {
  static PERSIA_ALWAYS_INLINE void Run(const Constants& c, uint32_t dim, float* __restrict row,
                                       const float* __restrict gradient) {
    float* m = row + dim;
    float* v = m + dim;
    float& touches = v[dim];
    touches += 1.0f;  // stays at 2^24, where both corrections have long been 1
    const double correction1 = 1.0 - std::exp(touches * c.log_beta1);
    const double correction2 = 1.0 - std::exp(touches * c.log_beta2);
    const float rate = static_cast<float>(c.lr / correction1);
    const float root = static_cast<float>(std::sqrt(correction2));
    for (uint32_t i = 0; i < dim; ++i) {
      const float g = gradient[i] + c.weight_decay * row[i];
      m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
      v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
      row[i] = Bounded(row[i] - rate * m[i] / (std::sqrt(v[i]) / root + c.eps), c.bound);
    }
  }
};

template <typename Body>
void RunBaseline(const Constants& c, uint32_t dim, float* row, const float* gradient) {
  Body::Run(c, dim, row, gradient);
}

template <typename Body>
PERSIA_TARGET_AVX2 void RunAvx2(const Constants& c, uint32_t dim, float* row, const float* gradient) {
  Body::Run(c, dim, row, gradient);
}

template <typename Body>
auto Pick(bool use_avx2) {
  return use_avx2 ? RunAvx2<Body> : RunBaseline<Body>;
}

Constants ConstantsOf(const RowOptimizerConfig& config) {
  return {.lr = config.lr,
          .momentum = config.momentum,
          .weight_decay = config.weight_decay,
          .eps = config.eps,
          .beta1 = config.beta1,
          .beta2 = config.beta2,
          .one_minus_beta1 = static_cast<float>(1.0 - config.beta1),
          .one_minus_beta2 = static_cast<float>(1.0 - config.beta2),
          .bound = config.weight_bound > 0.0f ? config.weight_bound : std::numeric_limits<float>::infinity(),
          .log_beta1 = std::log(static_cast<double>(config.beta1)),
          .log_beta2 = std::log(static_cast<double>(config.beta2))};
}

}  // namespace

RowOptimizer::RowOptimizer(const RowOptimizerConfig& config, uint32_t dim, bool use_avx2)
    : dim_(dim), state_width_(0), initial_state_(0.0f), constants_(ConstantsOf(config)), kernel_(nullptr) {
  PERSIA_CHECK(dim > 0);
  switch (config.type) {
    case RowOptimizerType::kSgd:
      state_width_ = config.momentum == 0.0f ? 0 : dim;
      kernel_ = config.momentum == 0.0f ? Pick<Sgd>(use_avx2) : Pick<MomentumSgd>(use_avx2);
      break;
    case RowOptimizerType::kAdagrad:
      state_width_ = dim;
      initial_state_ = config.initial_accumulator;
      kernel_ = Pick<Adagrad>(use_avx2);
      break;
    case RowOptimizerType::kRowwiseAdagrad:
      state_width_ = 1;
      initial_state_ = config.initial_accumulator;
      kernel_ = Pick<RowwiseAdagrad>(use_avx2);
      break;
    case RowOptimizerType::kAdam:
      state_width_ = 2 * dim + 1;
      kernel_ = Pick<Adam>(use_avx2);
      break;
  }
  PERSIA_CHECK(kernel_ != nullptr);
}

void RowOptimizer::InitState(float* state) const { std::fill_n(state, state_width_, initial_state_); }

}  // namespace persia
