#include "dense/kernels.h"

#include <algorithm>

#include "base/cpu.h"

namespace persia {
namespace {

PERSIA_ALWAYS_INLINE void AddBiasReluBody(uint32_t rows, uint32_t columns, const float* __restrict bias,
                                          Matrix<float> values) {
  for (uint32_t r = 0; r < rows; ++r) {
    float* __restrict row = values.at(r, 0);
    for (uint32_t c = 0; c < columns; ++c) {
      const float sum = row[c] + bias[c];
      row[c] = sum < 0.0f ? 0.0f : sum;  // a NaN stays, so that the loss shows it
    }
  }
}

PERSIA_ALWAYS_INLINE void MaskAndSumBody(uint32_t rows, uint32_t columns, Matrix<const float> activation,
                                         Matrix<float> gradient, float* __restrict sums) {
  std::fill_n(sums, columns, 0.0f);
  for (uint32_t r = 0; r < rows; ++r) {
    const float* __restrict active = activation.at(r, 0);
    float* __restrict row = gradient.at(r, 0);
    for (uint32_t c = 0; c < columns; ++c) {
      const float value = active[c] > 0.0f ? row[c] : 0.0f;
      row[c] = value;
      sums[c] += value;
    }
  }
}

PERSIA_TARGET_AVX2 void AddBiasReluAvx2(uint32_t rows, uint32_t columns, const float* bias, Matrix<float> values) {
  AddBiasReluBody(rows, columns, bias, values);
}

PERSIA_TARGET_AVX2 void MaskAndSumAvx2(uint32_t rows, uint32_t columns, Matrix<const float> activation,
                                       Matrix<float> gradient, float* sums) {
  MaskAndSumBody(rows, columns, activation, gradient, sums);
}

}  // namespace

// Of heads, which are narrow: nothing to gain from wide vectors.
void AddBias(uint32_t rows, uint32_t columns, const float* bias, Matrix<float> values) {
  for (uint32_t r = 0; r < rows; ++r) {
    float* row = values.at(r, 0);
    for (uint32_t c = 0; c < columns; ++c) row[c] += bias[c];
  }
}

void AddBiasRelu(uint32_t rows, uint32_t columns, const float* bias, Matrix<float> values) {
  if (HasAvx2()) return AddBiasReluAvx2(rows, columns, bias, values);
  AddBiasReluBody(rows, columns, bias, values);
}

void MaskAndSum(uint32_t rows, uint32_t columns, Matrix<const float> activation, Matrix<float> gradient, float* sums) {
  if (HasAvx2()) return MaskAndSumAvx2(rows, columns, activation, gradient, sums);
  MaskAndSumBody(rows, columns, activation, gradient, sums);
}

}  // namespace persia
