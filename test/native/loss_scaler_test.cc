// Loss scaling: the scale's rules, that it changes no bit where nothing overflows, and that a step with gradients that
// are not finite leaves no trace.
#include "dense/loss_scaler.h"

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "trainer_fixtures.h"

namespace persia {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<SnapshotFile> WithoutPipeline(const Saved& saved) {
  std::vector<SnapshotFile> files = saved.files;
  std::erase_if(files, [](const SnapshotFile& file) { return file.name == "pipeline.bin"; });
  return files;
}

// What was learnt: all files but the pipeline's, which knows the scale.
std::vector<uint64_t> Learnt(Trainer& trainer) {
  REQUIRE(DrainAndWait(trainer).ok());
  Waiter paused;
  trainer.Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
  std::vector<uint64_t> checksums;
  const Saved saved(trainer);
  for (const SnapshotFile& file : WithoutPipeline(saved)) checksums.push_back(file.checksum);
  trainer.Resume();
  return checksums;
}

// Its last sample's dense features make gradients overflow at any scale, and no loss: the label is as far away.
std::shared_ptr<Batch> Overflowing(uint64_t number) {
  auto batch = CopyOf(MakeBatch(number));
  auto dense = std::make_shared<std::vector<float>>(batch->dense.begin(), batch->dense.end());
  auto labels = std::make_shared<std::vector<float>>(batch->labels.begin(), batch->labels.end());
  dense->back() = 1e30f;
  labels->back() = -1e30f;
  batch->dense = *dense;
  batch->labels = *labels;
  batch->owner = std::make_shared<std::pair<decltype(dense), std::shared_ptr<const void>>>(
      dense, std::make_shared<std::pair<decltype(labels), std::shared_ptr<const void>>>(labels, batch->owner));
  return batch;
}

TrainerConfig ScaledConfig(TrainerMode mode, uint32_t workers, bool dynamic, float scale) {
  TrainerConfig config = SmallConfig(mode == TrainerMode::kSync ? 0 : 2, mode != TrainerMode::kAsync);
  config.mode = mode;
  config.nn_workers = workers;
  config.dense.tasks = {{"rating", Loss::kMse, 1.0f}};
  config.loss_scaling = {.scale = scale, .dynamic = dynamic, .growth_interval = 5};
  return config;
}

}  // namespace

TEST_CASE("a dynamic scale falls with every skipped step, rises after enough good ones, and stays within its bounds") {
  LossScaler scaler({.scale = 1024, .dynamic = true, .growth_interval = 3, .growth = 4, .backoff = 0.25});
  const auto step = [&](bool finite) {
    REQUIRE(scaler.Stepped(finite).ok());
    return scaler.scale();
  };
  CHECK(step(false) == 256);
  CHECK(step(true) == 256);
  CHECK(step(true) == 256);
  CHECK(step(false) == 64);  // counting good steps starts anew
  CHECK(step(true) == 64);
  CHECK(step(true) == 64);
  CHECK(step(true) == 256);
  CHECK(scaler.state().skipped == 2);
  for (int i = 0; i < 20; ++i) step(false);
  CHECK(scaler.scale() == LossScaler::kLeast);
  for (int i = 0; i < 60; ++i) step(true);
  CHECK(scaler.scale() == LossScaler::kMost);
}

TEST_CASE("a static scale stays, and skipped steps are counted all the same") {
  LossScaler scaler({.scale = 128});
  REQUIRE(scaler.Stepped(false).ok());
  for (int i = 0; i < 10'000; ++i) REQUIRE(scaler.Stepped(true).ok());
  CHECK(scaler.scale() == 128);
  CHECK(scaler.state().skipped == 1);
  scaler.Restore({.scale = 4, .good_steps = 7, .skipped = 9});
  CHECK(scaler.scale() == 128);
  CHECK(scaler.state().skipped == 9);
}

TEST_CASE("skipping a hundred steps in a row is an error") {
  LossScaler scaler({.dynamic = true});
  for (uint32_t i = 1; i < LossScaler::kMostInARow; ++i) REQUIRE(scaler.Stepped(false).ok());
  REQUIRE(scaler.Stepped(true).ok());
  for (uint32_t i = 1; i < LossScaler::kMostInARow; ++i) REQUIRE(scaler.Stepped(false).ok());
  CHECK(scaler.Stepped(false).code() == ErrorCode::kNonFiniteLoss);
}

TEST_CASE("unscaling finds a value that is not finite at any place, and divides the others exactly") {
  for (const float scale : {1.0f, 1024.0f}) {
    for (const size_t count : {size_t{1}, size_t{7}, size_t{64}, size_t{1001}}) {
      std::vector<float> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i) * 0.1f * scale;
      CHECK(Unscale(scale, count, values.data()));
      for (size_t i = 0; i < count; ++i) REQUIRE(values[i] == static_cast<float>(i) * 0.1f);
      for (const float bad : {NAN, kInfinity, -kInfinity}) {
        for (size_t at = 0; at < count; ++at) {
          std::vector<float> broken = values;
          broken[at] = bad;
          REQUIRE_FALSE(Unscale(scale, count, broken.data()));
        }
      }
    }
  }
}

TEST_CASE("training with a scale that is a power of two ends in the bytes of training without one") {
  for (const ModelType type : {ModelType::kFfnn, ModelType::kDcn}) {
    for (const uint32_t workers : {1u, 2u}) {
      std::vector<uint64_t> plain;
      for (const float scale : {1.0f, 4096.0f}) {
        TrainerConfig config = SmallConfig(2, true);
        config.nn_workers = workers;
        config.accumulate = 2;
        config.dense.type = type;
        config.dense.optimizer.clip_norm = 0.1;
        config.loss_scaling.scale = scale;
        auto trainer = Make(config);
        Train(*trainer, 1, 30);
        const auto learnt = Learnt(*trainer);
        CHECK(trainer->progress().loss_scale == scale);
        if (scale == 1.0f) plain = learnt;
        CHECK(learnt == plain);
      }
    }
  }
}

