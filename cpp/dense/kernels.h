// Element-wise passes of the network over one tile, in cache right after its product. Each is built for the baseline
// and for AVX2 and picks at run time.
//
// Thread-safety: pure functions on the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dense/product.h"

namespace persia {

// values[r][c] += bias[c], over (rows, columns).
void AddBias(uint32_t rows, uint32_t columns, const float* bias, Matrix<float> values);

// values[r][c] = max(values[r][c] + bias[c], 0), over (rows, columns).
void AddBiasRelu(uint32_t rows, uint32_t columns, const float* bias, Matrix<float> values);

// Backward of the ReLU and of the bias before it, in one pass: sets gradient[r][c] to 0 where the activation is 0, and
// sums[c] to the sum of the column. All (rows, columns).
void MaskAndSum(uint32_t rows, uint32_t columns, Matrix<const float> activation, Matrix<float> gradient, float* sums);

}  // namespace persia
