// A cluster of roles over an in-process network: it trains like one process, bounds staleness, saves and restores, and
// ends with the name of a role that is lost.
#include <chrono>

#include "cluster_fixtures.h"

namespace persia {
namespace {

// The third feature is a sequence of up to three places, whose mask the network sees.
TrainerConfig MaskedConfig(TrainerMode mode, uint32_t workers) {
  TrainerConfig config = ClusterConfig(mode, workers);
  std::vector<FeatureSpec> features = config.schema.features;
  features[2].pooling = Pooling::kNone;
  features[2].sequence_length = 3;
  features[2].mask = true;
  config.schema = *BuildFeatureSchema(features, 8);
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count += config.schema.mask_width;
  return config;
}

// Samples have none to four ids of it.
std::shared_ptr<const Batch> SequenceBatch(uint64_t step) {
  struct Sequences {
    std::vector<uint32_t> offsets{0};
    std::vector<uint64_t> ids;
    std::shared_ptr<const void> others;
  };
  auto batch = CopyOf(SizedBatch(step));
  auto sequences = std::make_shared<Sequences>();
  for (uint32_t row = 0; row < batch->rows; ++row) {
    for (uint64_t place = 0; place < (row + step) % 5; ++place) sequences->ids.push_back((row * step + place) % 40);
    sequences->offsets.push_back(static_cast<uint32_t>(sequences->ids.size()));
  }
  sequences->others = batch->owner;
  batch->id_columns[2] = {sequences->offsets, sequences->ids};
  batch->owner = std::move(sequences);
  return batch;
}

// Every fourth batch overflows.
void TrainWithOverflows(ModelTrainer& trainer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step <= last; ++step) {
    REQUIRE(PushAndWait(trainer, step % 4 == 0 ? OverflowingBatch(step) : MakeBatch(step)).ok());
  }
}

TrainerConfig ScaledConfig(TrainerMode mode, uint32_t workers) {
  TrainerConfig config = ClusterConfig(mode, workers);
  config.dense.tasks = {{"rating", Loss::kMse, 1.0f}};
  config.loss_scaling = {.scale = 1024, .dynamic = true, .growth_interval = 5};
  return config;
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
                {"NN worker", {"a:1", "b:1"}, "", 0, 1}, nullptr, {}, false});
  CHECK(refused.status().code() == ErrorCode::kConfigUnsupported);
}

TEST_CASE("a cluster predicts, counts and reads rows as one process does, an evaluation changes nothing") {
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

TEST_CASE("the NN workers of a cluster see the masks of sequences: it trains and predicts like one process") {
  const TrainerConfig config = MaskedConfig(TrainerMode::kSync, 2);
  const auto alone = Make(MaskedConfig(TrainerMode::kSync, 1));
  TestCluster cluster(config, {});
  for (uint64_t step = 1; step <= 30; ++step) {
    REQUIRE(PushAndWait(*alone, SequenceBatch(step)).ok());
    REQUIRE(PushAndWait(*cluster.trainer, SequenceBatch(step)).ok());
  }
  Rest(*alone);
  Rest(*cluster.trainer);
  CHECK(FarthestRows(*alone, *cluster.trainer) < 1e-5);
  CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(cluster.nn[1]->dense_model())) < 1e-5);
  std::vector<float> one, all;
  REQUIRE(alone->Predict(*SequenceBatch(40), &one).ok());
  REQUIRE(cluster.trainer->Predict(*SequenceBatch(40), &all).ok());
  CHECK(Farthest(one, all) < 1e-5);

  // A network that sees the masks alone tells a sample without ids from one with three.
  for (NamedTensor& tensor : cluster.nn[0]->dense_model().Tensors()) {
    if (tensor.name == "layer.0.weight") {
      const uint32_t inputs = config.dense.input_width();
      for (size_t i = 0; i < tensor.values.size(); ++i) {
        tensor.values[i] = i % inputs < config.masks_offset() ? 0.0f : 1.0f + static_cast<float>(i % inputs);
      }
    }
  }
  REQUIRE(cluster.nn[0]->dense_model().WriteTensors().ok());
  REQUIRE(cluster.trainer->Predict(*SequenceBatch(2), &all).ok());  // rows of 2, 3, 4, 0, 1 ids, …
  CHECK(all[1] == all[2]);
  CHECK(all[0] != all[1]);
  CHECK(all[3] != all[4]);
  CHECK(all[3] == all[3 + 5]);
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
    first.trainer->Push(SizedBatch(step), [](Status) {});
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
      trainer.Push(SizedBatch(step), [](Status) {});
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

