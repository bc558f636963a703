// A cluster of roles over an in-process network: it trains like one process, bounds staleness, saves and restores, and
// ends with the name of a role that is lost.
#include <chrono>

#include "cluster_fixtures.h"

namespace persia {
namespace {

// As in nn_workers_test.cc: adaptive optimizers start above zero, where rounding blows up.
TrainerConfig ClusterConfig(TrainerMode mode, uint32_t workers) {
  TrainerConfig config = SmallConfig(mode == TrainerMode::kSync ? 0 : 3, false);
  config.mode = mode;
  config.nn_workers = workers;
  config.dense.optimizer.eps = 1e-4;
  for (TableOptions& table : config.tables) {
    table.optimizer.initial_accumulator = 0.01f;
    table.prefix_bits = config.schema.prefix_bits;
    table.group_count = config.schema.group_count;
  }
  return config;
}

void Rest(ModelTrainer& trainer) {
  REQUIRE(DrainAndWait(trainer).ok());
  Waiter paused;
  trainer.Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
}

using Rows = std::map<uint64_t, std::vector<float>>;

Rows TableOf(ModelTrainer& trainer, uint32_t row_class) {
  Rows rows;
  const Status status = trainer.store().Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge) {
    CHECK(rows.emplace(sign, std::vector<float>(row.begin(), row.end())).second);
  });
  REQUIRE_MESSAGE(status.ok(), status.message());
  return rows;
}

std::vector<float> DenseOf(DenseModel& model) {
  std::vector<float> values;
  for (const NamedTensor& tensor : model.Tensors()) {
    values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  }
  return values;
}

double Farthest(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double farthest = 0;
  for (size_t i = 0; i < a.size(); ++i) farthest = std::max(farthest, std::abs(double{a[i]} - b[i]));
  return farthest;
}

double FarthestRows(ModelTrainer& a, ModelTrainer& b) {
  double farthest = 0;
  for (uint32_t c = 0; c < a.store().row_class_count(); ++c) {
    const Rows rows = TableOf(a, c), others = TableOf(b, c);
    REQUIRE(rows.size() == others.size());
    for (const auto& [sign, row] : rows) farthest = std::max(farthest, Farthest(row, others.at(sign)));
  }
  return farthest;
}

bool Mentions(const Status& status, const std::string& what) {
  if (status.message().find(what) != std::string::npos) return true;
  std::fprintf(stderr, "the message is: %s, not about %s\n", status.message().c_str(), what.c_str());
  return false;
}

constexpr uint32_t kSizes[] = {64, 7, 64, 1, 2, 33, 64, 5, 64, 3};

void TrainSizes(ModelTrainer& trainer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step <= last; ++step) {
    const Status status = PushAndWait(trainer, MakeBatch(step, 50, kSizes[step % std::size(kSizes)]));
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
}

std::unique_ptr<Trainer> TrainedAlone(TrainerConfig config, uint64_t steps) {
  config.nn_workers = 1;
  auto trainer = Make(config);
  TrainSizes(*trainer, 1, steps);
  Rest(*trainer);
  return trainer;
}

}  // namespace

TEST_CASE("a cluster in mode sync trains like one process: weights and rows to 1e-5, whatever the sizes of batches") {
  for (const uint32_t workers : {1u, 2u, 3u}) {
    for (const uint32_t servers : {1u, 2u}) {
      CAPTURE(workers);
      CAPTURE(servers);
      const TrainerConfig config = ClusterConfig(TrainerMode::kSync, workers);
      const auto alone = TrainedAlone(config, 30);
      TestCluster cluster(config, {.parameter_servers = servers, .embedding_workers = 2});
      TrainSizes(*cluster.trainer, 1, 30);
      Rest(*cluster.trainer);
      CHECK(FarthestRows(*alone, *cluster.trainer) < 1e-5);
      for (const auto& worker : cluster.nn) {
        CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(worker->dense_model())) < 1e-5);
        CHECK(DenseOf(worker->dense_model()) == DenseOf(cluster.nn[0]->dense_model()));
      }
      const TrainerProgress one = alone->progress(), all = cluster.trainer->progress();
      CHECK(all.steps == 30);
      CHECK(all.samples == one.samples);
      CHECK(all.loss_sum == doctest::Approx(one.loss_sum).epsilon(1e-5));
      CHECK(all.most_staleness == 0);
      for (const auto& embedding_worker : cluster.ew) CHECK(embedding_worker->held() == 0);
    }
  }
}

