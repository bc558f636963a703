// Several NN workers and the modes: equality with one worker, determinism, checkpoints, the bound, failure.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "store_wrapper.h"
#include "trainer_fixtures.h"

namespace persia {
namespace {

// Largest difference of any weight or optimizer state, of the dense network and of the rows.
double FarthestModel(Trainer& a, Trainer& b) {
  return std::max(Farthest(DenseOf(a.dense_model(0)), DenseOf(b.dense_model(0))), FarthestRows(a, b));
}

// A trainer at rest after steps of all sizes.
std::unique_ptr<Trainer> TrainedSizes(const TrainerConfig& config, uint64_t steps) {
  auto trainer = Make(config);
  TrainSizes(*trainer, 1, steps);
  Rest(*trainer);
  return trainer;
}

}  // namespace

TEST_CASE("n workers train like one that gets the whole batches, whatever their sizes, and stay identical") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid}) {
    const auto alone = TrainedSizes(WorkersConfig(mode, 1), 30);
    for (const uint32_t workers : {2u, 3u, 5u}) {
      CAPTURE(workers);
      const auto together = TrainedSizes(WorkersConfig(mode, workers), 30);
      CHECK(FarthestModel(*alone, *together) < 1e-5);
      for (uint32_t rank = 1; rank < workers; ++rank) {
        CHECK(DenseOf(together->dense_model(rank)) == DenseOf(together->dense_model(0)));
      }
      const TrainerProgress one = alone->progress(), all = together->progress();
      CHECK(all.steps == 30);
      CHECK(all.samples == one.samples);
      CHECK(all.loss_steps == doctest::Approx(30));
      CHECK(all.loss_sum == doctest::Approx(one.loss_sum).epsilon(1e-5));
    }
  }
}

TEST_CASE("n workers admit new ids by chance as one does that gets the whole batches") {
  TrainerConfig config = WorkersConfig(TrainerMode::kSync, 1);
  for (TableOptions& table : config.tables) table.admit_probability = 0.3;
  const auto alone = TrainedSizes(config, 20);
  config.nn_workers = 3;
  CHECK(FarthestModel(*alone, *TrainedSizes(config, 20)) < 1e-5);
}

TEST_CASE("replicas that do not fit into memory together are refused before any is made") {
  TrainerConfig config = WorkersConfig(TrainerMode::kSync, 1);
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const auto width = static_cast<uint32_t>(std::sqrt(0.6 * memory / sizeof(float) / 4));  // with Adam's state
  config.dense.hidden = {width, width};
  config.nn_workers = 2;
  CHECK(Trainer::Create(config).status().code() == ErrorCode::kOutOfMemory);
}

TEST_CASE("a schedule goes by steps in every mode, also where async made more updates before") {
  TrainerConfig config = WorkersConfig(TrainerMode::kAsync, 4, false);
  config.dense.schedule = {.type = ScheduleType::kLinear, .total_steps = 20, .final_factor = 0.0};
  const auto first = TrainedSizes(config, 10);  // up to 40 updates
  Saved saved(*first);
  config.mode = TrainerMode::kHybrid;
  auto second = Make(config);
  REQUIRE(second->Restore(saved.path, saved.files).ok());
  TrainSizes(*second, 11, 12);
  Rest(*second);
  CHECK(Farthest(DenseOf(first->dense_model(0)), DenseOf(second->dense_model(0))) > 1e-4);
}

TEST_CASE("a batch trained in pieces is trained like a whole one, by one worker and by several") {
  const auto whole = TrainedSizes(WorkersConfig(TrainerMode::kSync, 1), 30);
  for (const uint32_t workers : {1u, 2u}) {
    for (const uint32_t pieces : {2u, 5u}) {
      TrainerConfig config = WorkersConfig(TrainerMode::kSync, workers);
      config.accumulate = pieces;
      CHECK(FarthestModel(*whole, *TrainedSizes(config, 30)) < 1e-5);
    }
  }
}

TEST_CASE("gradients of rows are clipped by their norm over a whole step, however many workers share it") {
  TrainerConfig config = WorkersConfig(TrainerMode::kSync, 1);
  for (TableOptions& table : config.tables) table.optimizer.type = RowOptimizerType::kSgd;
  const auto unbounded = TrainedSizes(config, 20);
  config.schema.clip_norm = 1e-3f;
  const auto clipped = TrainedSizes(config, 20);
  CHECK(FarthestModel(*unbounded, *clipped) > 1e-4);
  config.nn_workers = 3;
  CHECK(FarthestModel(*clipped, *TrainedSizes(config, 20)) < 1e-6);
}

