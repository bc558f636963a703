#include "cuda/dense/parameters.h"

#include <string>

namespace persia {

DeviceParameters::DeviceParameters(const DenseModelConfig& config, const Layout& layout, bool low)
    : layout_(layout), device_layout_(MakeDeviceLayout(layout)), has_low_(low), seed_(config.seed) {
  values_.push_back({"", {}, AlignedBuffer<float>(layout.size)});
  const DenseOptimizerConfig& optimizer = config.optimizer;
  std::vector<const char*> states;
  if (optimizer.type != DenseOptimizerType::kSgd) states = {".exp_avg", ".exp_avg_sq"};
  if (optimizer.type == DenseOptimizerType::kSgd && optimizer.momentum != 0.0) states = {".momentum_buffer"};
  for (const char* state : states) values_.push_back({state, {}, AlignedBuffer<float>(layout.size)});
}

Status DeviceParameters::Create(cudaStream_t stream) {
  const size_t bytes = device_layout_.size * sizeof(float);
  const auto take_zeros = [&](DeviceArray<float>& array) {
    PERSIA_RETURN_IF_ERROR(array.Reserve(device_layout_.size));
    return CudaStatus(cudaMemsetAsync(array.data(), 0, bytes, stream), "clear memory of the GPU");
  };
  PERSIA_RETURN_IF_ERROR(take_zeros(gradients_));
  for (Values& values : values_) {
    PERSIA_RETURN_IF_ERROR(take_zeros(values.device));
    values.host.Fill(0.0f);
  }
  if (has_low_) PERSIA_RETURN_IF_ERROR(low_.Reserve(device_layout_.size));
  InitialiseParameters(layout_, seed_, values_[0].host.span());
  return WriteFromHost(stream);
}

OptimizerArrays DeviceParameters::optimizer_arrays() const {
  const auto state = [&](size_t i) { return i < values_.size() ? values_[i].device.data() : nullptr; };
  return {device_layout_.size, gradients_.data(), state(0), state(1), state(2), low_.data()};
}

Status DeviceParameters::ReadToHost(cudaStream_t stream) {
  for (Values& values : values_) {
    for (size_t i = 0; i < layout_.layers.size(); ++i) {
      PERSIA_RETURN_IF_ERROR(CopyLayer(values, i, Direction::kToHost, stream));
    }
  }
  return CudaStatus(cudaStreamSynchronize(stream), "copy weights to the host");
}

Status DeviceParameters::WriteFromHost(cudaStream_t stream) {
  for (Values& values : values_) {
    for (size_t i = 0; i < layout_.layers.size(); ++i) {
      PERSIA_RETURN_IF_ERROR(CopyLayer(values, i, Direction::kToDevice, stream));
    }
  }
  if (has_low_) LaunchLower(device_layout_.size, parameters(), low_.data(), stream);
  PERSIA_RETURN_IF_CUDA(cudaGetLastError(), "round weights");
  return CudaStatus(cudaStreamSynchronize(stream), "copy weights to the GPU");
}

Status DeviceParameters::CopyLayer(Values& values, size_t layer, Direction direction, cudaStream_t stream) {
  const Layer& host = layout_.layers[layer];
  const DeviceLayer& device = device_layout_.layers[layer];
  const auto copy = [&](size_t host_at, size_t device_at, uint32_t width, uint32_t device_width, uint32_t rows) {
    const size_t bytes = width * sizeof(float), device_bytes = device_width * sizeof(float);
    float* on_host = values.host.data() + host_at;
    float* on_device = values.device.data() + device_at;
    return CudaStatus(direction == Direction::kToHost
                          ? cudaMemcpy2DAsync(on_host, bytes, on_device, device_bytes, bytes, rows,
                                              cudaMemcpyDeviceToHost, stream)
                          : cudaMemcpy2DAsync(on_device, device_bytes, on_host, bytes, bytes, rows,
                                              cudaMemcpyHostToDevice, stream),
                      "copy weights");
  };
  PERSIA_RETURN_IF_ERROR(copy(host.weight, device.weight, host.in, device.in, host.out));
  return copy(host.bias, device.bias, host.out, device.out, 1);
}

std::vector<NamedTensor> DeviceParameters::Tensors() {
  std::vector<NamedTensor> tensors;
  for (Values& values : values_) AppendTensors(layout_, values.suffix, values.host.span(), &tensors);
  return tensors;
}

}  // namespace persia
