// Mlp: linear layers with ReLU between them, as tiled matrix products with everything else in their wake.
//
// Of a batch only the layers' outputs are kept; gradients between layers alternate between two buffers.
//
//   forward of layer i:   x[i+1] = relu(x[i] · Wᵀ + b); bias and ReLU on each finished tile
//   backward of layer i:  dW and dx; on each finished tile of dx the mask of layer i-1's ReLU and the column sums,
//                         which are that layer's bias gradient
//
// Thread-safety: externally synchronised.
#pragma once

#include <vector>

#include "base/aligned_buffer.h"
#include "dense/linear.h"

namespace persia {

class Mlp {
 public:
  enum class LastLayer { kLinear, kRelu };

  // `layers` is a chain of at least one.
  Mlp(std::vector<Layer> layers, LastLayer last, const Team& team);

  // The output (rows, out of the last layer) for x (rows, in); valid until the next call.
  float* Forward(uint32_t rows, Matrix<const float> x);

  // After Forward with the same x: the gradients of all parameters from that of the output, dy (rows, out), which a
  // ReLU at the end masks in place; that of the first dx_width columns of x goes to dx (rows, dx_width).
  void Backward(uint32_t rows, Matrix<const float> x, float* dy, float* dx, uint32_t dx_width,
                BucketProgress& progress);

  uint32_t output_width() const { return layers_.back().out; }

 private:
  void LastBiasGradient(uint32_t rows, float* dy);
  void LayerBackward(size_t index, uint32_t rows, Matrix<const float> x, const float* dy, float* dx,
                     uint32_t dx_width);

  const std::vector<Layer> layers_;
  const LastLayer last_;
  const Team team_;
  uint32_t widest_ = 0;

  // Scratch of one batch, as large as the largest batch so far.
  std::vector<AlignedBuffer<float>> outputs_;  // of layer i: (rows, out)
  AlignedBuffer<float> gradients_[2];          // of layer i's output in [i % 2]: (rows, out)
  AlignedBuffer<float> bias_sums_;             // bias gradient by band of rows: (bands, widest)
};

}  // namespace persia