TEST_CASE("rows of frozen features stay as they were made, and those of other features train as with one worker") {
  TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, 1);
  std::vector<FeatureSpec> features = config.schema.features;
  features[0].frozen = features[3].frozen = true;
  config.schema = *BuildFeatureSchema(features, 8);
  const auto alone = TrainedSizes(config, 20);
  config.nn_workers = 3;
  CHECK(FarthestModel(*alone, *TrainedSizes(config, 20)) < 1e-5);
}

TEST_CASE("deterministic runs of several workers end in the same bytes, with evictions too") {
  for (const uint64_t capacity : {uint64_t{10'000}, uint64_t{40}}) {
    for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid}) {
      TrainerConfig config = WorkersConfig(mode, 3);
      for (TableOptions& table : config.tables) table.capacity_rows = capacity;
      std::map<std::string, uint64_t> first;
      for (int run = 0; run < 3; ++run) {
        auto trainer = Make(config);
        TrainSizes(*trainer, 1, 40);
        const auto state = FinalState(*trainer);
        if (run == 0) first = state;
        CHECK(state == first);
      }
    }
  }
}

TEST_CASE("several workers that were saved in the middle go on like those that were not") {
  for (const uint32_t workers : {2u, 3u}) {
    const TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, workers);
    auto undisturbed = Make(config);
    TrainSizes(*undisturbed, 1, 24);
    const auto expected = FinalState(*undisturbed);
    for (uint64_t stop : {1, 7, 23}) {
      const auto batch = [](uint64_t step) { return SizedBatch(step); };
      CheckSavedInTheMiddle(config, batch, stop, 24, expected);
    }
  }
}

TEST_CASE("a checkpoint of several workers is gone on with by another number of them, on the same batches only") {
  const TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, 3);
  const auto undisturbed = TrainedSizes(config, 24);
  auto first = Make(config);
  Waiter paused;
  first->Pause(10, paused.completion());
  for (uint64_t step = 1; step <= 24; ++step) {
    first->Push(SizedBatch(step), [](Status) {});
  }
  REQUIRE(paused.Wait().ok());
  Saved saved(*first);
  for (const uint32_t workers : {1u, 2u, 4u}) {
    auto second = Make(WorkersConfig(TrainerMode::kHybrid, workers));
    REQUIRE(second->Restore(saved.path, saved.files).ok());
    TrainSizes(*second, 11, 24);
    Rest(*second);
    CHECK(FarthestModel(*undisturbed, *second) < 1e-5);
  }
  auto other = Make(WorkersConfig(TrainerMode::kHybrid, 2));
  REQUIRE(other->Restore(saved.path, saved.files).ok());
  other->Push(MakeBatch(11, 50, 128), [](Status) {});
  const Status status = DrainAndWait(*other);
  CHECK(status.code() == ErrorCode::kCheckpointMismatch);
  CHECK(status.message().find("cluster.nnWorkers") != std::string::npos);
}

TEST_CASE("one worker in mode async trains bit for bit like one in mode hybrid") {
  std::map<std::string, uint64_t> states[2];
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    auto trainer = Make(WorkersConfig(mode, 1));
    Train(*trainer, 1, 30);
    states[mode == TrainerMode::kAsync] = FinalState(*trainer);
  }
  CHECK(states[0] == states[1]);
}

TEST_CASE("several workers in mode async learn, and push their gradients to weights that others have changed") {
  for (const uint32_t workers : {1u, 2u, 4u}) {
    TrainerConfig config = WorkersConfig(TrainerMode::kAsync, workers, false);
    auto trainer = Make(config);
    const TrainerProgress end = CheckLearns(*trainer);
    CHECK(end.dense_staleness.pushes == 320 * workers);
    CHECK((workers > 1 || end.dense_staleness.most == 0));
    CHECK(end.most_staleness <= config.staleness);
    CHECK(end.staleness == 0);
  }
}

