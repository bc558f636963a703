// The whole trainer with its dense network on a GPU, or on the emulation.
#include <doctest/doctest.h>

#include <cmath>

#include "trainer_fixtures.h"

namespace persia {
namespace {

TrainerConfig OnGpu(TrainerConfig config) {
  config.device = DenseDevice::kCuda;
  return config;
}

std::vector<float> Predictions(ModelTrainer& trainer) {
  std::vector<float> outputs;
  REQUIRE(trainer.Predict(*MakeBatch(7000), &outputs).ok());
  return outputs;
}

double MostApart(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  return most;
}

TEST_CASE("a trainer whose network is on a GPU learns what one on the CPU learns, in every order of stages") {
  TrainerConfig config = SmallConfig(0, false);
  SUBCASE("sync: every step is finished before the next lookup") { config.mode = TrainerMode::kSync; }
  SUBCASE("hybrid, deterministic: up to two steps in flight") { config = SmallConfig(4, true); }
  SUBCASE("several workers, whose gradients meet on the host") {
    config.mode = TrainerMode::kSync;
    config.nn_workers = 2;
    config.accumulate = 2;
  }
  const auto cpu = Make(config), gpu = Make(OnGpu(config));
  for (ModelTrainer* trainer : {static_cast<ModelTrainer*>(cpu.get()), static_cast<ModelTrainer*>(gpu.get())}) {
    Train(*trainer, 1, 60);
    REQUIRE(DrainAndWait(*trainer).ok());
    CHECK(trainer->progress().steps == 60);
    CHECK(trainer->progress().staleness == 0);
  }
  CHECK(MostApart(Predictions(*gpu), Predictions(*cpu)) < 1e-3);
}

TEST_CASE("a pause comes although a step is in flight on a GPU, and what was saved goes on on the CPU") {
  const TrainerConfig config = SmallConfig(4, false);
  const auto gpu = Make(OnGpu(config));
  Waiter paused;
  gpu->Pause(20, paused.completion());
  for (uint64_t step = 1; step <= 24; ++step) gpu->Push(MakeBatch(step), [](Status) {});
  REQUIRE(paused.Wait().ok());
  CHECK(gpu->progress().steps == 20);
  const Saved saved(*gpu);
  const auto cpu = Make(config);
  REQUIRE(cpu->Restore(saved.path, saved.files).ok());
  CHECK(MostApart(Predictions(*gpu), Predictions(*cpu)) < 1e-5);
  gpu->Resume();
  REQUIRE(DrainAndWait(*gpu).ok());
  CHECK(gpu->progress().steps == 24);
  Train(*cpu, 21, 24);
  REQUIRE(DrainAndWait(*cpu).ok());
}

TEST_CASE("mode async on a GPU is refused with what to do instead") {
  TrainerConfig config = OnGpu(SmallConfig(4, false));
  config.mode = TrainerMode::kAsync;
  const auto refused = Trainer::Create(config);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.status().code() == ErrorCode::kConfigUnsupported);
  CHECK(refused.status().message().find("device cpu") != std::string::npos);
}

}  // namespace
}  // namespace persia
