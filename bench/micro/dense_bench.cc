// The dense path at the reference benchmark's shape, in batches of 1024 and 4096; and its products alone, layer by layer
// and form by form, with their share of the FMA peak of that moment. bench/peers/ffnn_cpu.py runs DenseStep beside
// PyTorch, and FmaPeak before and after each sample as the probe of what the machine gives. PERSIA_BENCH_THREADS sets the
// threads (default: one per core).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/aligned_buffer.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "dense/product.h"
#include "reference_ffnn.h"

namespace persia {
namespace {

void DenseStep(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Bf16Unit::kNone);
  Time(state, [&] { return ffnn.ForwardBackward() && ffnn.ApplyGradients(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseStep)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseForwardBackward(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Bf16Unit::kNone);
  Time(state, [&] { return ffnn.ForwardBackward(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseForwardBackward)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseApplyGradients(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Bf16Unit::kNone);
  if (!ffnn.ForwardBackward()) return state.SkipWithError("the step failed");
  Time(state, [&] { return ffnn.ApplyGradients(); });
}
BENCHMARK(DenseApplyGradients)->ArgName("rows")->Arg(1024)->UseRealTime()->Unit(benchmark::kMillisecond);

void DensePredict(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Bf16Unit::kNone);
  Time(state, [&] { return ffnn.Predict(); });
}
BENCHMARK(DensePredict)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

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

// FLOP/s of all threads together; 0 when the CPU has no FMA.
double FmaRate(ThreadPool& pool) {
  constexpr uint32_t kRounds = 1'000'000;
  if (!HasAvx2()) return 0;
  const double start = NowSeconds();
  pool.ParallelFor(pool.threads(), [](uint32_t) { FmaChains(kRounds); });
  return 12.0 * 16.0 * kRounds * pool.threads() / (NowSeconds() - start);
}

void FmaPeak(benchmark::State& state) {
  if (!kOptimised || !HasAvx2()) return state.SkipWithError("needs an optimised build and AVX2");
  ThreadPool pool(Threads(), "fma");
  double rate = 0;
  for (auto _ : state) rate = std::max(rate, FmaRate(pool));
  state.counters["FLOP/s"] = rate;
}
BENCHMARK(FmaPeak)->UseRealTime()->Unit(benchmark::kMillisecond);

#else

double FmaRate(ThreadPool&) { return 0; }

#endif

// A product of one layer as the network runs it, without what follows it: range(0) rows, range(1) which layer, range(2)
// which form.
void DenseProduct(benchmark::State& state) {
  if (!kOptimised) return state.SkipWithError("unoptimised build: its times mean nothing");
  const auto rows = static_cast<uint32_t>(state.range(0));
  const auto layer = static_cast<size_t>(state.range(1));
  const auto form = static_cast<ProductForm>(state.range(2));
  const uint32_t in = layer == 0 ? kEmbeddingWidth + kDenseCount : kHidden[layer - 1], out = kHidden[layer];
  const uint32_t dx_columns = layer == 0 ? kEmbeddingWidth : in;
  Rng rng(1);
  AlignedBuffer<float> x(size_t{rows} * in), dy(size_t{rows} * out), weight(size_t{in} * out);
  for (auto* buffer : {&x, &dy, &weight}) {
    for (float& value : buffer->span()) value = static_cast<float>(rng.Uniform(-1, 1));
  }
  AlignedBuffer<float> result(std::max({x.size(), dy.size(), weight.size()}));
  Product product{form, in, {x.data(), in}, {weight.data(), in}, {result.data(), out}};
  uint32_t height = rows, width = out;
  if (form == ProductForm::kTn) {
    product = {form, rows, {dy.data(), out}, {x.data(), in}, {result.data(), in}};
    height = out;
    width = in;
  } else if (form == ProductForm::kNn) {
    product = {form, out, {dy.data(), out}, {weight.data(), in}, {result.data(), dx_columns}};
    width = dx_columns;
  }
  ThreadPool pool(Threads(), "bench");
  const TileGrid grid(height, width, product.inner, pool.threads());
  const auto compute_part = [&](uint32_t part) { ComputeTile(product, grid[part]); };
  const auto compute = [&] { pool.ParallelFor(grid.parts(), compute_part); };
  compute();
  const double flops = 2.0 * height * width * product.inner;
  double share = 0;
  for (auto _ : state) {
    const double before = FmaRate(pool), start = NowSeconds();
    compute();
    const double seconds = NowSeconds() - start;
    state.SetIterationTime(seconds);
    share += flops / seconds / std::max(before, FmaRate(pool));
  }
  state.SetLabel(std::to_string(in) + " -> " + std::to_string(out) +
                 (form == ProductForm::kNt ? " forward" : form == ProductForm::kTn ? " weights" : " input"));
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of FMA peak"] = share / static_cast<double>(state.iterations());
}
BENCHMARK(DenseProduct)
    ->ArgNames({"rows", "layer", "form"})
    ->ArgsProduct({{1024}, {0, 1, 2, 3, 4}, {0, 1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace persia