TEST_CASE("mode async with batches of fewer rows than workers loses nothing, and is saved and resumed") {
  const TrainerConfig config = WorkersConfig(TrainerMode::kAsync, 3, false);
  const auto first = TrainedSizes(config, 20);
  Saved saved(*first);
  auto second = Make(config);
  REQUIRE(second->Restore(saved.path, saved.files).ok());
  CHECK(FarthestModel(*first, *second) == 0);
  CHECK(second->progress().samples == first->progress().samples);
  TrainSizes(*second, 21, 30);
  REQUIRE(DrainAndWait(*second).ok());
  CHECK(second->progress().steps == 30);
  // Into another mode too: the optimizer's own count of updates goes on.
  auto third = Make(WorkersConfig(TrainerMode::kHybrid, 2));
  REQUIRE(third->Restore(saved.path, saved.files).ok());
  TrainSizes(*third, 21, 30);
  CHECK(DrainAndWait(*third).ok());
}

TEST_CASE("several workers in mode async are refused where reruns are to be identical") {
  const auto trainer = Trainer::Create(WorkersConfig(TrainerMode::kAsync, 2, true));
  CHECK(trainer.status().code() == ErrorCode::kConfigInvalid);
}

namespace {

// Stalls at random, and checks at every lookup how far the worker is ahead of what the store has applied for it.
class StallingStore final : public StoreWrapper {
 public:
  StallingStore(const TrainerConfig& config, bool merged)
      : StoreWrapper(config.tables), merged_(merged), applied_(config.nn_workers) {}

  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override {
    const uint64_t applied = applied_[merged_ ? 0 : id.worker].load();
    const uint64_t behind = id.sequence - 1 - applied;
    for (uint64_t most = most_behind.load(); behind > most && !most_behind.compare_exchange_weak(most, behind);) {
    }
    Stall();
    return StoreWrapper::Lookup(id, mode, blocks);
  }
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override {
    Stall();
    Status status = StoreWrapper::Apply(id, blocks);
    applied_[id.worker].store(id.sequence);
    return status;
  }

  std::atomic<uint64_t> most_behind{0};

 private:
  void Stall() {
    double draw;
    {
      std::lock_guard lock(mutex_);
      draw = rng_.Uniform();
    }
    if (draw < 0.1) std::this_thread::sleep_for(std::chrono::microseconds(static_cast<int>(draw * 30'000)));
  }

  const bool merged_;
  std::vector<std::atomic<uint64_t>> applied_;
  std::mutex mutex_;
  Rng rng_{7};
};

}  // namespace

TEST_CASE("the bound holds however a store stalls, for every worker, and nothing is left in flight at the end") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid, TrainerMode::kAsync}) {
    for (const uint32_t workers : {1u, 3u}) {
      TrainerConfig config = WorkersConfig(mode, workers, false);
      config.just_in_time = workers == 3;
      auto store = std::make_unique<StallingStore>(config, mode != TrainerMode::kAsync);
      StallingStore& watched = *store;
      auto trainer = std::move(*Trainer::Create(config, std::move(store)));
      Train(*trainer, 1, 150);
      REQUIRE(DrainAndWait(*trainer).ok());
      const TrainerProgress progress = trainer->progress();
      CHECK(watched.most_behind.load() <= config.staleness);
      CHECK(progress.most_staleness <= config.staleness);
      CHECK(progress.staleness == 0);
      uint64_t lookups = 0;
      for (const uint64_t count : progress.staleness_histogram) lookups += count;
      CHECK(lookups == 150 * workers);
      if (mode == TrainerMode::kHybrid) CHECK(progress.most_staleness > 0);  // the bound was in use
    }
  }
}

TEST_CASE("just in time over a fast store, lookups are about one batch behind, not as many as the bound allows") {
  constexpr uint64_t kSteps = 200;
  TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, 1, false);
  config.just_in_time = true;
  config.staleness = 8;
  config.dense.hidden = {512, 512};  // training takes far longer than lookups and updates
  auto trainer = Make(config);
  Train(*trainer, 1, kSteps);
  REQUIRE(DrainAndWait(*trainer).ok());
  const std::vector<uint64_t> lookups = trainer->progress().staleness_histogram;
  double sum = 0;
  for (size_t behind = 0; behind < lookups.size(); ++behind) sum += static_cast<double>(lookups[behind] * behind);
  CHECK(sum / kSteps < 4);  // near 1 but on a machine that is busy with other things
}