TEST_CASE("modes hybrid and async learn in a cluster, never beyond the bound, with nothing left in flight") {
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    const TrainerConfig config = ClusterConfig(mode, 2);
    TestCluster cluster(config, {});
    const TrainerProgress end = CheckLearns(*cluster.trainer);
    CHECK(end.most_staleness <= config.staleness);
    CHECK(end.staleness == 0);
    uint64_t lookups = 0;
    for (const uint64_t count : end.staleness_histogram) lookups += count;
    CHECK(lookups == 2 * 320);
    CHECK(end.dense_staleness.pushes == (mode == TrainerMode::kAsync ? 2u * 320 : 0u));
    for (const auto& worker : cluster.ew) CHECK(worker->held() == 0);
  }
}

TEST_CASE("a cluster of one NN worker in deterministic mode trains bit for bit like one process, with any servers") {
  TrainerConfig config = ClusterConfig(TrainerMode::kHybrid, 1);
  config.deterministic = true;
  const auto alone = TrainedAlone(config, 24);
  for (const uint32_t servers : {1u, 3u}) {
    TestCluster cluster(config, {.parameter_servers = servers, .embedding_workers = 2});
    TrainSizes(*cluster.trainer, 1, 24);
    Rest(*cluster.trainer);
    CHECK(FarthestRows(*alone, *cluster.trainer) == 0);
    CHECK(DenseOf(alone->dense_model(0)) == DenseOf(cluster.nn[0]->dense_model()));
  }
  config.nn_workers = 2;
  const auto refused = ClusterTrainer::Create(
      nullptr, {config, {"parameter server", {}, "", 0, 1}, {"embedding worker", {}, "", 0, 1},
                {"NN worker", {"a:1", "b:1"}, "", 0, 1}, {}, false});
  CHECK(refused.status().code() == ErrorCode::kConfigUnsupported);
}

TEST_CASE("a cluster predicts, counts and reads rows as one process does; an evaluation changes nothing") {
  const TrainerConfig config = ClusterConfig(TrainerMode::kSync, 2);
  const auto alone = TrainedAlone(config, 20);
  TestCluster cluster(config, {});
  TrainSizes(*cluster.trainer, 1, 20);
  REQUIRE(DrainAndWait(*cluster.trainer).ok());
  std::vector<float> one, all;
  for (const uint64_t number : {3, 1000}) {
    REQUIRE(alone->Predict(*MakeBatch(number, 70, 33), &one).ok());
    REQUIRE(cluster.trainer->Predict(*MakeBatch(number, 70, 33), &all).ok());
    CHECK(Farthest(one, all) < 1e-5);
  }
  const TrainerCounters expected = alone->counters(), counted = cluster.trainer->counters();
  for (size_t c = 0; c < expected.classes.size(); ++c) {
    CHECK(counted.classes[c].table.rows == expected.classes[c].table.rows);
    CHECK(counted.classes[c].table.inserts == expected.classes[c].table.inserts);
    CHECK(counted.classes[c].groups.size() == expected.classes[c].groups.size());
  }
  CHECK(counted.distinct == expected.distinct);
  CHECK(cluster.trainer->progress().row_staleness.most == 0);
  const FeatureSpec& feature = config.schema.features[0];
  const std::vector<uint64_t> signs{MakeSign(1, feature.group, 8), MakeSign(2, feature.group, 8), 12345};
  const uint32_t width = alone->store().row_width(0);
  CHECK(cluster.trainer->store().row_width(0) == width);
  std::vector<float> rows(3 * width), others(3 * width);
  std::vector<uint8_t> found(3), found_there(3);
  REQUIRE(alone->store().ReadMany(0, signs, rows, found.data()).ok());
  REQUIRE(cluster.trainer->store().ReadMany(0, signs, others, found_there.data()).ok());
  CHECK(found_there == std::vector<uint8_t>{1, 1, 0});
  CHECK(found == found_there);
  CHECK(Farthest(rows, others) < 1e-5);
  std::vector<std::string> names;
  for (const StageReport& stage : cluster.trainer->StageReports()) names.push_back(stage.name);
  CHECK(names == std::vector<std::string>{"prepare", "lookup", "train", "apply", "lookup", "train", "apply"});
}

