#include "dense/layout.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace persia {
namespace {

// Appends an array of `count` floats to a flat array of *size and returns where it starts.
size_t TakeAligned(size_t* size, size_t count) {
  constexpr size_t kLineFloats = 16;
  const size_t begin = *size;
  *size += (count + kLineFloats - 1) / kLineFloats * kLineFloats;
  return begin;
}

}  // namespace

Layout MakeLayout(const DenseModelConfig& config) {
  Layout layout;
  std::vector<uint32_t> widths = config.hidden;
  widths.push_back(static_cast<uint32_t>(config.tasks.size()));
  uint32_t in = config.input_width();
  for (const uint32_t out : widths) {
    const size_t weight = TakeAligned(&layout.size, size_t{in} * out);
    const size_t bias = TakeAligned(&layout.size, out);
    layout.layers.push_back({in, out, weight, bias});
    in = out;
  }
  for (const uint32_t width : config.hidden) layout.widest_hidden = std::max(layout.widest_hidden, width);
  return layout;
}

void InitialiseParameters(const Layout& layout, uint64_t seed, std::span<float> parameters) {
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    const Layer& layer = layout.layers[i];
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    Rng rng(RandomKey(seed, i));
    const auto draw = [&] { return static_cast<float>(rng.Uniform(-bound, bound)); };
    std::generate_n(parameters.data() + layer.weight, size_t{layer.in} * layer.out, draw);
    std::generate_n(parameters.data() + layer.bias, layer.out, draw);
  }
}

void AppendTensors(const Layout& layout, const std::string& suffix, std::span<float> flat,
                   std::vector<NamedTensor>* tensors) {
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    const Layer& layer = layout.layers[i];
    const std::string name = "layer." + std::to_string(i);
    tensors->push_back({name + ".weight" + suffix, {layer.out, layer.in},
                        flat.subspan(layer.weight, size_t{layer.out} * layer.in)});
    tensors->push_back({name + ".bias" + suffix, {layer.out}, flat.subspan(layer.bias, layer.out)});
  }
}

std::vector<std::span<float>> GradientBuckets(std::span<float> gradients) {
  constexpr size_t kBucket = (size_t{4} << 20) / sizeof(float);
  std::vector<std::span<float>> buckets;
  while (!gradients.empty()) {
    const size_t count = std::min(kBucket, gradients.size());
    buckets.push_back(gradients.last(count));
    gradients = gradients.first(gradients.size() - count);
  }
  return buckets;
}

}  // namespace persia
