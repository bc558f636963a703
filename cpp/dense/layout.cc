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

std::string_view FirstPart(std::string_view name) { return name.substr(0, name.find('.')); }

// 0 for the hidden layers and heads ("layer"); others by a hash of their name (FNV-1a), far from small numbers.
uint64_t StreamsOf(std::string_view part) {
  if (part == "layer") return 0;
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : part) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Layer Layout::Add(const std::string& name, uint32_t in, uint32_t out, bool has_bias) {
  const std::string_view part = FirstPart(name);
  const auto before = std::ranges::count_if(layers, [&](const Layer& other) { return FirstPart(other.name) == part; });
  const uint64_t stream = StreamsOf(part) + static_cast<uint64_t>(before);
  const size_t weight = TakeAligned(&size, size_t{in} * out);
  const size_t bias = TakeAligned(&size, has_bias ? out : 0);
  layers.push_back({name, in, out, stream, has_bias, weight, bias});
  return layers.back();
}

std::vector<Layer> Layout::AddChain(const std::string& name, uint32_t in, std::span<const uint32_t> widths) {
  std::vector<Layer> chain;
  for (const uint32_t out : widths) {
    chain.push_back(Add(name + "." + std::to_string(chain.size()), in, out));
    in = out;
  }
  return chain;
}

void InitialiseParameters(const Layout& layout, uint64_t seed, std::span<float> parameters) {
  for (const Layer& layer : layout.layers) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    Rng rng(RandomKey(seed, layer.stream));
    const auto draw = [&] { return static_cast<float>(rng.Uniform(-bound, bound)); };
    std::generate_n(parameters.data() + layer.weight, size_t{layer.in} * layer.out, draw);
    if (layer.has_bias) std::generate_n(parameters.data() + layer.bias, layer.out, draw);
  }
}

void AppendTensors(const Layout& layout, const std::string& suffix, std::span<float> flat,
                   std::vector<NamedTensor>* tensors) {
  for (const Layer& layer : layout.layers) {
    tensors->push_back({layer.name + ".weight" + suffix, {layer.out, layer.in},
                        flat.subspan(layer.weight, size_t{layer.in} * layer.out)});
    if (!layer.has_bias) continue;
    tensors->push_back({layer.name + ".bias" + suffix, {layer.out}, flat.subspan(layer.bias, layer.out)});
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

void BucketProgress::FinalFrom(size_t offset) {
  if (sink_ == nullptr) return;
  const float* final_from = buckets_.back().data() + offset;  // the last bucket holds the array's start
  for (; told_ < buckets_.size() && buckets_[told_].data() >= final_from; ++told_) {
    sink_->BucketReady(told_, buckets_[told_]);
  }
}

}  // namespace persia
