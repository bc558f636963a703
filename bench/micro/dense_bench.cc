// The dense path at the reference benchmark's shape, in batches of 1024 and 4096; and its products alone, layer by
// layer and form by form, by OpenBLAS and by own kernels, with their share of the FMA peak of that moment.
// bench/peers/ffnn_cpu.py runs DenseStep beside PyTorch, and FmaPeak before and after each sample as the probe of what
// the machine gives. PERSIA_BENCH_THREADS sets the threads (default: one per core), PERSIA_BENCH_FP32=library has
// OpenBLAS multiply where own kernels would.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <string>
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
#include "product_bench.h"
#include "reference_ffnn.h"

namespace persia {
namespace {

ProductUnit Fp32Unit() {
  const char* named = std::getenv("PERSIA_BENCH_FP32");
  return named != nullptr && std::string(named) == "library" ? ProductUnit::kLibrary : BestFp32Unit();
}

void DenseStep(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Fp32Unit());
  Time(state, [&] { return ffnn.ForwardBackward() && ffnn.ApplyGradients(); });
  state.SetLabel(ProductUnitName(Fp32Unit()));
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseStep)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseForwardBackward(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Fp32Unit());
  Time(state, [&] { return ffnn.ForwardBackward(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseForwardBackward)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

void DenseApplyGradients(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Fp32Unit());
  if (!ffnn.ForwardBackward()) return state.SkipWithError("the step failed");
  Time(state, [&] { return ffnn.ApplyGradients(); });
}
BENCHMARK(DenseApplyGradients)->ArgName("rows")->Arg(1024)->UseRealTime()->Unit(benchmark::kMillisecond);

void DensePredict(benchmark::State& state) {
  ReferenceFfnn ffnn(state, Fp32Unit());
  Time(state, [&] { return ffnn.Predict(); });
}
BENCHMARK(DensePredict)->ArgName("rows")->Arg(1)->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

#if defined(__x86_64__)

// Twelve independent chains keep both FMA units of a core busy: the most that any product can reach.
constexpr uint32_t kChains = 12;

PERSIA_TARGET_AVX2 void FmaChainsAvx2(uint32_t rounds) {
  __m256 sums[kChains];
  for (__m256& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(0.001f);
  for (uint32_t round = 0; round < rounds; ++round) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, addend);
  }
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
}

PERSIA_TARGET_AVX512 void FmaChainsAvx512(uint32_t rounds) {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.999f), addend = _mm512_set1_ps(0.001f);
  for (uint32_t round = 0; round < rounds; ++round) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, factor, addend);
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}

// FLOP/s of all threads together, in the widest vectors; 0 when the CPU has no FMA.
double FmaRate(ThreadPool& pool) {
  constexpr uint32_t kRounds = 1'000'000;
  if (!HasAvx2()) return 0;
  const bool wide = BestSimd() == SimdLevel::kAvx512;
  const double start = NowSeconds();
  pool.ParallelFor(pool.threads(), [&](uint32_t) { wide ? FmaChainsAvx512(kRounds) : FmaChainsAvx2(kRounds); });
  return 2.0 * kChains * (wide ? 16 : 8) * kRounds * pool.threads() / (NowSeconds() - start);
}

void FmaPeak(benchmark::State& state) {
  if (!kOptimised || !HasAvx2()) return state.SkipWithError("needs an optimised build and AVX2");
  ThreadPool pool(Threads(), "fma");
  double rate = 0;
  for (auto _ : state) rate = std::max(rate, FmaRate(pool));
  state.SetLabel(std::string(ProductKernels()) + " kernels");
  state.counters["FLOP/s"] = rate;
}
BENCHMARK(FmaPeak)->UseRealTime()->Unit(benchmark::kMillisecond);

#else

double FmaRate(ThreadPool&) { return 0; }

#endif

// A product of one layer as the network runs it, without what follows it.
void DenseProduct(benchmark::State& state) {
  if (!kOptimised) return state.SkipWithError("unoptimised build: its times mean nothing");
  const LayerProduct layer = LayerProductOf(state);
  const auto& [rows, in, out, index, form, height, width, terms] = layer;
  Rng rng(1);
  AlignedBuffer<float> x(size_t{rows} * in), dy(size_t{rows} * out), weight(size_t{in} * out);
  for (auto* buffer : {&x, &dy, &weight}) {
    for (float& value : buffer->span()) value = static_cast<float>(rng.Uniform(-1, 1));
  }
  AlignedBuffer<float> result(size_t{height} * width);
  Product product{form, terms, {x.data(), in}, {weight.data(), in}, {result.data(), width}};
  if (form == ProductForm::kTn) product = {form, terms, {dy.data(), out}, {x.data(), in}, {result.data(), width}};
  if (form == ProductForm::kNn) product = {form, terms, {dy.data(), out}, {weight.data(), in}, {result.data(), width}};
  ThreadPool pool(Threads(), "bench");
  const TileGrid grid(height, width, terms, pool.threads());
  const auto compute_part = [&](uint32_t part) { ComputeTile(product, grid[part]); };
  const auto compute = [&] { pool.ParallelFor(grid.parts(), compute_part); };
  compute();
  TimeProduct(state, layer, compute, [&] { return FmaRate(pool); });
  state.SetLabel(layer.name() + ", " + std::string(ProductKernels()));
}
BENCHMARK(DenseProduct)->PERSIA_PRODUCTS_OF_LAYERS;

// The same by own kernels, of packed operands.
void DensePanelProduct(benchmark::State& state) {
  if (!kOptimised || Fp32Unit() == ProductUnit::kLibrary) {
    return state.SkipWithError("needs an optimised build and AVX-512");
  }
  TimePanelProduct(state, Fp32Unit(), 1.0f, FmaRate);
}
BENCHMARK(DensePanelProduct)->PERSIA_PRODUCTS_OF_LAYERS;

}  // namespace
}  // namespace persia
