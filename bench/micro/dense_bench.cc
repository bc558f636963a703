// The dense path at the reference benchmark's shape: 416 embedding and 13 dense inputs, five hidden layers, one task, batch
// 1024, Adam. bench/peers/ffnn_cpu.py runs DenseStep beside PyTorch. PERSIA_BENCH_THREADS sets the threads (default: all).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "dense/dense_model.h"

namespace persia {
namespace {

constexpr uint32_t kRows = 1024;

#ifdef __OPTIMIZE__
constexpr bool kOptimised = true;
#else
constexpr bool kOptimised = false;
#endif

class ReferenceFfnn {
 public:
  ReferenceFfnn() {
    DenseModelConfig config;
    config.embedding_width = 416;
    config.dense_count = 13;
    config.hidden = {4096, 2048, 1024, 512, 256};
    config.tasks = {{"click", Loss::kBce, 1.0f}};
    const char* threads = std::getenv("PERSIA_BENCH_THREADS");
    config.threads = threads == nullptr ? 0 : static_cast<uint32_t>(std::stoul(threads));
    model_ = std::move(*MakeCpuDenseModel(config));
    Rng rng(1);
    for (uint32_t i = 0; i < kRows * config.input_width(); ++i) input_.push_back(static_cast<float>(rng.Normal()));
    for (uint32_t i = 0; i < kRows; ++i) labels_.push_back(rng.Uniform() < 0.5 ? 0.0f : 1.0f);
    embedding_gradient_.resize(size_t{kRows} * config.embedding_width);
  }

  bool ForwardBackward() {
    return model_->ForwardBackward(kRows, input_.data(), labels_.data(), embedding_gradient_.data(), &loss_).ok();
  }
  bool ApplyGradients() { return model_->ApplyGradients(++step_).ok(); }
  bool Predict() { return model_->Predict(kRows, input_.data(), embedding_gradient_.data()).ok(); }

  // Floating-point operations of a step's products: forward, weight gradients, and input gradients without the dense columns.
  double StepFlops() const {
    const auto& config = model_->config();
    double forward = 0, in = config.input_width();
    for (const uint32_t out : config.hidden) forward += 2.0 * kRows * in * out, in = out;
    forward += 2.0 * kRows * in;
    return 3 * forward - 2.0 * kRows * config.dense_count * config.hidden[0];
  }

 private:
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
  state.counters["samples/s"] = benchmark::Counter(kRows, benchmark::Counter::kIsIterationInvariantRate);
}

void DenseStep(benchmark::State& state) {
  ReferenceFfnn ffnn;
  Time(state, [&] { return ffnn.ForwardBackward() && ffnn.ApplyGradients(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseStep)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseForwardBackward(benchmark::State& state) {
  ReferenceFfnn ffnn;
  Time(state, [&] { return ffnn.ForwardBackward(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseForwardBackward)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseApplyGradients(benchmark::State& state) {
  ReferenceFfnn ffnn;
  if (!ffnn.ForwardBackward()) return state.SkipWithError("the step failed");
  Time(state, [&] { return ffnn.ApplyGradients(); });
}
BENCHMARK(DenseApplyGradients)->UseRealTime()->Unit(benchmark::kMillisecond);

void DensePredict(benchmark::State& state) {
  ReferenceFfnn ffnn;
  Time(state, [&] { return ffnn.Predict(); });
}
BENCHMARK(DensePredict)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace persia