TEST_CASE("an invalid batch is refused alone, a loss that is not finite ends all, and no part of the step is applied") {
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
  const TableRows before = TableOf(*cluster.trainer, 0);
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
      
      TestCluster cluster(ClusterConfig(mode, 2), {.deadline_ms = 1'000});
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

TEST_CASE("a step that is skipped leaves no trace on servers and NN workers of a cluster, which all skip it") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid}) {
    for (const uint32_t workers : {1u, 3u}) {
      CAPTURE(workers);
      TestCluster cluster(ScaledConfig(mode, workers), {});
      ModelTrainer& trainer = *cluster.trainer;
      Train(trainer, 1, 7);
      Rest(trainer);
      const TableRows rows = TableOf(trainer, 0);
      const std::vector<float> dense = DenseOf(cluster.nn[0]->dense_model());
      const float scale = trainer.progress().loss_scale;
      CHECK(scale == 2048);  // five good steps made it rise
      trainer.Resume();
      for (int i = 0; i < 3; ++i) REQUIRE(PushAndWait(trainer, OverflowingBatch(1)).ok());  // its rows are there
      Rest(trainer);
      const TrainerProgress progress = trainer.progress();
      CHECK(progress.steps == 10);
      CHECK(progress.skipped == 3);
      CHECK(progress.loss_scale == scale / 8);
      CHECK(TableOf(trainer, 0) == rows);
      for (const auto& worker : cluster.nn) CHECK(DenseOf(worker->dense_model()) == dense);
      for (const auto& worker : cluster.ew) CHECK(worker->held() == 0);
      trainer.Resume();
      Train(trainer, 11, 14);
      Rest(trainer);
      CHECK(TableOf(trainer, 0) != rows);
      CHECK(trainer.progress().skipped == 3);
    }
  }
}

TEST_CASE("a cluster's checkpoint has the loss scale, and what goes on from it skips and learns as one process does") {
  TrainerConfig config = ScaledConfig(TrainerMode::kSync, 1);
  const auto alone = Make(config);
  TrainWithOverflows(*alone, 1, 20);
  Rest(*alone);
  CHECK(alone->progress().skipped == 5);
  config.nn_workers = 2;
  TestCluster first(config, {});
  TrainWithOverflows(*first.trainer, 1, 9);
  Rest(*first.trainer);
  CHECK(first.trainer->progress().skipped == 2);
  const Saved saved(*first.trainer);
  const auto go_on = [&](ModelTrainer& trainer) {
    const Status restored = trainer.Restore(saved.path, saved.files);
    REQUIRE_MESSAGE(restored.ok(), restored.message());
    TrainWithOverflows(trainer, 10, 20);
    Rest(trainer);
    CHECK(FarthestRows(*alone, trainer) < 1e-5);
    CHECK(trainer.progress().skipped == 5);
    CHECK(trainer.progress().loss_scale == alone->progress().loss_scale);
  };
  TestCluster second(config, {.parameter_servers = 1});
  go_on(*second.trainer);
  // Adam's bias correction counts the steps that were not skipped.
  CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(second.nn[1]->dense_model())) < 1e-5);
  config.nn_workers = 1;
  const auto process = Make(config);
  go_on(*process);
  CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(process->dense_model(0))) < 1e-5);
}

TEST_CASE("in async an NN worker of a cluster skips its own part, and checkpoints know how many all have skipped") {
  const TrainerConfig config = ScaledConfig(TrainerMode::kAsync, 2);
  TestCluster first(config, {});
  for (uint64_t step = 1; step <= 3; ++step) REQUIRE(PushAndWait(*first.trainer, OverflowingBatch(step)).ok());
  Rest(*first.trainer);
  CHECK(first.trainer->progress().skipped == 3);
  CHECK(first.trainer->progress().dense_staleness.pushes == 3);
  const Saved saved(*first.trainer);
  TestCluster second(config, {});
  REQUIRE(second.trainer->Restore(saved.path, saved.files).ok());
  REQUIRE(PushAndWait(*second.trainer, OverflowingBatch(4)).ok());
  Rest(*second.trainer);
  CHECK(second.trainer->progress().skipped == 4);
}

TEST_CASE("just in time, lookups of a cluster's NN workers are less far behind than the bound allows") {
  constexpr uint64_t kSteps = 200;
  TrainerConfig config = ClusterConfig(TrainerMode::kHybrid, 1);
  config.just_in_time = true;
  config.staleness = 8;
  config.dense.hidden = {512, 512};  // training takes far longer than lookups and updates
  TestCluster cluster(config, {});
  for (uint64_t step = 1; step <= kSteps; ++step) cluster.trainer->Push(MakeBatch(step), [](Status) {});
  Waiter paused;
  cluster.trainer->Pause(kSteps / 2, paused.completion());
  REQUIRE(paused.Wait().ok());
  cluster.trainer->Resume();
  REQUIRE(DrainAndWait(*cluster.trainer).ok());
  const std::vector<uint64_t> lookups = cluster.trainer->progress().staleness_histogram;
  double sum = 0;
  for (size_t behind = 0; behind < lookups.size(); ++behind) sum += static_cast<double>(lookups[behind] * behind);
  CHECK(sum / kSteps < 4);  // near 1 but on a machine that is busy with other things
}

}  // namespace persia
