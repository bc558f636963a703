// What hybrid gains by overlap: the same model in modes sync and hybrid over a parameter store whose lookups take as
// long as the computing of a step. sync pays for both, one after the other; hybrid for the longer one, so that 2 is the
// bound of the ratio (a little more, since applying overlaps as well). Lookups of hybrid come just in time: its lookahead
// has to find out how slow the store is. Beside it stands hybrid with lookups as early as the bound allows.
//
// The delay is a sleep, set from the computing time that is measured first. An iteration is a round of each, so
// that what disturbs the machine disturbs all. Arguments are the number of NN workers and the threads of their dense
// networks together: where those take all cores, the other stages compute at their expense.
#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "store_wrapper.h"
#include "trainer/trainer.h"

namespace persia {
namespace {

constexpr uint32_t kRows = 1024, kFeatures = 16, kDim = 16, kDense = 13;
constexpr uint64_t kStepsOfRound = 25, kStaleness = 8;
constexpr uint64_t kStepsBefore = 100;  // with the slow store, until the lookahead has settled

TrainerConfig Config(TrainerMode mode, bool just_in_time, uint32_t workers, uint32_t threads) {
  TrainerConfig config;
  std::vector<FeatureSpec> features;
  for (uint32_t f = 0; f < kFeatures; ++f) {
    features.push_back({std::to_string(f), kDim, Pooling::kSum, f, 0, 0});
  }
  config.schema = *BuildFeatureSchema(features, 8);
  config.tables.resize(1);
  config.tables[0].dim = kDim;
  config.tables[0].capacity_rows = 1'000'000;
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count = kDense;
  config.dense.hidden = {512, 256};
  config.dense.tasks = {{"click", Loss::kBce, 1.0f}};
  config.mode = mode;
  config.staleness = mode == TrainerMode::kSync ? 0 : kStaleness;
  config.just_in_time = just_in_time;
  config.nn_workers = workers;
  config.dense.threads = threads;
  return config;
}

struct Samples {
  std::vector<std::vector<uint64_t>> ids;
  std::vector<float> dense, labels;
  Batch batch;

  explicit Samples(uint64_t number) : ids(kFeatures) {
    Rng rng(RandomKey(number, 1));
    for (auto& column : ids) {
      for (uint32_t row = 0; row < kRows; ++row) column.push_back(rng.Next() % 20'000);
      batch.id_columns.push_back({{}, column});
    }
    for (uint32_t i = 0; i < kRows * kDense; ++i) dense.push_back(static_cast<float>(rng.Normal()));
    for (uint32_t row = 0; row < kRows; ++row) labels.push_back(rng.Uniform() < 0.3 ? 1.0f : 0.0f);
    batch.rows = kRows;
    batch.dense_count = kDense;
    batch.label_count = 1;
    batch.dense = dense;
    batch.labels = labels;
  }
};

class SlowStore final : public StoreWrapper {
 public:
  explicit SlowStore(const TrainerConfig& config) : StoreWrapper(config.tables) {}

  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override {
    const double seconds = delay_seconds.load();
    if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    return StoreWrapper::Lookup(id, mode, blocks);
  }

  std::atomic<double> delay_seconds{0};
};

class Run {
 public:
  Run(TrainerMode mode, bool just_in_time, uint32_t workers, uint32_t threads) {
    const TrainerConfig config = Config(mode, just_in_time, workers, threads);
    auto store = std::make_unique<SlowStore>(config);
    store_ = store.get();
    trainer_ = std::move(*Trainer::Create(config, std::move(store)));
    for (uint64_t i = 0; i < 8; ++i) samples_.push_back(std::make_shared<Samples>(i));
  }

  void set_delay(double seconds) { store_->delay_seconds = seconds; }

  // Seconds of so many steps, from an empty pipeline to an empty pipeline.
  double Train(uint64_t steps) {
    const double start = NowSeconds();
    for (uint64_t step = 0; step < steps; ++step) {
      const auto& samples = samples_[step % samples_.size()];
      std::promise<Status> accepted;
      trainer_->Push({samples, &samples->batch}, [&](Status status) { accepted.set_value(std::move(status)); });
      PERSIA_CHECK(accepted.get_future().get().ok());
    }
    std::promise<Status> drained;
    trainer_->Drain([&](Status status) { drained.set_value(std::move(status)); });
    PERSIA_CHECK(drained.get_future().get().ok());
    return NowSeconds() - start;
  }

  double mean_staleness() const {
    const std::vector<uint64_t> lookups = trainer_->progress().staleness_histogram;
    double sum = 0, count = 0;
    for (size_t behind = 0; behind < lookups.size(); ++behind) {
      sum += static_cast<double>(lookups[behind] * behind);
      count += static_cast<double>(lookups[behind]);
    }
    return sum / count;
  }

  // Of the train stages, in a step.
  double ComputeSeconds() const {
    double most = 0;
    for (const StageMeter* stage : trainer_->stages()) {
      const StageTotals totals = stage->totals();
      const double busy = totals.seconds[static_cast<size_t>(Activity::kBusy)];
      if (stage->name() == "train") most = std::max(most, busy / static_cast<double>(totals.steps));
    }
    return most;
  }

 private:
  SlowStore* store_;
  std::vector<std::shared_ptr<Samples>> samples_;
  std::unique_ptr<Trainer> trainer_;
};

void Overlap(benchmark::State& state) {
  const auto workers = static_cast<uint32_t>(state.range(0)), threads = static_cast<uint32_t>(state.range(1));
  Run sync(TrainerMode::kSync, false, workers, threads);
  Run hybrid(TrainerMode::kHybrid, true, workers, threads), eager(TrainerMode::kHybrid, false, workers, threads);
  for (Run* run : {&sync, &hybrid, &eager}) run->Train(kStepsOfRound);
  const double compute = sync.ComputeSeconds();
  for (Run* run : {&sync, &hybrid, &eager}) run->set_delay(compute);
  for (Run* run : {&hybrid, &eager}) run->Train(kStepsBefore);
  double sync_seconds = 0, hybrid_seconds = 0, eager_seconds = 0;
  for (auto _ : state) {
    const double begin = NowSeconds();
    sync_seconds += sync.Train(kStepsOfRound);
    hybrid_seconds += hybrid.Train(kStepsOfRound);
    eager_seconds += eager.Train(kStepsOfRound);
    state.SetIterationTime(NowSeconds() - begin);
  }
  const double samples = static_cast<double>(state.iterations()) * kStepsOfRound * kRows;
  state.counters["lookup_ms"] = compute * 1e3;
  state.counters["sync_samples/s"] = samples / sync_seconds;
  state.counters["hybrid_samples/s"] = samples / hybrid_seconds;
  state.counters["hybrid/sync"] = sync_seconds / hybrid_seconds;
  state.counters["eager/sync"] = sync_seconds / eager_seconds;
  state.counters["hybrid_staleness"] = hybrid.mean_staleness();
  state.counters["eager_staleness"] = eager.mean_staleness();
}
BENCHMARK(Overlap)
    ->Args({1, 1})->Args({1, 2})->Args({2, 2})
    ->ArgNames({"workers", "threads"})->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace persia
