// The dense path in bf16 at the reference benchmark's shape, and its products alone with their share of the peak of
// that moment: the same unit multiplying in registers. bench/peers/ffnn_cpu.py --precision bf16 runs DenseStepBf16 beside
// PyTorch, and Bf16Peak before and after each sample. Takes the best unit that the CPU has; PERSIA_BENCH_BF16=avx512
// takes AVX512-BF16.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/aligned_buffer.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "dense/bf16_kernels.h"
#include "dense/bf16_tiles.h"
#include "dense/panel_grid.h"
#include "reference_ffnn.h"

namespace persia {
namespace {

Bf16Unit Unit() {
  const char* named = std::getenv("PERSIA_BENCH_BF16");
  if (named == nullptr) return BestBf16Unit();
  return std::string(named) == "avx512" && HasAvx512Bf16() ? Bf16Unit::kAvx512 : Bf16Unit::kNone;
}

// True when there is nothing to time.
bool Refuse(benchmark::State& state) {
  if (Unit() == Bf16Unit::kNone) state.SkipWithError("needs a CPU with AMX-BF16 or AVX512-BF16");
  if (!kOptimised) state.SkipWithError("unoptimised build: its times mean nothing");
  state.SetLabel(Bf16UnitName(Unit()));
  return Unit() == Bf16Unit::kNone || !kOptimised;
}

void DenseStepBf16(benchmark::State& state) {
  if (Refuse(state)) return;
  ReferenceFfnn ffnn(state, Unit());
  Time(state, [&] { return ffnn.ForwardBackward() && ffnn.ApplyGradients(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseStepBf16)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

// The weights stay the same: without the packing of weights, which the step has besides.
void DenseForwardBackwardBf16(benchmark::State& state) {
  if (Refuse(state)) return;
  ReferenceFfnn ffnn(state, Unit());
  Time(state, [&] { return ffnn.ForwardBackward(); });
  state.counters["FLOP/s"] = benchmark::Counter(ffnn.StepFlops(), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(DenseForwardBackwardBf16)
    ->ArgName("rows")
    ->Arg(1024)
    ->Arg(4096)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void DensePredictBf16(benchmark::State& state) {
  if (Refuse(state)) return;
  ReferenceFfnn ffnn(state, Unit());
  Time(state, [&] { return ffnn.Predict(); });
}
BENCHMARK(DensePredictBf16)->ArgName("rows")->Arg(1024)->Arg(4096)->UseRealTime()->Unit(benchmark::kMillisecond);

#if defined(__x86_64__)

// Four sums, as many as the kernels have.
PERSIA_TARGET_AMX double AmxChains(uint32_t rounds) {
  alignas(64) static constexpr Bf16 kZeros[kBlock / 2] = {};
  AmxTiles::Configure();
  AmxTiles tiles;
  tiles.Zero<0>();
  tiles.Zero<1>();
  tiles.Zero<2>();
  tiles.Zero<3>();
  tiles.Load<4>(kZeros, 64);
  tiles.Load<5>(kZeros, 64);
  tiles.Load<6>(kZeros, 64);
  tiles.Load<7>(kZeros, 64);
  for (uint32_t round = 0; round < rounds; ++round) {
    tiles.Dot<0, 4, 6>();
    tiles.Dot<1, 4, 7>();
    tiles.Dot<2, 5, 6>();
    tiles.Dot<3, 5, 7>();
  }
  AmxTiles::Release();
  return 4.0 * 2 * 16 * 16 * 32 * rounds;
}

PERSIA_TARGET_AVX512BF16 double Avx512Chains(uint32_t rounds) {
  __m512 sums[16];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512i factors = _mm512_setzero_si512();
  benchmark::DoNotOptimize(factors);
  const auto pairs = reinterpret_cast<__m512bh>(factors);
  for (uint32_t round = 0; round < rounds; ++round) {
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, pairs, pairs);
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
  return 16.0 * 2 * 32 * rounds;
}

// FLOP/s of all threads together.
double PeakRate(ThreadPool& pool) {
  constexpr uint32_t kRounds = 100'000;
  std::vector<double> flops(pool.threads());
  const double start = NowSeconds();
  pool.ParallelFor(pool.threads(), [&](uint32_t part) {
    flops[part] = Unit() == Bf16Unit::kAmx ? AmxChains(kRounds) : Avx512Chains(4 * kRounds);
  });
  const double seconds = NowSeconds() - start;
  double sum = 0;
  for (const double part : flops) sum += part;
  return sum / seconds;
}

#else

double PeakRate(ThreadPool&) { return 0; }

#endif

void Bf16Peak(benchmark::State& state) {
  if (Refuse(state)) return;
  ThreadPool pool(Threads(), "peak");
  double rate = 0;
  for (auto _ : state) rate = std::max(rate, PeakRate(pool));
  state.counters["FLOP/s"] = rate;
}
BENCHMARK(Bf16Peak)->UseRealTime()->Unit(benchmark::kMillisecond);

PackedMatrix Ones(uint32_t panels, uint32_t steps) {
  constexpr Bf16 kOne = 0x3f80;
  PackedMatrix matrix;
  matrix.Resize(panels, steps);
  for (uint32_t panel = 0; panel < panels; ++panel) std::fill_n(matrix.view().block(panel, 0), steps * kBlock, kOne);
  return matrix;
}

// A product of one layer as the network runs it, stored in float32: range(0) rows, range(1) which layer, range(2) which
// form.
void DenseProductBf16(benchmark::State& state) {
  if (Refuse(state)) return;
  const auto rows = static_cast<uint32_t>(state.range(0));
  const auto layer = static_cast<size_t>(state.range(1));
  const auto form = static_cast<ProductForm>(state.range(2));
  const uint32_t in = layer == 0 ? kEmbeddingWidth + kDenseCount : kHidden[layer - 1], out = kHidden[layer];
  uint32_t height = rows, width = out, terms = in;
  if (form == ProductForm::kTn) height = out, width = in, terms = rows;
  if (form == ProductForm::kNn) width = layer == 0 ? kEmbeddingWidth : in, terms = out;
  PackedMatrix left = Ones(PanelCount(height), PanelCount(terms)), right = Ones(PanelCount(width), PanelCount(terms));
  AlignedBuffer<float> result(size_t{height} * width);
  const Bf16Product product{left.view(), right.view(), PanelCount(terms),
                            {.kind = Finish::Kind::kStore, .columns = width, .out = {result.data(), width},
                             .rows = height}};
  ThreadPool pool(Threads(), "bench");
  const PanelGrid grid(PanelCount(height), PanelCount(width), product.steps, pool.threads());
  const auto compute = [&] {
    pool.ParallelFor(grid.parts(), [&](uint32_t part) { MultiplyPanels(Unit(), product, grid[part]); });
  };
  compute();
  if (result[0] != static_cast<float>(product.steps * kPanel)) return state.SkipWithError("the product is wrong");
  const double flops = 2.0 * height * width * terms;
  double share = 0;
  for (auto _ : state) {
    const double before = PeakRate(pool), start = NowSeconds();
    compute();
    const double seconds = NowSeconds() - start;
    state.SetIterationTime(seconds);
    share += flops / seconds / std::max(before, PeakRate(pool));
  }
  state.SetLabel(std::to_string(in) + " -> " + std::to_string(out) +
                 (form == ProductForm::kNt ? " forward" : form == ProductForm::kTn ? " weights" : " input") + ", " +
                 Bf16UnitName(Unit()));
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of peak"] = share / static_cast<double>(state.iterations());
}
BENCHMARK(DenseProductBf16)
    ->ArgNames({"rows", "layer", "form"})
    ->ArgsProduct({{1024}, {0, 1, 2, 3, 4}, {0, 1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace persia
