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

#include "base/clock.h"
#include "base/thread_pool.h"
#include "dense/bf16_tiles.h"
#include "product_bench.h"
#include "reference_ffnn.h"

namespace persia {
namespace {

ProductUnit Unit() {
  const char* named = std::getenv("PERSIA_BENCH_BF16");
  if (named == nullptr) return BestBf16Unit();
  return std::string(named) == "avx512" && HasAvx512Bf16() ? ProductUnit::kBf16Avx512 : ProductUnit::kLibrary;
}

// True when there is nothing to time.
bool Refuse(benchmark::State& state) {
  if (Unit() == ProductUnit::kLibrary) state.SkipWithError("needs a CPU with AMX-BF16 or AVX512-BF16");
  if (!kOptimised) state.SkipWithError("unoptimised build: its times mean nothing");
  state.SetLabel(ProductUnitName(Unit()));
  return Unit() == ProductUnit::kLibrary || !kOptimised;
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
    flops[part] = Unit() == ProductUnit::kBf16Amx ? AmxChains(kRounds) : Avx512Chains(4 * kRounds);
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

void DenseProductBf16(benchmark::State& state) {
  constexpr Bf16 kOne = 0x3f80;
  if (!Refuse(state)) TimePanelProduct(state, Unit(), kOne, PeakRate);
}
BENCHMARK(DenseProductBf16)->PERSIA_PRODUCTS_OF_LAYERS;

}  // namespace
}  // namespace persia
