// Where the parameters of a network lie: all in one flat array, linear layer by linear layer (weight, bias, weight,
// bias, …; each starts on a cache line), gradients and optimizer state in arrays of the same layout. So the optimizer
// is one pass and an all-reduce one message. Backward finishes gradients from the arrays' end to their start.
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
  std::string name;
  uint32_t in, out;
  uint64_t stream;  // of random numbers that its parameters start from
  bool has_bias;
  size_t weight, bias;
};

struct Layout {
  std::vector<Layer> interaction;  // in front, as dense/interaction.h says for the model's type; none for kFfnn
  std::vector<Layer> layers;       // hidden layers "layer.<l>", the last one holds the heads, one output a task
  size_t size = 0;                 // of the flat arrays, padding included
};

// The layout for a valid config.
Layout MakeLayout(const DenseModelConfig& config);

// What the hidden layers, or without any the heads, take in.
uint32_t HiddenInputWidth(const DenseModelConfig& config);

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

// Tells a sink, while backward comes down the flat array of gradients, of the buckets that are final.
//
// Thread-safety: thread-confined.
class BucketProgress {
 public:
  // `sink` may be null: then nobody is told.
  BucketProgress(std::span<const std::span<float>> buckets, GradientSink* sink) : buckets_(buckets), sink_(sink) {}

  // Gradients from `offset` to the end of the flat array are final. The last bucket waits for Finish all the same.
  void FinalFrom(size_t offset);
  // All are, and those of the embeddings too.
  void Finish();

 private:
  std::span<const std::span<float>> buckets_;
  GradientSink* sink_;
  size_t told_ = 0;
};

}  // namespace persia
