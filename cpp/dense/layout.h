// Where the parameters of a feed-forward network lie: all in one flat array (weight, bias, weight, bias, …; each
// starts on a cache line), gradients and optimizer state in arrays of the same layout. So the optimizer is one pass
// and an all-reduce one message.
//
// Thread-safety: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dense/dense_model.h"

namespace persia {

// A linear layer and where its parameters start in the flat arrays: weight (out, in), bias (out).
struct Layer {
  uint32_t in, out;
  size_t weight, bias;
};

struct Layout {
  std::vector<Layer> layers;  // the last one holds the heads, one output a task
  size_t size = 0;            // of the flat arrays, padding included
  uint32_t widest_hidden = 0;
};

// The layout for a valid config.
Layout MakeLayout(const DenseModelConfig& config);

// Initial weights and biases as torch.nn.Linear's, uniform in ±1/sqrt(in), from (seed, layer) alone; `parameters` is
// (layout.size).
void InitialiseParameters(const Layout& layout, uint64_t seed, std::span<float> parameters);

// Names the tensors of a flat array (layout.size): "layer.0.weight" + suffix, "layer.0.bias" + suffix, …
void AppendTensors(const Layout& layout, const std::string& suffix, std::span<float> flat,
                   std::vector<NamedTensor>* tensors);

// Cuts a flat array of gradients into buckets from its end, which backward finishes first, to its start.
//
// 4 MiB a bucket: on a wire of 10 Gbit/s 3 ms, against which a message's latency is nothing, while the first bucket
// of a network of 10^7 parameters is on its way long before backward ends.
std::vector<std::span<float>> GradientBuckets(std::span<float> gradients);

}  // namespace persia
