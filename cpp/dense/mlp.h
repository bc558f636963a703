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

#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "dense/linear.h"

namespace persia {

class Mlp {
 public:
  enum class LastLayer { kLinear, kRelu };

  virtual ~Mlp() = default;

  // The output (rows, out of the last layer) for x (rows, in); valid until the next call.
  virtual float* Forward(uint32_t rows, Matrix<const float> x) = 0;

  // After Forward with the same x: the gradients of all parameters from that of the output, dy (rows, out), which a
  // ReLU at the end masks in place; that of the first dx_width columns of x goes to dx (rows, dx_width).
  virtual void Backward(uint32_t rows, Matrix<const float> x, float* dy, float* dx, uint32_t dx_width,
                        BucketProgress& progress) = 0;

  uint32_t output_width() const { return layers_.back().out; }

 protected:
  // `layers` is a chain of at least one.
  Mlp(std::vector<Layer> layers, LastLayer last, const Team& team);

  // The bias gradient of the last layer from dy (rows, out), which is masked by `output` (rows, out) where that comes out
  // of a ReLU.
  void LastBiasGradient(uint32_t rows, const float* output, float* dy);

  const std::vector<Layer> layers_;
  const LastLayer last_;
  const Team team_;

 private:
  AlignedBuffer<float> last_sums_;  // by band of rows: (bands, out)
};

// As the team's unit multiplies: by the library, or own kernels.
std::unique_ptr<Mlp> MakeMlp(std::vector<Layer> layers, Mlp::LastLayer last, const Team& team);
std::unique_ptr<Mlp> MakePanelMlp(std::vector<Layer> layers, Mlp::LastLayer last, const Team& team);

}  // namespace persia
