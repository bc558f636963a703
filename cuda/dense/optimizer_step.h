// One parameter's optimizer step, as cpp/dense/optimizer.cc does it; plain C++, so that tests without a GPU can compare
// the two.
//
// Thread-safety: pure functions on the caller's memory.
#pragma once

#include <cmath>

#include "cuda/dense/kernels.h"

#ifdef __CUDACC__
#define PERSIA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define PERSIA_HOST_DEVICE inline
#endif

namespace persia {

PERSIA_HOST_DEVICE void SgdStep(const StepScalars& k, float scale, float gradient, float* parameter) {
  *parameter -= k.lr * (gradient * scale + k.l2 * *parameter);
}

PERSIA_HOST_DEVICE void MomentumStep(const StepScalars& k, float scale, float gradient, float* parameter,
                                     float* momentum) {
  *momentum = k.momentum * *momentum + (gradient * scale + k.l2 * *parameter);
  *parameter -= k.lr * *momentum;
}

PERSIA_HOST_DEVICE void AdamStep(const StepScalars& k, float scale, float gradient, float* parameter, float* exp_avg,
                                 float* exp_avg_sq) {
  gradient = gradient * scale + k.l2 * *parameter;
  *exp_avg += k.rise1 * (gradient - *exp_avg);
  *exp_avg_sq = k.beta2 * *exp_avg_sq + k.rise2 * gradient * gradient;
  *parameter = k.keep * *parameter - k.step_size * (*exp_avg / (sqrtf(*exp_avg_sq) / k.root_correction2 + k.eps));
}

}  // namespace persia
