// The parameters of a network as they lie on the GPU: like cpp/dense/layout.h, with every width rounded up so that
// rows start where tensor cores read fastest.
//
// What is added stays 0 for ever: weights into and out of a padding unit start at 0, its activation and its gradient are
// 0, and every optimizer leaves a parameter of 0 with gradients of 0 at 0.
//
// Thread-safety: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dense/layout.h"

namespace persia {

constexpr uint32_t kWidthStep = 16;  // 32 bytes of bf16: what a tensor-core tile wants its rows aligned to

constexpr uint32_t PadWidth(uint32_t width) { return (width + kWidthStep - 1) / kWidthStep * kWidthStep; }

struct DeviceLayer {
  uint32_t in, out;     // padded; out of the heads, the last layer, is the number of tasks
  size_t weight, bias;  // where they start in the flat arrays: weight (out, in), bias (out)
};

struct DeviceLayout {
  std::vector<DeviceLayer> layers;
  size_t size = 0;

  const DeviceLayer& heads() const { return layers.back(); }
  size_t hidden_count() const { return layers.size() - 1; }
};

inline DeviceLayout MakeDeviceLayout(const Layout& layout) {
  constexpr size_t kAlign = 128;  // elements: 256 bytes of bf16
  DeviceLayout device;
  const auto take = [&](size_t count) {
    const size_t begin = device.size;
    device.size += (count + kAlign - 1) / kAlign * kAlign;
    return begin;
  };
  for (const Layer& layer : layout.layers) {
    const bool heads = &layer == &layout.layers.back();
    DeviceLayer padded{PadWidth(layer.in), heads ? layer.out : PadWidth(layer.out), 0, 0};
    padded.weight = take(size_t{padded.in} * padded.out);
    padded.bias = take(padded.out);
    device.layers.push_back(padded);
  }
  return device;
}

}  // namespace persia
