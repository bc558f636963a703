// The learning-rate schedule: a pure function of the step, so that a resumed run continues it exactly.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "dense/dense_model.h"

namespace persia {
namespace {

// How far `step` is on the way from the end of warm-up to total_steps, in [0, 1].
double Progress(const ScheduleConfig& config, uint64_t step) {
  if (step <= config.warmup_steps) return 0.0;
  if (step >= config.total_steps) return 1.0;
  const uint64_t way = config.total_steps - config.warmup_steps;
  return static_cast<double>(step - config.warmup_steps) / static_cast<double>(way);
}

double Decay(const ScheduleConfig& config, uint64_t step) {
  switch (config.type) {
    case ScheduleType::kConstant:
      return 1.0;
    case ScheduleType::kStep:
      return std::pow(config.gamma, static_cast<double>((step - 1) / config.every_steps));
    case ScheduleType::kCosine: {
      const double wave = 0.5 * (1.0 + std::cos(std::numbers::pi * Progress(config, step)));
      return config.final_factor + (1.0 - config.final_factor) * wave;
    }
    case ScheduleType::kLinear:
      return 1.0 + (config.final_factor - 1.0) * Progress(config, step);
  }
  return 1.0;
}

}  // namespace

double ScheduleFactor(const ScheduleConfig& config, uint64_t step) {
  PERSIA_CHECK(step >= 1);
  const double warmup = static_cast<double>(std::max<uint64_t>(config.warmup_steps, 1));
  return std::min(1.0, static_cast<double>(step) / warmup) * Decay(config, step);
}

}  // namespace persia
