#include "dense/layout.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace persia {
namespace {

// Lays layers out one after another.
class Builder {
 public:
  Layer Add(const std::string& name, uint64_t stream, uint32_t in, uint32_t out, bool has_bias = true) {
    const size_t weight = TakeAligned(size_t{in} * out);
    const size_t bias = TakeAligned(has_bias ? out : 0);
    return {name, in, out, stream, has_bias, weight, bias};
  }

  // Layers "<name>.0", "<name>.1", … from `in` through all of `widths`.
  std::vector<Layer> AddChain(const std::string& name, uint64_t stream, uint32_t in, std::vector<uint32_t> widths) {
    std::vector<Layer> chain;
    for (const uint32_t out : widths) {
      chain.push_back(Add(name + "." + std::to_string(chain.size()), stream + chain.size(), in, out));
      in = out;
    }
    return chain;
  }

  size_t size() const { return size_; }

 private:
  // Appends an array of `count` floats and returns where it starts.
  size_t TakeAligned(size_t count) {
    constexpr size_t kLineFloats = 16;
    const size_t begin = size_;
    size_ += (count + kLineFloats - 1) / kLineFloats * kLineFloats;
    return begin;
  }

  size_t size_ = 0;
};

// Streams of random numbers: those of the hidden layers count from 0, so that they start alike whatever lies in front.
constexpr uint64_t kInteractionStreams = uint64_t{1} << 32;

uint32_t TaskCount(const DenseModelConfig& config) { return static_cast<uint32_t>(config.tasks.size()); }

std::vector<Layer> CrossLayers(const DenseModelConfig& config, Builder& builder) {
  const uint32_t width = config.input_width(), rank = config.cross.rank;
  std::vector<Layer> layers;
  const auto add = [&](const std::string& name, uint32_t in, uint32_t out, bool has_bias) {
    layers.push_back(builder.Add(name, kInteractionStreams + layers.size(), in, out, has_bias));
  };
  for (uint32_t i = 0; i < config.cross.layers; ++i) {
    const std::string name = "cross." + std::to_string(i);
    if (rank > 0) add(name + ".v", width, rank, false);
    add(rank > 0 ? name + ".u" : name, rank > 0 ? rank : width, width, true);
  }
  if (config.cross.structure == CrossStructure::kParallel) add("cross.head", width, TaskCount(config), false);
  return layers;
}

std::vector<Layer> InteractionLayers(const DenseModelConfig& config, Builder& builder) {
  switch (config.type) {
    case ModelType::kFfnn:
      return {};
    case ModelType::kDeepFm:
      return {builder.Add("linear", kInteractionStreams, config.input_width(), TaskCount(config), false)};
    case ModelType::kDcn:
      return CrossLayers(config, builder);
    case ModelType::kDlrm: {
      if (config.dense_count == 0) return {};
      std::vector<uint32_t> widths = config.bottom;
      widths.push_back(config.fields.front().dim);
      return builder.AddChain("bottom", kInteractionStreams, config.dense_count, widths);
    }
  }
  return {};
}

template <typename Use>
void ForEachLayer(const Layout& layout, const Use& use) {
  for (const Layer& layer : layout.interaction) use(layer);
  for (const Layer& layer : layout.layers) use(layer);
}

}  // namespace

uint32_t HiddenInputWidth(const DenseModelConfig& config) {
  if (config.type != ModelType::kDlrm) return config.input_width();
  const uint32_t bottom = config.dense_count > 0 ? 1 : 0;
  const uint32_t vectors = static_cast<uint32_t>(config.fields.size()) + bottom;
  return bottom * config.fields.front().dim + vectors * (vectors - 1) / 2;
}

Layout MakeLayout(const DenseModelConfig& config) {
  Builder builder;
  Layout layout;
  layout.interaction = InteractionLayers(config, builder);
  std::vector<uint32_t> widths = config.hidden;
  widths.push_back(TaskCount(config));
  layout.layers = builder.AddChain("layer", 0, HiddenInputWidth(config), widths);
  layout.size = builder.size();
  return layout;
}

void InitialiseParameters(const Layout& layout, uint64_t seed, std::span<float> parameters) {
  ForEachLayer(layout, [&](const Layer& layer) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    Rng rng(RandomKey(seed, layer.stream));
    const auto draw = [&] { return static_cast<float>(rng.Uniform(-bound, bound)); };
    std::generate_n(parameters.data() + layer.weight, size_t{layer.in} * layer.out, draw);
    if (layer.has_bias) std::generate_n(parameters.data() + layer.bias, layer.out, draw);
  });
}

void AppendTensors(const Layout& layout, const std::string& suffix, std::span<float> flat,
                   std::vector<NamedTensor>* tensors) {
  ForEachLayer(layout, [&](const Layer& layer) {
    tensors->push_back({layer.name + ".weight" + suffix, {layer.out, layer.in},
                        flat.subspan(layer.weight, size_t{layer.out} * layer.in)});
    if (!layer.has_bias) return;
    tensors->push_back({layer.name + ".bias" + suffix, {layer.out}, flat.subspan(layer.bias, layer.out)});
  });
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
  for (; told_ + 1 < buckets_.size() && buckets_[told_].data() >= final_from; ++told_) {
    sink_->BucketReady(told_, buckets_[told_]);
  }
}

void BucketProgress::Finish() {
  FinalFrom(0);
  if (sink_ != nullptr) sink_->BucketReady(told_, buckets_[told_]);
}

}  // namespace persia
