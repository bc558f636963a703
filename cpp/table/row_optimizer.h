// Row optimizers: how one embedding row and its state change with one gradient. Formulas are PyTorch's for a
// parameter that gets a gradient whenever the row is touched (lazily: untouched rows don't change).
//
//   sgd              b = momentum·b + g; w -= lr·b                             b starts at 0: the first b is g
//   adagrad          s += g²; w -= lr·g / (sqrt(s) + eps)                      s starts at initial_accumulator
//   rowwise_adagrad  s += mean(g²); w -= lr·g / (sqrt(s) + eps)                one s a row (FBGEMM's rowwise Adagrad)
//   adam             m, v as Kingma & Ba with bias correction by the row's own touch count t
// weight_decay adds weight_decay·w to g first (L2, as torch.optim does). After every update |w| <= weight_bound (0:
// no bound).
//
// State is float32 behind the embedding in the row:
//   sgd              [ w: dim ]            without momentum, else [ w: dim | b: dim ]
//   adagrad          [ w: dim | s: dim ]
//   rowwise_adagrad  [ w: dim | s: 1 ]
//   adam             [ w: dim | m: dim | v: dim | t: 1 ]
//
// Thread-safety: immutable; Apply writes only the row it is given.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace persia {

enum class RowOptimizerType { kSgd, kAdagrad, kRowwiseAdagrad, kAdam };

struct RowOptimizerConfig {
  RowOptimizerType type = RowOptimizerType::kAdagrad;
  float lr = 0.01f;
  float momentum = 0.0f;             // sgd
  float weight_decay = 0.0f;         // all
  float initial_accumulator = 0.0f;  // adagrad, rowwise_adagrad
  float beta1 = 0.9f, beta2 = 0.999f;  // adam
  float eps = 1e-10f;                // adagrad 1e-10, adam 1e-8
  float weight_bound = 0.0f;
};

// What an update reads beside row and gradient: the config, and what can be worked out of it once.
struct RowOptimizerConstants {
  float lr, momentum, weight_decay, eps;
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float bound;  // infinite for none
  double log_beta1, log_beta2;
};

class RowOptimizer {
 public:
  // `use_avx2` is for tests of the baseline kernels; the results differ by rounding only.
  RowOptimizer(const RowOptimizerConfig& config, uint32_t dim, bool use_avx2 = HasAvx2());

  uint32_t dim() const { return dim_; }
  uint32_t state_width() const { return state_width_; }  // floats
  uint32_t row_width() const { return dim_ + state_width_; }

  // Sets the state part of a new row. `state` is (state_width) f32.
  void InitState(float* state) const;

  // One update. `row` is (dim + state_width) f32, `gradient` (dim) f32, finite.
  void Apply(float* row, const float* gradient) const { kernel_(constants_, dim_, row, gradient); }

 private:
  using Kernel = void (*)(const RowOptimizerConstants& constants, uint32_t dim, float* row, const float* gradient);

  uint32_t dim_;
  uint32_t state_width_;
  float initial_state_;
  RowOptimizerConstants constants_;
  Kernel kernel_;
};

}  // namespace persia
