// The interactions of the model types: parity with PyTorch (test/golden/interaction_golden.py), what is refused, and
// that they behave as every dense model does. Their gradients: dense_gradient_test.cc.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "allocation_count.h"
#include "base/rng.h"
#include "dense/dense_model.h"
#include "golden.h"

namespace persia {
namespace {

constexpr uint32_t kSteps = 10, kRows = 20, kTasks = 2;

DenseModelConfig Config(ModelType type, CrossConfig cross = {}) {
  DenseModelConfig config;
  config.type = type;
  config.fields = {{"user", 3}, {"ad", 3}, {"site", 3}, {"hour", 3}};
  config.embedding_width = 12;
  config.dense_count = 5;
  config.hidden = {16, 8};
  config.bottom = {7};
  config.cross = cross;
  config.tasks = {{"click", Loss::kBce, 1.0f, 5.0f}, {"rating", Loss::kMse, 0.5f}};
  config.optimizer = {.type = DenseOptimizerType::kAdam, .lr = 0.01};
  return config;
}

// All model types, large enough that their products are split over threads and their passes over bands.
std::vector<DenseModelConfig> LargeConfigs(uint32_t threads) {
  std::vector<DenseModelConfig> configs;
  for (const auto type : {ModelType::kDeepFm, ModelType::kDcn, ModelType::kDcn, ModelType::kDcn, ModelType::kDlrm}) {
    auto config = Config(type);
    config.fields.assign(12, {"field", 8});
    config.embedding_width = 96;
    config.hidden = {300};
    config.bottom = {200};
    config.threads = threads;
    config.cross.structure = configs.size() == 1 ? CrossStructure::kStacked : CrossStructure::kParallel;
    config.cross.rank = configs.size() == 3 ? 40 : 0;
    configs.push_back(config);
  }
  return configs;
}

std::unique_ptr<DenseModel> Make(const DenseModelConfig& config) {
  auto model = MakeCpuDenseModel(config);
  REQUIRE(model.ok());
  return std::move(*model);
}

struct Data {
  std::vector<float> input, labels, embedding_gradient, outputs;

