#include "dense/dense_model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "allocation_count.h"
#include "dense_data.h"

namespace persia {
namespace {

DenseModelConfig SmallConfig() {
  DenseModelConfig config;
  config.embedding_width = 6;
  config.dense_count = 2;
  config.hidden = {8, 4};
  config.tasks = {{"click", Loss::kBce, 1.0f}};
  config.seed = 3;
  return config;
}

// Large enough that every kind of product and the optimizer are split over threads.
DenseModelConfig LargeConfig(uint32_t threads) {
  DenseModelConfig config = SmallConfig();
  config.embedding_width = 60;
  config.dense_count = 7;
  config.hidden = {512, 200};
  config.optimizer.clip_norm = 0.1;
  config.threads = threads;
  return config;
}

std::unique_ptr<DenseModel> Make(const DenseModelConfig& config) {
  auto model = MakeCpuDenseModel(config);
  REQUIRE(model.ok());
  return std::move(*model);
}

// Trains `steps` steps on batches of changing size, with predictions of other sizes in between.
void Train(DenseModel& model, uint64_t steps, bool predict_between) {
  for (uint64_t step = 1; step <= steps; ++step) {
    const uint32_t rows = step % 2 == 0 ? 100 : 257;
    const Data data = RandomData(model.config(), rows, step);
    std::vector<float> embedding_gradient(size_t{rows} * model.config().embedding_width), outputs(600);
    double loss = 0;
    REQUIRE(model.ForwardBackward(rows, data.input.data(), data.labels.data(), embedding_gradient.data(), &loss).ok());
    const Data other = RandomData(model.config(), 600, step);
    if (predict_between) REQUIRE(model.Predict(600, other.input.data(), outputs.data()).ok());
    REQUIRE(model.ApplyGradients(step).ok());
  }
}

std::vector<float> Values(DenseModel& model) {
  std::vector<float> values;
  for (const auto& tensor : model.Tensors()) values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("Dense training is bit-identical from run to run for any number of threads") {
  for (uint32_t threads : {1u, 2u, 5u}) {
    auto first = Make(LargeConfig(threads)), second = Make(LargeConfig(threads));
    Train(*first, 6, false);
    Train(*second, 6, false);
    CHECK(SameBits(Values(*first), Values(*second)));
  }
}

TEST_CASE("Dense training does not notice predictions between its steps") {
  auto undisturbed = Make(LargeConfig(2)), disturbed = Make(LargeConfig(2));
  Train(*undisturbed, 4, false);
  Train(*disturbed, 4, true);
  CHECK(SameBits(Values(*undisturbed), Values(*disturbed)));
}

TEST_CASE("Dense training with several threads agrees with one thread") {
  auto one = Make(LargeConfig(1)), several = Make(LargeConfig(4));
  Train(*one, 6, false);
  Train(*several, 6, false);
  const auto expected = Values(*one), values = Values(*several);
  double worst = 0;
  for (size_t i = 0; i < values.size(); ++i) worst = std::max(worst, std::abs(double{values[i]} - expected[i]));
  CHECK(worst < 1e-4);
}

TEST_CASE("Dense weights start within 1/sqrt(fan_in), depend on the seed and fill the range") {
  auto config = LargeConfig(1);
  auto model = Make(config);
  const auto weight = model->Tensors()[2];
  CHECK(weight.name == "layer.1.weight");
  const float bound = 1.0f / std::sqrt(512.0f);
  const auto [low, high] = std::minmax_element(weight.values.begin(), weight.values.end());
  CHECK(*low >= -bound);
  CHECK(*low < -0.99f * bound);
  CHECK(*high <= bound);
  CHECK(*high > 0.99f * bound);
  config.seed += 1;
  CHECK(Make(config)->Tensors()[2].values[0] != weight.values[0]);
}

TEST_CASE("Dense tensors have torch's names and shapes and restore a model exactly") {
  auto config = SmallConfig();
  config.optimizer.type = DenseOptimizerType::kAdamW;
  auto trained = Make(config), restored = Make(config);
  Train(*trained, 3, false);
  std::set<std::string> names;
  auto target = restored->Tensors();
  for (const auto& tensor : trained->Tensors()) {
    std::copy(tensor.values.begin(), tensor.values.end(), target[names.size()].values.begin());
    names.insert(tensor.name);
  }
  CHECK(names.size() == 18);  // three layers, weight and bias, each with two moments
  CHECK(names.count("layer.2.bias.exp_avg_sq") == 1);
  CHECK(target[0].shape == std::vector<uint64_t>{8, 8});
  CHECK(target[4].shape == std::vector<uint64_t>{1, 4});

  const Data data = RandomData(config, 20, 99);
  std::vector<float> gradient(20 * 6);
  double loss = 0, restored_loss = 0;
  REQUIRE(trained->ForwardBackward(20, data.input.data(), data.labels.data(), gradient.data(), &loss).ok());
  REQUIRE(restored->ForwardBackward(20, data.input.data(), data.labels.data(), gradient.data(), &restored_loss).ok());
  REQUIRE(trained->ApplyGradients(4).ok());
  REQUIRE(restored->ApplyGradients(4).ok());
  CHECK(loss == restored_loss);
  CHECK(SameBits(Values(*trained), Values(*restored)));
}

TEST_CASE("Dense sgd keeps state only with momentum") {
  auto config = SmallConfig();
  config.optimizer.type = DenseOptimizerType::kSgd;
  CHECK(Make(config)->Tensors().size() == 6);
  config.optimizer.momentum = 0.9;
  const auto tensors = Make(config)->Tensors();
  CHECK(tensors.size() == 12);
  CHECK(tensors.back().name == "layer.2.bias.momentum_buffer");
}

// Counts what is told to it, as a trainer's sink does.
class CountingSink final : public GradientSink {
 public:
  void BucketReady(size_t, std::span<float>) override { ++buckets; }
  size_t buckets = 0;
};

TEST_CASE("Dense training allocates nothing once it has seen its largest batch" * doctest::skip(!kCountsAllocations)) {
  auto model = Make(LargeConfig(2));
  const Data data = RandomData(model->config(), 257, 1);
  std::vector<float> embedding_gradient(size_t{257} * model->config().embedding_width), outputs(257);
  CountingSink sink;
  double loss = 0;
  bool good = true;
  const auto step = [&](uint64_t number, uint32_t rows) {
    good = good && model->ForwardBackward(rows, data.input.data(), data.labels.data(), embedding_gradient.data(), &loss,
                                          {rows, &sink}).ok();
    good = good && model->ApplyGradients(number).ok();
    good = good && model->Predict(rows, data.input.data(), outputs.data()).ok();
  };
  step(1, 257);
  const uint64_t before = AllocationCount();
  for (uint64_t number = 2; number <= 6; ++number) step(number, number % 2 == 0 ? 100 : 257);
  CHECK(AllocationCount() - before == 0);
  CHECK(good);
  CHECK(sink.buckets == 6 * model->Gradients().size());
}

TEST_CASE("A loss that is not finite is refused and changes nothing") {
  auto model = Make(SmallConfig());
  Train(*model, 2, false);
  const auto before = Values(*model);
  const std::vector<float> gradients_before(model->Gradients()[0].begin(), model->Gradients()[0].end());
  Data data = RandomData(model->config(), 5, 1);
  data.input[9] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> embedding_gradient(5 * 6, 42.0f);
  double loss = 7;
  const Status status =
      model->ForwardBackward(5, data.input.data(), data.labels.data(), embedding_gradient.data(), &loss);
  CHECK(status.code() == ErrorCode::kNonFiniteLoss);
  CHECK(loss == 7);
  CHECK(embedding_gradient == std::vector<float>(5 * 6, 42.0f));
  CHECK(SameBits(Values(*model), before));
  CHECK(SameBits({model->Gradients()[0].begin(), model->Gradients()[0].end()}, gradients_before));
}

TEST_CASE("Clipping refuses gradients whose norm is not finite and changes nothing") {
  auto config = SmallConfig();
  config.optimizer.clip_norm = 1.0;
  auto model = Make(config);
  Train(*model, 1, false);
  const auto before = Values(*model);
  model->Gradients()[0][3] = std::numeric_limits<float>::infinity();
  CHECK(model->ApplyGradients(2).code() == ErrorCode::kNonFiniteLoss);
  CHECK(SameBits(Values(*model), before));
}

TEST_CASE("Dense prediction of one row equals that row in a larger batch") {
  auto config = SmallConfig();
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 1.0f}};
  auto model = Make(config);
  const Data data = RandomData(config, 9, 2);
  std::vector<float> all(9 * 2), one(2);
  REQUIRE(model->Predict(9, data.input.data(), all.data()).ok());
  REQUIRE(model->Predict(1, data.input.data() + 4 * config.input_width(), one.data()).ok());
  CHECK(one[0] == doctest::Approx(all[8]).epsilon(1e-5));
  CHECK(one[1] == doctest::Approx(all[9]).epsilon(1e-5));
  CHECK(all[0] > 0.0f);
  CHECK(all[0] < 1.0f);
}

TEST_CASE("A batch of no rows predicts nothing and cannot be trained on") {
  auto model = Make(SmallConfig());
  double loss = 0;
  CHECK(model->Predict(0, nullptr, nullptr).ok());
  CHECK(model->ForwardBackward(0, nullptr, nullptr, nullptr, &loss).code() == ErrorCode::kBatchInvalid);
}

TEST_CASE("The rate goes by the step, Adam's bias correction by the update") {
  const auto trained = [](DenseOptimizerType type, const ScheduleConfig& schedule, uint64_t step, uint64_t update) {
    auto config = SmallConfig();
    config.optimizer.type = type;
    config.schedule = schedule;
    auto model = Make(config);
    const Data data = RandomData(config, 16, 1);
    std::vector<float> gradient(16 * config.embedding_width), weights;
    double loss = 0;
    REQUIRE(model->ForwardBackward(16, data.input.data(), data.labels.data(), gradient.data(), &loss).ok());
    REQUIRE(model->ApplyGradients(step, update).ok());
    for (const NamedTensor& tensor : model->Tensors()) {
      weights.insert(weights.end(), tensor.values.begin(), tensor.values.end());
    }
    return weights;
  };
  const ScheduleConfig halving{.type = ScheduleType::kStep, .every_steps = 5, .gamma = 0.5};
  CHECK(trained(DenseOptimizerType::kSgd, halving, 7, 40) == trained(DenseOptimizerType::kSgd, halving, 7, 0));
  CHECK(trained(DenseOptimizerType::kSgd, halving, 7, 40) != trained(DenseOptimizerType::kSgd, halving, 40, 0));
  CHECK(trained(DenseOptimizerType::kAdam, {}, 7, 40) == trained(DenseOptimizerType::kAdam, {}, 40, 0));
  CHECK(trained(DenseOptimizerType::kAdam, {}, 7, 40) != trained(DenseOptimizerType::kAdam, {}, 7, 0));
}

TEST_CASE("Dense models that cannot be built are refused with the reason") {
  auto config = SmallConfig();
  config.tasks.clear();
  CHECK(MakeCpuDenseModel(config).status().code() == ErrorCode::kConfigInvalid);
  config = SmallConfig();
  config.embedding_width = config.dense_count = 0;
  CHECK(MakeCpuDenseModel(config).status().code() == ErrorCode::kConfigInvalid);
  config = SmallConfig();
  config.hidden = {8, 0};
  CHECK(MakeCpuDenseModel(config).status().code() == ErrorCode::kConfigInvalid);
  config.hidden = {4000000000u, 4000000000u};
  CHECK(MakeCpuDenseModel(config).status().code() == ErrorCode::kOutOfMemory);
  config = SmallConfig();
  config.schedule.every_steps = 0;
  CHECK(MakeCpuDenseModel(config).status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("A constant schedule only warms up") {
  const ScheduleConfig schedule{.warmup_steps = 4};
  CHECK(ScheduleFactor(schedule, 1) == 0.25);
  CHECK(ScheduleFactor(schedule, 4) == 1.0);
  CHECK(ScheduleFactor(schedule, 1000) == 1.0);
  CHECK(ScheduleFactor({}, 1) == 1.0);
}

TEST_CASE("A step schedule decays after each whole period") {
  const ScheduleConfig schedule{.type = ScheduleType::kStep, .every_steps = 10, .gamma = 0.5};
  CHECK(ScheduleFactor(schedule, 10) == 1.0);
  CHECK(ScheduleFactor(schedule, 11) == 0.5);
  CHECK(ScheduleFactor(schedule, 31) == 0.125);
}

TEST_CASE("Linear and cosine schedules go from 1 after warm-up to the final factor and stay there") {
  for (const auto type : {ScheduleType::kLinear, ScheduleType::kCosine}) {
    const ScheduleConfig schedule{.type = type, .warmup_steps = 10, .total_steps = 110, .final_factor = 0.2};
    CHECK(ScheduleFactor(schedule, 5) == 0.5);
    CHECK(ScheduleFactor(schedule, 10) == 1.0);
    CHECK(ScheduleFactor(schedule, 60) == doctest::Approx(0.6));
    const double quarter = type == ScheduleType::kLinear ? 0.8 : 0.6 + 0.4 * std::sqrt(0.5);
    CHECK(ScheduleFactor(schedule, 35) == doctest::Approx(quarter));
    CHECK(ScheduleFactor(schedule, 110) == doctest::Approx(0.2));
    CHECK(ScheduleFactor(schedule, 9999) == doctest::Approx(0.2));
  }
}

TEST_CASE("A schedule that ends before its warm-up does warms up and then holds the final factor") {
  const ScheduleConfig schedule{
      .type = ScheduleType::kLinear, .warmup_steps = 10, .total_steps = 5, .final_factor = 0.5};
  CHECK(ScheduleFactor(schedule, 10) == 1.0);
  CHECK(ScheduleFactor(schedule, 11) == 0.5);
}

}  // namespace
}  // namespace persia
