// Fifty training steps against PyTorch's result for the same inputs (test/golden/dense_golden.py).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "dense/dense_model.h"
#include "golden.h"

namespace persia {
namespace {

constexpr uint32_t kSteps = 50, kBatches = 4, kRows = 12, kEmbeddingWidth = 8, kDenseCount = 3, kTasks = 2;

void CheckTraining(const std::string& name, const DenseOptimizerConfig& optimizer, const ScheduleConfig& schedule) {
  const GoldenFile golden("dense_training.txt");
  DenseModelConfig config;
  config.embedding_width = kEmbeddingWidth;
  config.dense_count = kDenseCount;
  config.hidden = {16, 8};
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 0.5f}};
  config.optimizer = optimizer;
  config.schedule = schedule;
  auto model = MakeCpuDenseModel(config);
  REQUIRE(model.ok());
  for (auto& tensor : (*model)->Tensors()) {
    if (tensor.name.ends_with(".weight") || tensor.name.ends_with(".bias")) {
      std::ranges::copy(golden["start." + tensor.name].values, tensor.values.begin());
    }
  }

  std::vector<float> losses, embedding_gradient(kRows * kEmbeddingWidth), predictions(kRows * kTasks);
  const float* inputs = golden["inputs"].values.data();
  const float* labels = golden["labels"].values.data();
  for (uint32_t step = 1; step <= kSteps; ++step) {
    const uint32_t batch = (step - 1) % kBatches;
    double loss = 0;
    const float* x = inputs + batch * kRows * config.input_width();
    const float* y = labels + batch * kRows * kTasks;
    REQUIRE((*model)->ForwardBackward(kRows, x, y, embedding_gradient.data(), &loss).ok());
    losses.push_back(static_cast<float>(loss));
    REQUIRE((*model)->ApplyGradients(step).ok());
  }
  REQUIRE((*model)->Predict(kRows, inputs, predictions.data()).ok());

  CheckClose(golden, name + ".losses", losses, 1e-5);
  CheckClose(golden, name + ".embedding_gradient", embedding_gradient, 1e-6);
  CheckClose(golden, name + ".predictions", predictions, 1e-5);
  for (const auto& tensor : (*model)->Tensors()) CheckClose(golden, name + "." + tensor.name, tensor.values, 1e-5);
}

const ScheduleConfig kWarmupAndCosine{
    .type = ScheduleType::kCosine, .warmup_steps = 5, .total_steps = 40, .final_factor = 0.1};

TEST_CASE("Dense training with plain sgd equals PyTorch after 50 steps") {
  CheckTraining("sgd", {.type = DenseOptimizerType::kSgd, .lr = 0.05}, {});
}

TEST_CASE("Dense training with sgd, momentum, L2, clipping and a schedule equals PyTorch after 50 steps") {
  CheckTraining("momentum",
                {.type = DenseOptimizerType::kSgd, .lr = 0.05, .momentum = 0.9, .weight_decay = 0.01, .clip_norm = 0.5},
                kWarmupAndCosine);
}

TEST_CASE("Dense training with adam, L2, clipping and a schedule equals PyTorch after 50 steps") {
  CheckTraining("adam", {.type = DenseOptimizerType::kAdam, .lr = 0.01, .weight_decay = 0.01, .clip_norm = 0.5},
                kWarmupAndCosine);
}

TEST_CASE("Dense training with adamw, clipping and a schedule equals PyTorch after 50 steps") {
  CheckTraining("adamw", {.type = DenseOptimizerType::kAdamW, .lr = 0.01, .weight_decay = 0.1, .clip_norm = 0.5},
                kWarmupAndCosine);
}

}  // namespace
}  // namespace persia