TEST_CASE("a step with gradients that are not finite is skipped by all workers, leaves no trace, and training goes on") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid}) {
    for (const uint32_t workers : {1u, 3u}) {
      CAPTURE(workers);
      auto trainer = Make(ScaledConfig(mode, workers, true, 1024));
      Train(*trainer, 1, 7);
      const auto before = Learnt(*trainer);
      const float scale = trainer->progress().loss_scale;
      CHECK(scale == 2048);  // five good steps made it rise
      for (uint64_t step = 8; step <= 10; ++step) REQUIRE(PushAndWait(*trainer, Overflowing(1)).ok());
      REQUIRE(DrainAndWait(*trainer).ok());
      const TrainerProgress progress = trainer->progress();
      CHECK(progress.steps == 10);
      CHECK(progress.skipped == 3);
      CHECK(progress.loss_scale == scale / 8);
      CHECK(progress.staleness == 0);
      CHECK(std::isfinite(progress.loss_sum));
      CHECK(Learnt(*trainer) == before);
      Train(*trainer, 11, 14);
      CHECK(Learnt(*trainer) != before);
      CHECK(trainer->progress().skipped == 3);
    }
  }
}

TEST_CASE("a gradient of the embeddings alone that is not finite makes all workers skip the step") {
  for (const uint32_t workers : {1u, 2u}) {
    TrainerConfig config = ScaledConfig(TrainerMode::kSync, workers, false, 1 << 20);
    config.dense.hidden = {};
    for (TableOptions& table : config.tables) table.initializer = {.type = InitializerType::kZeros};
    auto trainer = Make(config);
    for (uint32_t rank = 0; rank < workers; ++rank) {
      // Embeddings are 0 at first, so that these weights show in no output.
      for (NamedTensor& tensor : trainer->dense_model(rank).Tensors()) {
        if (tensor.name == "layer.0.weight") tensor.values[0] = 1e36f;
      }
    }
    REQUIRE(PushAndWait(*trainer, MakeBatch(1)).ok());
    REQUIRE(DrainAndWait(*trainer).ok());
    CHECK(trainer->progress().skipped == 1);
    for (uint32_t rank = 0; rank < workers; ++rank) {
      for (const NamedTensor& tensor : trainer->dense_model(rank).Tensors()) {
        for (const float value : tensor.values) REQUIRE(std::isfinite(value));
      }
    }
  }
}

TEST_CASE("in async a worker skips its own part, and the others' are applied") {
  auto trainer = Make(ScaledConfig(TrainerMode::kAsync, 2, true, 1024));
  for (uint64_t step = 1; step <= 3; ++step) REQUIRE(PushAndWait(*trainer, Overflowing(step)).ok());
  REQUIRE(DrainAndWait(*trainer).ok());
  const TrainerProgress progress = trainer->progress();
  CHECK(progress.skipped == 3);
  CHECK(progress.dense_staleness.pushes == 3);
}

TEST_CASE("a restored run goes on with the scale and the counts of the one that was saved, to the same bytes") {
  const auto batch = [](uint64_t step) -> std::shared_ptr<const Batch> {
    return step % 4 == 0 ? Overflowing(step) : MakeBatch(step);
  };
  const auto train = [&](Trainer& trainer, uint64_t first, uint64_t last) {
    for (uint64_t step = first; step <= last; ++step) REQUIRE(PushAndWait(trainer, batch(step)).ok());
  };
  const TrainerConfig config = ScaledConfig(TrainerMode::kSync, 2, true, 65'536);
  auto whole = Make(config);
  train(*whole, 1, 20);
  const auto expected = FinalState(*whole);
  CHECK(whole->progress().skipped == 5);
  auto first = Make(config);
  train(*first, 1, 9);
  REQUIRE(DrainAndWait(*first).ok());
  Waiter paused;
  first->Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
  const Saved saved(*first);
  auto second = Make(config);
  REQUIRE(second->Restore(saved.path, saved.files).ok());
  CHECK(second->progress().skipped == 2);
  CHECK(second->progress().loss_scale == first->progress().loss_scale);
  train(*second, 10, 20);
  CHECK(FinalState(*second) == expected);
}

TEST_CASE("a step of the dense model in halves is skipped as well") {
  DenseModelConfig config;
  config.embedding_width = 2;
  config.tasks = {{"rating", Loss::kMse}};
  auto model = std::move(*MakeCpuDenseModel(config));
  const std::vector<float> weights(model->Tensors()[0].values.begin(), model->Tensors()[0].values.end());
  std::vector<float> input{1, 1}, label{1e30f}, gradient(2);
  DenseStep step{.step = 1, .rows = 1, .input = input.data(), .labels = label.data(),
                 .embedding_gradient = gradient.data(), .loss_scale = 1e10f};
  REQUIRE(model->StartStep(&step).ok());
  REQUIRE(model->FinishStep(&step).ok());
  CHECK(step.skipped);
  CHECK(std::isfinite(step.loss));
  CHECK(std::vector<float>(model->Tensors()[0].values.begin(), model->Tensors()[0].values.end()) == weights);
  label[0] = 1;
  REQUIRE(model->StartStep(&step).ok());
  REQUIRE(model->FinishStep(&step).ok());
  CHECK_FALSE(step.skipped);
}

}  // namespace persia