  Data(const DenseModelConfig& config, uint32_t rows, uint64_t key)
      : input(size_t{rows} * config.input_width()),
        labels(rows * config.tasks.size()),
        embedding_gradient(size_t{rows} * config.embedding_width),
        outputs(labels.size()) {
    Rng rng(key);
    for (float& value : input) value = static_cast<float>(rng.Normal());
    for (float& label : labels) label = rng.Uniform() < 0.5 ? 0.0f : 1.0f;
  }
};

void CheckTraining(const std::string& name, const DenseModelConfig& config) {
  const GoldenFile golden("dense_interactions.txt");
  auto model = Make(config);
  for (auto& tensor : model->Tensors()) {
    const bool state = tensor.name.find(".exp_avg") != std::string::npos;
    if (state) continue;
    const GoldenTensor& start = golden[name + ".start." + tensor.name];
    REQUIRE(start.shape == tensor.shape);
    std::ranges::copy(start.values, tensor.values.begin());
  }
  Data data(config, kRows, 1);
  std::vector<float> losses;
  const float *inputs = golden["inputs"].values.data(), *labels = golden["labels"].values.data();
  for (uint32_t step = 1; step <= kSteps; ++step) {
    double loss = 0;
    const size_t at = size_t{step - 1} * kRows;
    REQUIRE(model->ForwardBackward(kRows, inputs + at * config.input_width(), labels + at * kTasks,
                                   data.embedding_gradient.data(), &loss).ok());
    if (step == 1) CheckClose(golden, name + ".first_embedding_gradient", data.embedding_gradient, 1e-6);
    losses.push_back(static_cast<float>(loss));
    REQUIRE(model->ApplyGradients(step).ok());
  }
  REQUIRE(model->Predict(kRows, inputs, data.outputs.data()).ok());
  CheckClose(golden, name + ".losses", losses, 2e-5);
  CheckClose(golden, name + ".embedding_gradient", data.embedding_gradient, 2e-6);
  CheckClose(golden, name + ".predictions", data.outputs, 2e-5);
  for (const auto& tensor : model->Tensors()) CheckClose(golden, name + "." + tensor.name, tensor.values, 2e-5);
}

TEST_CASE("Training with positive labels that weigh more equals PyTorch's pos_weight") {
  CheckTraining("ffnn", Config(ModelType::kFfnn));
}

TEST_CASE("Training deepfm equals PyTorch") { CheckTraining("deepfm", Config(ModelType::kDeepFm)); }

TEST_CASE("Training dcn equals PyTorch, stacked of full rank and parallel of low rank") {
  CheckTraining("dcn_stacked", Config(ModelType::kDcn, {2, 0, CrossStructure::kStacked}));
  CheckTraining("dcn_parallel", Config(ModelType::kDcn, {3, 4, CrossStructure::kParallel}));
}

TEST_CASE("Training dlrm equals PyTorch") { CheckTraining("dlrm", Config(ModelType::kDlrm)); }

TEST_CASE("Hidden layers start alike whatever the model type") {
  const auto start = [](ModelType type) {
    auto model = Make(Config(type));
    for (const auto& tensor : model->Tensors()) {
      if (tensor.name == "layer.1.weight") return std::vector<float>(tensor.values.begin(), tensor.values.end());
    }
    return std::vector<float>();
  };
  const auto expected = start(ModelType::kFfnn);
  CHECK(expected.size() == 128);
  for (const auto type : {ModelType::kDeepFm, ModelType::kDcn, ModelType::kDlrm}) CHECK(start(type) == expected);
}

std::vector<float> Train(const DenseModelConfig& config) {
  auto model = Make(config);
  for (uint64_t step = 1; step <= 4; ++step) {
    Data data(config, step % 2 == 0 ? 70 : 300, step), other(config, 400, step);
    double loss = 0;
    REQUIRE(model->ForwardBackward(static_cast<uint32_t>(data.outputs.size() / kTasks), data.input.data(),
                                   data.labels.data(), data.embedding_gradient.data(), &loss).ok());
    if (step == 2) REQUIRE(model->Predict(400, other.input.data(), other.outputs.data()).ok());
    REQUIRE(model->ApplyGradients(step).ok());
  }
  std::vector<float> values;
  for (const auto& tensor : model->Tensors()) values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  return values;
}

TEST_CASE("Training of every model type is bit-identical from run to run and agrees between numbers of threads") {
  for (size_t i = 0; i < LargeConfigs(1).size(); ++i) {
    CAPTURE(i);
    const auto one = Train(LargeConfigs(1)[i]), several = Train(LargeConfigs(3)[i]), again = Train(LargeConfigs(3)[i]);
    CHECK(std::memcmp(several.data(), again.data(), several.size() * sizeof(float)) == 0);
    double worst = 0;
    for (size_t n = 0; n < one.size(); ++n) worst = std::max(worst, std::abs(double{one[n]} - several[n]));
    CHECK(worst < 1e-3);
  }
}

// Keeps what every bucket held when it was told of it.
class Recording final : public GradientSink {
 public:
  void BucketReady(size_t bucket, std::span<float> gradients) override {
    order.push_back(bucket);
    values.insert(values.end(), gradients.begin(), gradients.end());
  }
  std::vector<size_t> order;
  std::vector<float> values;
};

TEST_CASE("Gradients of every model type are told bucket by bucket, once final") {
  for (auto config : LargeConfigs(2)) {
    config.hidden = {1500, 1200};
    auto model = Make(config);
    Data data(config, 40, 1);
    Recording recording;
    double loss = 0;
    REQUIRE(model->ForwardBackward(40, data.input.data(), data.labels.data(), data.embedding_gradient.data(), &loss,
                                   {40, &recording}).ok());
    REQUIRE(model->Gradients().size() > 1);
    REQUIRE(recording.order.size() == model->Gradients().size());
    std::vector<float> final_values;
    for (const auto& bucket : model->Gradients()) final_values.insert(final_values.end(), bucket.begin(), bucket.end());
    CHECK(std::ranges::is_sorted(recording.order));
    CHECK(recording.values == final_values);
  }
}

TEST_CASE("Parts of a global batch add up to the gradients of the whole for every model type") {
  for (const auto& config : LargeConfigs(1)) {
    auto whole = Make(config), part = Make(config);
    Data data(config, 200, 1);
    double loss = 0, part_loss = 0, sum = 0;
    REQUIRE(whole->ForwardBackward(200, data.input.data(), data.labels.data(), data.embedding_gradient.data(),
                                   &loss).ok());
    std::vector<double> gradients(part->Gradients()[0].size());
    std::vector<float> embedding_gradient;
    for (const auto& [begin, rows] : {std::pair{0u, 130u}, std::pair{130u, 70u}}) {
      Data piece(config, rows, 1);
      REQUIRE(part->ForwardBackward(rows, data.input.data() + size_t{begin} * config.input_width(),
                                    data.labels.data() + size_t{begin} * kTasks, piece.embedding_gradient.data(),
                                    &part_loss, {200, nullptr}).ok());
      sum += part_loss;
      for (size_t i = 0; i < gradients.size(); ++i) gradients[i] += part->Gradients()[0][i];
      embedding_gradient.insert(embedding_gradient.end(), piece.embedding_gradient.begin(),
                                piece.embedding_gradient.end());
    }
    CHECK(sum == doctest::Approx(loss).epsilon(1e-6));
    double worst = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      worst = std::max(worst, std::abs(gradients[i] - whole->Gradients()[0][i]) / (1 + std::abs(gradients[i])));
    }
    for (size_t i = 0; i < embedding_gradient.size(); ++i) {
      worst = std::max(worst, std::abs(double{embedding_gradient[i]} - data.embedding_gradient[i]));
    }
    CHECK(worst < 2e-5);
  }
}

TEST_CASE("Every model type allocates nothing after its largest batch" * doctest::skip(!kCountsAllocations)) {
  for (const auto& config : LargeConfigs(2)) {
    auto model = Make(config);
    Data data(config, 257, 1);
    double loss = 0;
    bool good = true;
    const auto step = [&](uint64_t number, uint32_t rows) {
      good = good && model->ForwardBackward(rows, data.input.data(), data.labels.data(),
                                            data.embedding_gradient.data(), &loss).ok();
      good = good && model->ApplyGradients(number).ok();
      good = good && model->Predict(rows, data.input.data(), data.outputs.data()).ok();
    };
    step(1, 257);
    const uint64_t before = AllocationCount();
    for (uint64_t number = 2; number <= 5; ++number) step(number, number % 2 == 0 ? 100 : 257);
    CHECK(AllocationCount() - before == 0);
    CHECK(good);
  }
}

TEST_CASE("One row is predicted like the same row in a larger batch by every model type") {
  for (const auto& config : LargeConfigs(1)) {
    auto model = Make(config);
    Data data(config, 21, 5), one(config, 1, 5);
    REQUIRE(model->Predict(21, data.input.data(), data.outputs.data()).ok());
    REQUIRE(model->Predict(1, data.input.data() + size_t{19} * config.input_width(), one.outputs.data()).ok());
    for (size_t task = 0; task < kTasks; ++task) {
      CHECK(one.outputs[task] == doctest::Approx(data.outputs[19 * kTasks + task]).epsilon(1e-5));
    }
    CHECK(model->Predict(0, nullptr, nullptr).ok());
  }
}

TEST_CASE("Fields that a model type cannot combine are refused by name") {
  for (const auto type : {ModelType::kDeepFm, ModelType::kDlrm}) {
    auto config = Config(type);
    config.fields[1].dim = 2;
    config.fields[3].dim = 4;
    const Status status = MakeCpuDenseModel(config).status();
    CHECK(status.code() == ErrorCode::kConfigInvalid);
    CHECK(status.message().find("ad (dim 2), hour (dim 4) differ from user (dim 3)") != std::string::npos);
    config = Config(type);
    config.fields.clear();
    config.embedding_width = 0;
    CHECK(MakeCpuDenseModel(config).status().message().find("no id features") != std::string::npos);
    config = Config(type);
    config.fields.pop_back();
    CHECK(MakeCpuDenseModel(config).status().message().find("9 wide together, the embeddings 12") !=
          std::string::npos);
  }
}

TEST_CASE("Interactions that cannot be built are refused with the reason") {
  auto config = Config(ModelType::kDcn, {0, 0, CrossStructure::kStacked});
  CHECK(MakeCpuDenseModel(config).status().message().find("at least one cross layer") != std::string::npos);
  config.cross = {1, 17, CrossStructure::kStacked};
  CHECK(MakeCpuDenseModel(config).status().message().find("rank 17") != std::string::npos);
  config = Config(ModelType::kDlrm);
  config.bottom = {0};
  CHECK(MakeCpuDenseModel(config).status().message().find("width 0") != std::string::npos);
  config.bottom = {};
  config.dense_count = 0;
  config.fields.resize(1);
  config.embedding_width = 3;
  CHECK(MakeCpuDenseModel(config).status().message().find("needs two id features") != std::string::npos);
}

}  // namespace
}  // namespace persia
