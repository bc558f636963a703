#include "dense/calibration.h"

#include <cstddef>

namespace persia {

void CorrectForSampling(std::span<const TaskSpec> tasks, uint32_t rows, float* outputs) {
  for (size_t task = 0; task < tasks.size(); ++task) {
    const double kept = tasks[task].kept_negatives;
    if (kept == 1.0) continue;
    for (size_t i = task; i < size_t{rows} * tasks.size(); i += tasks.size()) {
      const double p = outputs[i];
      outputs[i] = static_cast<float>(p * kept / (p * kept + (1.0 - p)));
    }
  }
}

}  // namespace persia