TEST_CASE("effective staleness of rows is measured at the parameter servers") {
  TrainerConfig config = ClusterConfig(TrainerMode::kHybrid, 2);
  config.row_staleness_one_in = 1;
  TestCluster cluster(config, {});
  Train(*cluster.trainer, 1, 40);
  REQUIRE(DrainAndWait(*cluster.trainer).ok());
  (void)cluster.trainer->counters();
  const RowStaleness::Totals totals = cluster.trainer->progress().row_staleness;
  CHECK(totals.samples > 0);
  CHECK(totals.most <= config.staleness);
}

TEST_CASE("a cluster's checkpoint from the middle of a run is gone on with by clusters of any size and by one process") {
  TrainerConfig config = ClusterConfig(TrainerMode::kSync, 2);
  const auto undisturbed = TrainedAlone(config, 24);
  TestCluster first(config, {.parameter_servers = 2});
  Waiter paused, drained;
  first.trainer->Pause(10, paused.completion());
  for (uint64_t step = 1; step <= 24; ++step) {
    first.trainer->Push(MakeBatch(step, 50, kSizes[step % std::size(kSizes)]), [](Status) {});
  }
  first.trainer->Drain(drained.completion());
  REQUIRE(paused.Wait().ok());
  CHECK(first.trainer->at_rest());
  Saved saved(*first.trainer);
  const auto check = [&](ModelTrainer& trainer) {
    const Status restored = trainer.Restore(saved.path, saved.files);
    REQUIRE_MESSAGE(restored.ok(), restored.message());
    CHECK(trainer.progress().steps == 10);
    TrainSizes(trainer, 11, 24);
    Rest(trainer);
    CHECK(FarthestRows(*undisturbed, trainer) < 1e-5);
    CHECK(trainer.progress().steps == 24);
    CHECK(trainer.progress().samples == undisturbed->progress().samples);
    CHECK(trainer.counters().distinct == undisturbed->counters().distinct);
  };
  for (const uint32_t servers : {1u, 3u}) {
    for (const uint32_t workers : {1u, 3u}) {
      config.nn_workers = workers;
      TestCluster other(config, {.parameter_servers = servers, .embedding_workers = servers});
      check(*other.trainer);
    }
  }
  config.nn_workers = 1;
  check(*Make(config));
  first.trainer->Resume();
  REQUIRE(drained.Wait().ok());
  Rest(*first.trainer);
  CHECK(FarthestRows(*undisturbed, *first.trainer) < 1e-5);
}

