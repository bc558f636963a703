// The dense path at the reference benchmark's shape: 416 embedding and 13 dense inputs, five hidden layers, one task,
// batch 1024, Adam. bench/peers/ffnn_cpu.py runs DenseStep beside PyTorch, and FmaPeak before and after each sample
// as the probe of what the machine gives at that moment. PERSIA_BENCH_THREADS sets the threads (default: one per
// core).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "dense/dense_model.h"

namespace persia {
namespace {

constexpr uint32_t kRows = 1024;

#ifdef __OPTIMIZE__
constexpr bool kOptimised = true;
#else
constexpr bool kOptimised = false;
#endif

uint32_t Threads() {
  const char* threads = std::getenv("PERSIA_BENCH_THREADS");
  return threads == nullptr ? 0 : static_cast<uint32_t>(std::stoul(threads));
}

class ReferenceFfnn {
 public:
  ReferenceFfnn() {
    DenseModelConfig config;
    config.embedding_width = 416;
    config.dense_count = 13;
    config.hidden = {4096, 2048, 1024, 512, 256};
    config.tasks = {{"click", Loss::kBce, 1.0f}};
    config.threads = Threads();
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

  // Floating-point operations of a step's products: forward, weight gradients, and input gradients without the dense
  // columns.
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

#if defined(__x86_64__)

// Twelve independent chains keep both FMA units of a core busy: the most that any product can reach.
PERSIA_TARGET_AVX2 void FmaChains(uint32_t rounds) {
  __m256 sums[12];
  for (__m256& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(0.001f);
  for (uint32_t round = 0; round < rounds; ++round) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, addend);
  }
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
}

void FmaPeak(benchmark::State& state) {
  if (!kOptimised || !HasAvx2()) return state.SkipWithError("needs an optimised build and AVX2");
  constexpr uint32_t kRounds = 1'000'000;
  ThreadPool pool(Threads(), "fma");
  for (auto _ : state) pool.ParallelFor(pool.threads(), [](uint32_t) { FmaChains(kRounds); });
  const double flops = 12.0 * 16.0 * kRounds * pool.threads();
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(FmaPeak)->UseRealTime()->Unit(benchmark::kMillisecond);

#endif

}  // namespace
}  // namespace persia