TEST_CASE("the effective staleness of a row is the number of updates by other batches since its lookup") {
  constexpr uint64_t kSteps = 40;
  for (const uint32_t workers : {1u, 2u}) {
    TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, workers);
    config.row_staleness_one_in = 1;
    auto trainer = Make(config);
    for (uint64_t step = 1; step <= kSteps; ++step) {
      auto batch = CopyOf(MakeBatch(step));
      const std::vector<uint64_t> same(kRows, 7);  // one row a feature, in every batch
      for (IdColumn& column : batch->id_columns) column.ids = same;
      REQUIRE(PushAndWait(*trainer, batch).ok());
    }
    REQUIRE(DrainAndWait(*trainer).ok());
    const RowStaleness::Totals totals = trainer->progress().row_staleness;
    CHECK(totals.samples == kSteps * kFeatures * workers);
    CHECK(totals.most == config.staleness);
    // In order, a lookup misses the updates of the `staleness` steps before it; the first ones have fewer before them.
    CHECK(totals.histogram[config.staleness] == (kSteps - config.staleness) * kFeatures * workers);
    for (uint64_t less = 0; less < config.staleness; ++less) CHECK(totals.histogram[less] == kFeatures * workers);
  }
  // In mode sync nothing is ever missed, and rows that no other batch has are never stale.
  TrainerConfig config = WorkersConfig(TrainerMode::kSync, 2);
  config.row_staleness_one_in = 1;
  auto trainer = Make(config);
  Train(*trainer, 1, 20);
  REQUIRE(DrainAndWait(*trainer).ok());
  CHECK(trainer->progress().row_staleness.samples > 0);
  CHECK(trainer->progress().row_staleness.most == 0);
}

namespace {

// Fails one call.
class FailingStore final : public StoreWrapper {
 public:
  FailingStore(const TrainerConfig& config, RequestId lookup, RequestId apply)
      : StoreWrapper(config.tables), lookup_(lookup), apply_(apply) {}

  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override {
    if (Same(id, lookup_) && !failed_.exchange(true)) return Status(ErrorCode::kIo, "the disk is on fire");
    return StoreWrapper::Lookup(id, mode, blocks);
  }
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override {
    if (Same(id, apply_)) return Status(ErrorCode::kIo, "the disk is on fire");
    return StoreWrapper::Apply(id, blocks);
  }

 private:
  static bool Same(RequestId a, RequestId b) { return a.worker == b.worker && a.sequence == b.sequence; }
  const RequestId lookup_, apply_;
  std::atomic<bool> failed_{false};  // workers that share a batch look it up under one id
};

}  // namespace

TEST_CASE("one worker's failure ends all of them with its reason, and what all had trained is applied") {
  constexpr RequestId kNever{99, 99};
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid, TrainerMode::kAsync}) {
    for (const bool at_lookup : {false, true}) {
      for (const bool deterministic : {false, true}) {
        if (mode == TrainerMode::kAsync && deterministic) continue;
        const TrainerConfig config = WorkersConfig(mode, 3, deterministic);
        const RequestId lookup = at_lookup ? RequestId{mode == TrainerMode::kAsync ? 1u : 0u, 9} : kNever;
        const RequestId apply = at_lookup ? kNever : RequestId{mode == TrainerMode::kAsync ? 2u : 0u, 9};
        auto trainer = std::move(*Trainer::Create(config, std::make_unique<FailingStore>(config, lookup, apply)));
        for (uint64_t step = 1; step <= 20; ++step) trainer->Push(MakeBatch(step), [](Status) {});
        const Status status = DrainAndWait(*trainer);
        CHECK(status.code() == ErrorCode::kIo);
        CHECK(status.message() == "the disk is on fire");
        CHECK(trainer->progress().steps <= 8);
        // In async a worker that is behind has not trained as far.
        if (!at_lookup && mode != TrainerMode::kAsync) CHECK(trainer->progress().steps == 8);
      }
    }
  }
}

TEST_CASE("a loss that is not finite in one worker's part stops all, and no part of the step is applied") {
  for (const uint32_t workers : {2u, 3u}) {
    auto trainer = Make(WorkersConfig(TrainerMode::kHybrid, workers));
    Train(*trainer, 1, 5);
    REQUIRE(DrainAndWait(*trainer).ok());
    for (NamedTensor& tensor : trainer->dense_model(1).Tensors()) {
      if (tensor.name == "layer.2.bias") tensor.values[0] = NAN;
    }
    trainer->Push(MakeBatch(6), [](Status) {});
    const Status status = DrainAndWait(*trainer);
    CHECK(status.code() == ErrorCode::kNonFiniteLoss);
    CHECK(status.message().find("step 6") != std::string::npos);
    CHECK(trainer->progress().steps == 5);
  }
}

