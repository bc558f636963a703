// Row optimizers: how one embedding row and its state change with one gradient. Formulas are PyTorch's for a
// parameter that gets a gradient whenever the row is touched (lazily: untouched rows don't change).
//
//   sgd              b = momentum·b + g; w -= lr·b                             b starts at 0: the first b is g
//   adagrad          s += g²; w -= lr·g / (sqrt(s) + eps)                      s starts at initial_accumulator
//   rowwise_adagrad  s += mean(g²); w -= lr·g / (sqrt(s) + eps)                one s a row (FBGEMM's rowwise Adagrad)
//   adam             m = beta1·m + (1 - beta1)·g; v = beta2·v + (1 - beta2)·g²                (Kingma & Ba 2015)
//                    w -= lr / (1 - beta1^t) · m / (sqrt(v / (1 - beta2^t)) + eps)
//   adamw            the same after w *= 1 - lr·weight_decay                   (Loshchilov & Hutter 2019)
//   ftrl             FTRL-Proximal per coordinate (McMahan et al. 2013, algorithm 1), lr is its alpha:
//                    z += g - (sqrt(n + g²) - sqrt(n)) / lr · w; n += g²       n starts at initial_accumulator
//                    w = 0 where |z| <= l1, else (sign(z)·l1 - z) / ((beta + sqrt(n)) / lr + l2)
// weight_decay adds weight_decay·w to g first (L2, as torch.optim does), but for adamw. After every update
// |w| <= weight_bound (0: no bound).
//
// The step t of Adam's bias correction, by `bias_correction`: kRow is the row's own touch count, so that a rare row's
// first steps are as long as everybody's; kGroup is the step of the row's feature group, given by the caller, which
// equals torch.optim.SparseAdam and saves the count.
//
// The weights of FTRL follow from z and n alone. So that a new row keeps its initial w, z starts where the last line
// gives that w: z = -w·((beta + sqrt(n)) / lr + l2) - sign(w)·l1; the paper's z = 0 is the case w = 0.
//
// State is float32 behind the embedding in the row:
//   sgd              [ w: dim ]            without momentum, else [ w: dim | b: dim ]
//   adagrad          [ w: dim | s: dim ]
//   rowwise_adagrad  [ w: dim | s: 1 ]
//   adam, adamw      [ w: dim | m: dim | v: dim | t: 1 ]      the last with kRow only
//   ftrl             [ w: dim | z: dim | n: dim ]
//
// Thread-safety: immutable; Apply writes only the row it is given.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/cpu.h"
#include "base/status.h"
#include "table/row_kernel.h"

namespace persia {

enum class RowOptimizerType { kSgd, kAdagrad, kRowwiseAdagrad, kAdam, kAdamW, kFtrl };
enum class BiasCorrection { kRow, kGroup };

struct RowOptimizerConfig {
  RowOptimizerType type = RowOptimizerType::kAdagrad;
  float lr = 0.01f;                    // ftrl: > 0
  float momentum = 0.0f;               // sgd
  float weight_decay = 0.0f;           // all
  float initial_accumulator = 0.0f;    // adagrad, rowwise_adagrad, ftrl
  float beta1 = 0.9f, beta2 = 0.999f;  // adam, adamw: in [0, 1)
  float eps = 1e-10f;                  // adagrad 1e-10, adam 1e-8
  float weight_bound = 0.0f;
  BiasCorrection bias_correction = BiasCorrection::kRow;  // adam, adamw
  float beta = 1.0f, l1 = 0.0f, l2 = 0.0f;                // ftrl: not beta, l2 and initial_accumulator all 0
};

// What an update reads beside row and gradient: the config, and what can be worked out of it once.
struct RowOptimizerConstants {
  float lr, momentum, eps, bound;  // bound: infinite for none
  float l2, keep;                  // weight decay: l2·w joins g; decoupled, w is scaled by `keep`
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float inverse_lr, curvature, l1;  // ftrl; curvature: beta / lr + l2, of a weight before any gradient
};

// What one step of Adam reads beside them: lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
struct AdamCorrection {
  float rate = 0.0f, inverse_root = 0.0f;
};

class RowOptimizer {
 public:
  // A `simd` below the best is for tests; the results differ by rounding only.
  RowOptimizer(const RowOptimizerConfig& config, uint32_t dim, SimdLevel simd = BestSimd());

  uint32_t dim() const { return dim_; }
  uint32_t state_width() const { return state_width_; }  // floats
  uint32_t row_width() const { return dim_ + state_width_; }

  // Whether Apply reads `group_step`.
  bool needs_group_step() const { return step_source_ == StepSource::kGroup; }

  // Sets the state part of a new row, (dim + state_width) f32, whose weights are set.
  void InitState(float* row) const;

  // One update of `row` (dim + state_width) f32 by `gradient` (dim) f32, finite; the result goes to `out`, as wide,
  // which may be `row`. `group_step` >= 1 counts the steps of the row's feature group, this one included.
  PERSIA_ALWAYS_INLINE void Apply(const float* row, const float* gradient, uint64_t group_step, float* out) const {
    AdamCorrection correction;
    if (step_source_ != StepSource::kNone) {
      const uint32_t last = row_width() - 1;
      correction =
          CorrectionOf(step_source_ == StepSource::kGroup ? group_step : CountTouch(row[last], &out[last]));
    }
    kernel_(dim_, constants_, correction, row, gradient, out);
  }
  void Apply(float* row, const float* gradient, uint64_t group_step = 1) const {
    Apply(row, gradient, group_step, row);
  }

 private:
  enum class StepSource { kNone, kRow, kGroup };
  using Kernel = RowKernel<const RowOptimizerConstants&, AdamCorrection, const float*, const float*, float*>;

  // Counts one more touch and gives the count, which stays at 2^24: the corrections of that step have long been 1.
  static uint64_t CountTouch(float touches, float* counted) {
    // In this order a NaN, which only a foreign checkpoint could bring, counts as the first touch.
    *counted = std::min(std::max(0.0f, touches) + 1.0f, 0x1p24f);
    return static_cast<uint64_t>(*counted);
  }
  // Whether later steps need no correction either, to rounding.
  bool Converged(AdamCorrection correction) const {
    return correction.rate == constants_.lr && correction.inverse_root == 1.0f;
  }
  AdamCorrection CorrectionOf(uint64_t step) const {
    PERSIA_CHECK(step > 0);
    return step < corrections_.size() ? corrections_[step] : LateCorrection(step);
  }
  AdamCorrection LateCorrection(uint64_t step) const;
  void TabulateCorrections();
  void PickKernel(const RowOptimizerConfig& config, SimdLevel simd);

  RowOptimizerType type_;
  uint32_t dim_;
  uint32_t state_width_;
  StepSource step_source_ = StepSource::kNone;
  float initial_accumulator_;
  RowOptimizerConstants constants_;
  Kernel kernel_ = nullptr;
  std::vector<AdamCorrection> corrections_;  // by step
};

}  // namespace persia
