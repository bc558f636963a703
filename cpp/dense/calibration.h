// Puts predictions right where training saw only a share of the negatives.
//
// Keeping a share r of the negatives multiplies the odds that a model learns by 1 / r. For a prediction p of such a
// model, q = p / (p + (1 - p) / r) has the odds of all the data (He et al. 2014, "Practical Lessons from Predicting
// Clicks on Ads at Facebook", section 6.3). The order of the predictions stays.
//
// Thread-safety: pure functions on the caller's memory.
#pragma once

#include <cstdint>
#include <span>

#include "dense/dense_model.h"

namespace persia {

// Corrects the outputs, (rows, tasks) f32, of each task by its kept_negatives.
void CorrectForSampling(std::span<const TaskSpec> tasks, uint32_t rows, float* outputs);

}  // namespace persia