TEST_CASE("a checkpoint of one process loads into a cluster, and lookups in flight go on bit for bit") {
  TrainerConfig config = ClusterConfig(TrainerMode::kHybrid, 1);
  config.deterministic = true;
  const auto undisturbed = TrainedAlone(config, 24);
  const auto save_at_7 = [&](ModelTrainer& trainer) {
    Waiter paused;
    trainer.Pause(7, paused.completion());
    for (uint64_t step = 1; step <= 24; ++step) {
      trainer.Push(MakeBatch(step, 50, kSizes[step % std::size(kSizes)]), [](Status) {});
    }
    REQUIRE(paused.Wait().ok());
    return std::make_unique<Saved>(trainer);
  };
  const auto go_on = [&](ModelTrainer& trainer, const Saved& saved) {
    REQUIRE(trainer.Restore(saved.path, saved.files).ok());
    TrainSizes(trainer, 8, 24);
    Rest(trainer);
    CHECK(FarthestRows(*undisturbed, trainer) == 0);
  };
  const auto alone = Make(config);
  TestCluster cluster(config, {.parameter_servers = 3});
  const auto of_one = save_at_7(*alone), of_cluster = save_at_7(*cluster.trainer);
  TestCluster second(config, {.parameter_servers = 2});
  go_on(*second.trainer, *of_one);
  go_on(*Make(config), *of_cluster);
  TestCluster third(config, {.parameter_servers = 1});
  go_on(*third.trainer, *of_cluster);
}

TEST_CASE("pauses as soon as possible bring all NN workers to rest at one step, again and again, with batches coming") {
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    TestCluster cluster(ClusterConfig(mode, 3), {});
    for (uint64_t step = 1; step <= 150; ++step) cluster.trainer->Push(MakeBatch(step), [](Status) {});
    uint64_t last = 0;
    for (int pause = 0; pause < 15; ++pause) {
      Waiter paused, again;
      cluster.trainer->Pause(std::nullopt, paused.completion());
      REQUIRE(paused.Wait().ok());
      CHECK(cluster.trainer->at_rest());
      cluster.trainer->Pause(std::nullopt, again.completion());  // while it rests: at once
      REQUIRE(again.Wait().ok());
      const TrainerProgress progress = cluster.trainer->progress();
      CHECK(progress.steps >= last);
      CHECK(progress.samples == progress.steps * kRows);
      last = progress.steps;
      cluster.trainer->Resume();
      CHECK(cluster.trainer->at_rest());
      cluster.trainer->Resume();
      CHECK(!cluster.trainer->at_rest());
    }
    REQUIRE(DrainAndWait(*cluster.trainer).ok());
    CHECK(cluster.trainer->progress().steps == 150);
    Waiter passed, never;
    cluster.trainer->Pause(5, passed.completion());
    CHECK(passed.Wait().code() == ErrorCode::kUsage);
    cluster.trainer->Pause(1000, never.completion());
    REQUIRE(DrainAndWait(*cluster.trainer).ok());
    CHECK(never.Wait().code() == ErrorCode::kAborted);
  }
}

TEST_CASE("an invalid batch is refused alone; a loss that is not finite ends all, and no part of the step is applied") {
  TestCluster cluster(ClusterConfig(TrainerMode::kHybrid, 2), {});
  Train(*cluster.trainer, 1, 5);
  auto batch = CopyOf(MakeBatch(6));
  const std::vector<float> labels(kRows, 2.0f);
  batch->labels = labels;
  CHECK(PushAndWait(*cluster.trainer, batch).code() == ErrorCode::kBatchInvalid);
  REQUIRE(DrainAndWait(*cluster.trainer).ok());
  CHECK(cluster.trainer->progress().steps == 5);
  for (NamedTensor& tensor : cluster.nn[1]->dense_model().Tensors()) {
    if (tensor.name == "layer.2.bias") tensor.values[0] = NAN;
  }
  const Rows before = TableOf(*cluster.trainer, 0);
  cluster.trainer->Push(MakeBatch(6, 50), [](Status) {});
  const Status status = DrainAndWait(*cluster.trainer);
  CHECK(status.code() == ErrorCode::kNonFiniteLoss);
  CHECK(Mentions(status, "step 6"));
  CHECK(cluster.trainer->progress().steps == 5);
  for (const auto& [sign, row] : TableOf(*cluster.trainer, 0)) {
    if (before.contains(sign)) CHECK(before.at(sign) == row);
  }
}

