// The network of the reference benchmark, for micro benchmarks: 416 embedding and 13 dense inputs, five hidden layers,
// one task, Adam.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "dense/cpu_model.h"

namespace persia {

constexpr uint32_t kEmbeddingWidth = 416, kDenseCount = 13;
inline const std::vector<uint32_t> kHidden = {4096, 2048, 1024, 512, 256};

#ifdef __OPTIMIZE__
constexpr bool kOptimised = true;
#else
constexpr bool kOptimised = false;
#endif

inline uint32_t Threads() {
  const char* threads = std::getenv("PERSIA_BENCH_THREADS");
  return threads == nullptr ? 0 : static_cast<uint32_t>(std::stoul(threads));
}

// Trains and predicts on random data of state.range(0) rows.
class ReferenceFfnn {
 public:
  ReferenceFfnn(const benchmark::State& state, ProductUnit unit) : rows_(static_cast<uint32_t>(state.range(0))) {
    DenseModelConfig config;
    config.embedding_width = kEmbeddingWidth;
    config.dense_count = kDenseCount;
    config.hidden = kHidden;
    config.tasks = {{"click", Loss::kBce, 1.0f}};
    config.threads = Threads();
    model_ = std::move(*MakeCpuDenseModel(config, unit));
    Rng rng(1);
    input_.resize(size_t{rows_} * config.input_width());
    for (float& value : input_) value = static_cast<float>(rng.Normal());
    for (uint32_t i = 0; i < rows_; ++i) labels_.push_back(rng.Uniform() < 0.5 ? 0.0f : 1.0f);
    embedding_gradient_.resize(size_t{rows_} * config.embedding_width);
  }

  bool ForwardBackward() {
    return model_->ForwardBackward(rows_, input_.data(), labels_.data(), embedding_gradient_.data(), &loss_).ok();
  }
  bool ApplyGradients() { return model_->ApplyGradients(++step_).ok(); }
  bool Predict() { return model_->Predict(rows_, input_.data(), embedding_gradient_.data()).ok(); }

  // Floating-point operations of a step's products: forward, weight gradients, and input gradients without the dense
  // columns.
  double StepFlops() const {
    const auto& config = model_->config();
    double forward = 0, in = config.input_width();
    for (const uint32_t out : config.hidden) forward += 2.0 * rows_ * in * out, in = out;
    forward += 2.0 * rows_ * in;
    return 3 * forward - 2.0 * rows_ * config.dense_count * config.hidden[0];
  }

 private:
  const uint32_t rows_;
  std::unique_ptr<DenseModel> model_;
  std::vector<float> input_, labels_, embedding_gradient_;
  double loss_ = 0;
  uint64_t step_ = 0;
};

// Runs `body` once to warm up (memory is touched, buffers grow), then times it.
template <typename Body>
void Time(benchmark::State& state, Body&& body) {
  if (!kOptimised) return state.SkipWithError("unoptimised build: its times mean nothing");
  if (!body()) return state.SkipWithError("the step failed");
  for (auto _ : state) {
    if (!body()) return state.SkipWithError("the step failed");
  }
  const auto rows = static_cast<double>(state.range(0));
  state.counters["samples/s"] = benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace persia
