// LossScaler: the factor on the loss in backward, and what becomes of steps whose gradients are not finite.
//
// Gradients are small, and in fp16 (less so in bf16) what is too small becomes 0. Backward therefore starts from
// scale · loss, and gradients are divided by the scale before anything is done with them: in fp32 with a power of two that
// changes no bit. Where the scale is too large, gradients become infinite. The step is then skipped: neither dense
// weights nor embedding rows see anything of it. The dynamic scale follows torch.amp.GradScaler: times `backoff` after a
// skipped step, times `growth` after `growth_interval` good ones in a row.
//
// Steps are skipped whether the loss is scaled or not: gradients that are not finite never reach a weight. A model that
// skips kMostInARow steps learns nothing any more, which is an error.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/status.h"

namespace persia {

struct LossScaling {
  float scale = 1.0f;  // dynamic: the first
  bool dynamic = false;
  uint32_t growth_interval = 2000;
  float growth = 2.0f, backoff = 0.5f;
};

class LossScaler {
 public:
  static constexpr float kLeast = 1.0f, kMost = 16'777'216.0f;  // of a dynamic scale
  static constexpr uint32_t kMostInARow = 100;

  struct State {
    float scale = 1.0f;
    uint32_t good_steps = 0;  // in a row, since the scale changed
    uint64_t skipped = 0;     // of all steps so far
  };

  explicit LossScaler(const LossScaling& config) : config_(config) { state_.scale = config.scale; }

  // What the next step's loss is multiplied with.
  float scale() const { return state().scale; }

  // The gradients of a step were finite, or it is skipped. kNonFiniteLoss: too many were, one after another.
  Status Stepped(bool finite);

  State state() const;
  // Goes on from a checkpoint's state. A static scale stays what it is.
  void Restore(const State& state);

 private:
  const LossScaling config_;
  mutable std::mutex mutex_;  // guards what follows
  State state_;
  uint32_t skipped_in_a_row_ = 0;
};

// Divides `count` gradients by the scale. False: one of them is not finite.
bool Unscale(float scale, size_t count, float* gradients);

}  // namespace persia
