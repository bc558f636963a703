#include "dense/loss_scaler.h"

#include <algorithm>
#include <string>

#include "base/cpu.h"
#include "base/finite.h"

namespace persia {
namespace {

PERSIA_ALWAYS_INLINE bool UnscaleBody(float scale, size_t count, float* __restrict gradients) {
  const bool finite = AllFinite({gradients, count});
  if (scale == 1.0f) return finite;
  const float factor = 1.0f / scale;
  for (size_t i = 0; i < count; ++i) gradients[i] *= factor;
  return finite;
}

PERSIA_TARGET_AVX2 bool UnscaleAvx2(float scale, size_t count, float* gradients) {
  return UnscaleBody(scale, count, gradients);
}

}  // namespace

Status LossScaler::Stepped(bool finite) {
  std::lock_guard lock(mutex_);
  if (finite) {
    skipped_in_a_row_ = 0;
    if (!config_.dynamic || ++state_.good_steps < config_.growth_interval) return Status::Ok();
    state_.good_steps = 0;
    state_.scale = std::min(state_.scale * config_.growth, kMost);
    return Status::Ok();
  }
  ++state_.skipped;
  state_.good_steps = 0;
  if (config_.dynamic) state_.scale = std::max(state_.scale * config_.backoff, kLeast);
  if (++skipped_in_a_row_ < kMostInARow) return Status::Ok();
  return Status(ErrorCode::kNonFiniteLoss, "the gradients of " + std::to_string(kMostInARow) +
                                               " steps in a row were not finite, and nothing of these was applied; "
                                               "lower the learning rate or a static model.lossScaling, or check the data");
}

LossScaler::State LossScaler::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void LossScaler::Restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_.skipped = state.skipped;
  if (!config_.dynamic) return;
  state_.scale = std::clamp(state.scale, kLeast, kMost);
  state_.good_steps = state.good_steps;
}

bool Unscale(float scale, size_t count, float* gradients) {
  return HasAvx2() ? UnscaleAvx2(scale, count, gradients) : UnscaleBody(scale, count, gradients);
}

}  // namespace persia