TEST_CASE("several workers that are closed in the middle end everything that waits") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid, TrainerMode::kAsync}) {
    for (size_t accepted = 0; accepted < 5; ++accepted) CheckClosedInTheMiddle(WorkersConfig(mode, 3, false), accepted);
  }
}

TEST_CASE("pauses as soon as possible bring all workers to rest at one step, again and again") {
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    auto trainer = Make(WorkersConfig(mode, 3, false));
    for (uint64_t step = 1; step <= 200; ++step) trainer->Push(MakeBatch(step), [](Status) {});
    uint64_t last = 0;
    for (int pause = 0; pause < 20; ++pause) {
      Waiter paused;
      trainer->Pause(std::nullopt, paused.completion());
      REQUIRE(paused.Wait().ok());
      CHECK(trainer->at_rest());
      const TrainerProgress progress = trainer->progress();
      CHECK(progress.steps >= last);
      CHECK(progress.samples == progress.steps * kRows);
      last = progress.steps;
      trainer->Resume();
    }
    REQUIRE(DrainAndWait(*trainer).ok());
    CHECK(trainer->progress().steps == 200);
  }
}

namespace {

// Threads of dense networks in this process, but for those that call them.
size_t DenseThreads() {
  size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    count += name.starts_with("persia-dense") ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("a prediction takes all threads while no worker moves, and the weights of the last step") {
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    TrainerConfig config = WorkersConfig(mode, 2, mode == TrainerMode::kHybrid);
    config.dense.threads = 4;
    auto trainer = Make(config);
    const size_t threads = DenseThreads();
    const auto batch = MakeBatch(1000);
    std::vector<float> outputs, expected;
    for (const uint64_t step : {1, 2, 3}) {
      Train(*trainer, step, step);
      REQUIRE(DrainAndWait(*trainer).ok());
      REQUIRE(trainer->Predict(*batch, &outputs).ok());
      CHECK(DenseThreads() == threads + 3);
      Rest(*trainer);
      const Saved saved(*trainer);
      auto alone = Make(WorkersConfig(TrainerMode::kHybrid, 1));  // one thread
      REQUIRE(alone->Restore(saved.path, saved.files).ok());
      REQUIRE(alone->Predict(*batch, &expected).ok());
      for (uint32_t row = 0; row < kRows; ++row) CHECK(std::abs(outputs[row] - expected[row]) < 1e-6);
      if (config.deterministic) CHECK(outputs == expected);
      trainer->Resume();
    }
  }
}

TEST_CASE("stages tell what they did with their time, and keep their last spans in order") {
  TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, 2);
  config.trace_spans = 25;
  auto trainer = Make(config);
  Train(*trainer, 1, 40);
  REQUIRE(DrainAndWait(*trainer).ok());
  const auto stages = trainer->stages();
  REQUIRE(stages.size() == 1 + 3 * 2);
  for (const StageMeter* stage : stages) {
    CAPTURE(stage->name());
    const StageTotals totals = stage->totals();
    CHECK(totals.steps == 40);
    for (const double seconds : totals.seconds) CHECK(seconds >= 0);
    CHECK(totals.seconds[static_cast<size_t>(Activity::kBusy)] > 0);
    CHECK(totals.most_queue <= config.staleness + 3);
    const auto spans = stage->spans();
    REQUIRE(spans.size() == 25);
    for (size_t i = 0; i < spans.size(); ++i) {
      CHECK(spans[i].step == 16 + i);
      CHECK(spans[i].begin <= spans[i].end);
      if (i > 0) CHECK(spans[i - 1].end <= spans[i].begin);
    }
  }
}

TEST_CASE("deterministic runs end in the same bytes with any number of dense threads") {
  std::map<std::string, uint64_t> first;
  for (const uint32_t threads : {1u, 2u, 3u, 7u}) {
    TrainerConfig config = WorkersConfig(TrainerMode::kHybrid, 1);
    config.dense.hidden = {600, 300, 70};  // products large enough to be cut
    config.dense.threads = threads;
    config.dense.optimizer.clip_norm = 0.5;
    auto trainer = Make(config);
    for (uint64_t step = 1; step <= 4; ++step) REQUIRE(PushAndWait(*trainer, MakeBatch(step, 50, 333)).ok());
    const auto state = FinalState(*trainer);
    if (threads == 1) first = state;
    CHECK(state == first);
  }
}

}  // namespace persia
