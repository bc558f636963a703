// A training step of each model type at one shape: 26 fields of dim 16 and 13 dense inputs, hidden layers 1024-512-256,
// one task, Adam. bench/peers/model_types_cpu.py runs these beside PyTorch. PERSIA_BENCH_THREADS sets the threads
// (default: one per core).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "dense/dense_model.h"

namespace persia {
namespace {

#ifdef __OPTIMIZE__
constexpr bool kOptimised = true;
#else
constexpr bool kOptimised = false;
#endif

DenseModelConfig Config(ModelType type, CrossConfig cross) {
  const char* threads = std::getenv("PERSIA_BENCH_THREADS");
  DenseModelConfig config;
  config.type = type;
  config.fields.assign(26, {"field", 16});
  config.embedding_width = 26 * 16;
  config.dense_count = 13;
  config.hidden = {1024, 512, 256};
  config.cross = cross;
  config.bottom = {512, 256};
  config.tasks = {{"click", Loss::kBce, 1.0f}};
  config.threads = threads == nullptr ? 0 : static_cast<uint32_t>(std::stoul(threads));
  return config;
}

void DenseTypeStep(benchmark::State& state, ModelType type, CrossConfig cross) {
  if (!kOptimised) return state.SkipWithError("unoptimised build: its times mean nothing");
  const DenseModelConfig config = Config(type, cross);
  const auto rows = static_cast<uint32_t>(state.range(0));
  const std::unique_ptr<DenseModel> model = std::move(*MakeCpuDenseModel(config));
  Rng rng(1);
  std::vector<float> input(size_t{rows} * config.input_width()), labels(rows);
  std::vector<float> embedding_gradient(size_t{rows} * config.embedding_width);
  for (float& value : input) value = static_cast<float>(0.1 * rng.Normal());
  for (float& label : labels) label = rng.Uniform() < 0.5 ? 0.0f : 1.0f;
  double loss = 0;
  uint64_t number = 0;
  const auto step = [&] {
    return model->ForwardBackward(rows, input.data(), labels.data(), embedding_gradient.data(), &loss).ok() &&
           model->ApplyGradients(++number).ok();
  };
  bool good = step();  // memory is touched, buffers grow
  for (auto _ : state) good = step() && good;
  if (!good) return state.SkipWithError("a step failed");
  state.counters["samples/s"] = benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
}

#define PERSIA_BENCHMARK_TYPE(name, ...) \
  BENCHMARK_CAPTURE(DenseTypeStep, name, __VA_ARGS__)->ArgName("rows")->Arg(1024)->UseRealTime()->Unit( \
      benchmark::kMillisecond)

PERSIA_BENCHMARK_TYPE(ffnn, ModelType::kFfnn, {});
PERSIA_BENCHMARK_TYPE(deepfm, ModelType::kDeepFm, {});
PERSIA_BENCHMARK_TYPE(dcn, ModelType::kDcn, {3, 0, CrossStructure::kParallel});
PERSIA_BENCHMARK_TYPE(dcn_low_rank, ModelType::kDcn, {3, 64, CrossStructure::kStacked});
PERSIA_BENCHMARK_TYPE(dlrm, ModelType::kDlrm, {});

}  // namespace
}  // namespace persia