TEST_CASE("a role that is lost ends the run with an error that names it, within the deadline, in every mode") {
  struct Victim {
    const char* role;
    void (*kill)(TestCluster&);
  };
  const Victim victims[] = {{"parameter server", [](TestCluster& cluster) { cluster.Kill("ps-1"); }},
                            {"embedding worker", [](TestCluster& cluster) { cluster.Kill("ew-1"); }},
                            {"NN worker", [](TestCluster& cluster) { cluster.Kill("nn-1"); }}};
  for (const Victim& victim : victims) {
    for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid, TrainerMode::kAsync}) {
      
      TestCluster cluster(ClusterConfig(mode, 2), {.deadline_ms = 400});
      TrainSizes(*cluster.trainer, 1, 5);
      victim.kill(cluster);
      const auto begin = std::chrono::steady_clock::now();
      for (uint64_t step = 6; step <= 30; ++step) cluster.trainer->Push(MakeBatch(step), [](Status) {});
      const Status status = DrainAndWait(*cluster.trainer);
      CHECK(status.code() == ErrorCode::kPeerLost);
      CHECK(Mentions(status, victim.role + std::string(" 1")));
      CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
      CHECK(PushAndWait(*cluster.trainer, MakeBatch(31)).code() == ErrorCode::kPeerLost);
    }
  }
}

TEST_CASE("a cluster that is closed in the middle ends everything that waits") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid, TrainerMode::kAsync}) {
    TestCluster cluster(ClusterConfig(mode, 2), {});
    std::vector<std::unique_ptr<Waiter>> waiters;
    for (uint64_t step = 1; step <= 12; ++step) {
      waiters.push_back(std::make_unique<Waiter>());
      cluster.trainer->Push(MakeBatch(step), waiters.back()->completion());
    }
    Waiter drained;
    cluster.trainer->Drain(drained.completion());
    CHECK(waiters[3]->Wait().ok());
    cluster.trainer->Close();
    cluster.trainer->Close();
    const ErrorCode code = drained.Wait().code();
    CHECK((code == ErrorCode::kOk || code == ErrorCode::kClosed));
    CHECK(PushAndWait(*cluster.trainer, MakeBatch(13)).code() == ErrorCode::kClosed);
    std::vector<float> outputs;
    CHECK(cluster.trainer->Predict(*MakeBatch(1), &outputs).code() == ErrorCode::kClosed);
  }
}

TEST_CASE("rows and gradients in fewer bits and packed ids train to nearly the same, and int8 learns") {
  const TrainerConfig config = ClusterConfig(TrainerMode::kSync, 2);
  const auto alone = TrainedAlone(config, 20);
  struct Choice {
    RemoteStore::Wire wire;
    WireFormat activations;
    double most;
  };
  using enum WireFormat;
  for (const Choice& choice : {Choice{{kFp32, kFp32, IdCodec::kLz4}, kFp32, 1e-5},
                               Choice{{kFp16, kFp16, IdCodec::kZstd}, kFp16, 0.05},
                               Choice{{kBf16, kBf16, IdCodec::kRaw}, kBf16, 0.2},
                               Choice{{kInt8, kInt8, IdCodec::kRaw}, kFp16, 0.5}}) {
    TestCluster cluster(config, {.wire = choice.wire, .activations = choice.activations});
    TrainSizes(*cluster.trainer, 1, 20);
    Rest(*cluster.trainer);
    const double farthest = FarthestRows(*alone, *cluster.trainer);
    CAPTURE(farthest);
    CHECK(farthest < choice.most);
    CHECK((choice.most < 1e-4 || farthest > 0));
  }
  TestCluster cluster(ClusterConfig(TrainerMode::kHybrid, 2), {.wire = {kInt8, kInt8, IdCodec::kLz4}});
  CheckLearns(*cluster.trainer);
}

}  // namespace persia
