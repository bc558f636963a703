// Losses of one task head: value and gradient in one pass over the batch, in double where it is summed.
//
// Thread-safety: pure functions on the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dense/dense_model.h"

namespace persia {

// 1 / (1 + e^-x), accurate on both sides.
double Sigmoid(double x);

// Returns weight · loss of `rows` samples / mean_rows, positive labels weighed by positive_weight as torch's
// BCEWithLogitsLoss(pos_weight) does, and writes its gradient with respect to the head's outputs
// (before the sigmoid for kBce); mean_rows is the number of samples of the whole batch that these are part of.
// `outputs`, `labels` and `gradient` are (rows) f32 at the same stride. Not finite when an output or a label isn't.
double LossAndGradient(const TaskSpec& task, uint32_t rows, uint64_t mean_rows, size_t stride, const float* outputs,
                       const float* labels, float* gradient);

}  // namespace persia
