// The embedding path's inner loops: table lookups and updates over a million rows, and the preparation of a batch.
//
// The physical bound of the table's figures is random access to memory: a lookup touches a line of the index and the
// row's embedding, an update the index and the row with its state (2 cache lines at dim 16 with Adagrad). bench/table
// measures the table beside that bound and other maps.
#ifndef __OPTIMIZE__
#error "Benchmarks of an unoptimised build say nothing: use the release preset."
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "batch/batch.h"
#include "store/local_store.h"
#include "table/table.h"
#include "worker/embedding_worker.h"

namespace persia {
namespace {

constexpr uint32_t kDim = 16;
constexpr uint64_t kRows = 1000000;
constexpr size_t kCallSigns = 16384;
constexpr size_t kCalls = 32;  // calls cycle through half of the rows, far more than any cache holds

// A table of a million rows and calls of distinct random signs in it.
struct TableFixture {
  TableFixture()
      : table({.dim = kDim, .optimizer = {}, .initializer = {}, .seed = 7, .capacity_rows = 2 * kRows}),
        values(kCallSigns * kDim) {
    std::vector<uint64_t> all(kRows);
    for (uint64_t i = 0; i < kRows; ++i) all[i] = Mix64(i + 1);
    Rng rng(1);
    for (size_t i = kRows - 1; i > 0; --i) std::swap(all[i], all[rng.Next() % (i + 1)]);
    for (size_t i = 0; i < kRows; i += kCallSigns) {
      const std::span<const uint64_t> signs(&all[i], std::min<size_t>(kCallSigns, kRows - i));
      table.Gather(signs, LookupMode::kTrain, 0, values.data());
    }
    for (size_t i = kRows - 1; i > 0; --i) std::swap(all[i], all[rng.Next() % (i + 1)]);
    calls.assign(all.begin(), all.begin() + kCalls * kCallSigns);
    std::fill_n(values.data(), values.size(), 0.01f);
  }

  std::span<const uint64_t> NextCall() {
    next = (next + 1) % kCalls;
    return {&calls[next * kCallSigns], kCallSigns};
  }

  static TableFixture& Get() {
    static TableFixture fixture;
    return fixture;
  }

  Table table;
  std::vector<uint64_t> calls;
  AlignedBuffer<float> values;
  size_t next = 0;
};

void BM_GatherReadOnly(benchmark::State& state) {
  TableFixture& f = TableFixture::Get();
  for (auto _ : state) f.table.Gather(f.NextCall(), LookupMode::kReadOnly, 0, f.values.data());
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kCallSigns));
}
BENCHMARK(BM_GatherReadOnly)->Unit(benchmark::kMillisecond);

void BM_GatherTrain(benchmark::State& state) {
  TableFixture& f = TableFixture::Get();
  for (auto _ : state) f.table.Gather(f.NextCall(), LookupMode::kTrain, 0, f.values.data());
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kCallSigns));
}
BENCHMARK(BM_GatherTrain)->Unit(benchmark::kMillisecond);

void BM_GatherAndApply(benchmark::State& state) {
  TableFixture& f = TableFixture::Get();
  for (auto _ : state) {
    const auto signs = f.NextCall();
    f.table.Gather(signs, LookupMode::kTrain, 0, f.values.data());
    f.table.Apply(signs, f.values.data(), 0);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kCallSigns));
}
BENCHMARK(BM_GatherAndApply)->Unit(benchmark::kMillisecond);

// 26 features of one id a sample, with 10 to 1e6 values each and the small ones frequent, as click logs have them.
void BM_PrepareBatch(benchmark::State& state) {
  constexpr uint32_t kFeatures = 26;
  const auto samples = static_cast<uint32_t>(state.range(0));
  std::vector<FeatureSpec> specs(kFeatures);
  for (uint32_t f = 0; f < kFeatures; ++f) specs[f] = {.name = "f", .dim = kDim, .group = f};
  const FeatureSchema schema = BuildFeatureSchema(specs, 8).value();
  LocalStore store({{.dim = kDim, .optimizer = {}, .initializer = {}, .capacity_rows = 1}});
  const EmbeddingWorker worker(schema, store);

  std::vector<uint64_t> ids(size_t{kFeatures} * samples);
  Rng rng(3);
  for (size_t i = 0; i < ids.size(); ++i) {
    const double values = std::pow(10.0, 1 + i / samples % 6), u = rng.Uniform();
    ids[i] = Mix64(static_cast<uint64_t>(u * u * u * values));
  }
  Batch batch;
  batch.rows = samples;
  for (uint32_t f = 0; f < kFeatures; ++f) batch.id_columns.push_back({{}, {&ids[size_t{f} * samples], samples}});

  EmbeddingPlan plan;
  for (auto _ : state) worker.Prepare(batch, plan);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
  state.counters["distinct"] = plan.classes[0].distinct;
}
BENCHMARK(BM_PrepareBatch)->Arg(1024)->Arg(16384)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace persia
