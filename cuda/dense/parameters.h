// Weights, gradients and optimizer state of a network in the GPU's memory, with what the host sees of them.
//
// On the GPU all arrays are flat in the layout of DeviceLayout. The host's copies have the layout of the CPU backend, so
// that checkpoints fit both.
//
// Thread-safety: externally synchronised. Copies are enqueued on the stream given; those to the host are waited for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "cuda/base/device_buffer.h"
#include "dense/dense_model.h"
#include "cuda/dense/device_layout.h"
#include "cuda/dense/kernels.h"

namespace persia {

class DeviceParameters {
 public:
  DeviceParameters(const DenseModelConfig& config, const Layout& layout, bool low);

  // Takes the memory and starts from the CPU backend's initial weights.
  Status Create(cudaStream_t stream);

  const DeviceLayout& layout() const { return device_layout_; }
  float* gradients() const { return gradients_.data(); }
  const float* parameters() const { return values_[0].device.data(); }
  const void* low() const { return low_.data(); }  // bf16 copies; null unless asked for

  OptimizerArrays optimizer_arrays() const;

  Status ReadToHost(cudaStream_t stream);
  Status WriteFromHost(cudaStream_t stream);
  std::vector<NamedTensor> Tensors();

 private:
  struct Values {
    const char* suffix;  // of the tensors' names; empty for the weights
    DeviceArray<float> device;
    AlignedBuffer<float> host;
  };
  enum class Direction { kToHost, kToDevice };
  Status CopyLayer(Values& values, size_t layer, Direction direction, cudaStream_t stream);

  const Layout layout_;
  const DeviceLayout device_layout_;
  const bool has_low_;
  const uint64_t seed_;
  std::vector<Values> values_;  // weights, then the optimizer's state
  DeviceArray<float> gradients_;
  DeviceArray<uint16_t> low_;
};

}  // namespace persia
