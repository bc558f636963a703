// The network on every unit of own products that runs here: against OpenBLAS's, in bf16 against PyTorch's CPU autocast
// (test/golden/dense_bf16_golden.py), and what holds bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "allocation_count.h"
#include "dense/cpu_model.h"
#include "dense_data.h"
#include "golden.h"
#include "product_units.h"

namespace persia {
namespace {

// Of gradients of a bf16 step, relative to their norm. Sums near 0 are rounded to the other side of it, and their ReLU
// lets a gradient through or not: of one sum in a few hundred, which is some 5 % of the norm, more after narrow layers.
constexpr double kBf16Rounding = 0.15;
constexpr double kFp32Rounding = 1e-5;

double RoundingOf(ProductUnit unit) { return IsBf16(unit) ? kBf16Rounding : kFp32Rounding; }

// No width is a multiple of a panel's.
DenseModelConfig Config(ModelType type, uint32_t threads) {
  DenseModelConfig config;
  config.type = type;
  config.embedding_width = 40;
  for (const char* name : {"a", "b", "c", "d", "e"}) config.fields.push_back({name, 8});
  config.dense_count = 5;
  config.hidden = {300, 70, 33};
  config.bottom = {50};
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 0.5f}};
  config.optimizer.lr = 1e-3;
  config.seed = 7;
  config.threads = threads;
  return config;
}

std::unique_ptr<DenseModel> Make(const DenseModelConfig& config, ProductUnit unit) {
  auto model = MakeCpuDenseModel(config, unit);
  REQUIRE(model.ok());
  return std::move(*model);
}

// All gradients of a step, the embeddings' last, and its loss.
struct Gradients {
  std::vector<float> values, embeddings;
  double loss = 0;
};

Gradients GradientsOf(DenseModel& model, uint32_t rows, uint64_t key) {
  const Data data = RandomData(model.config(), rows, key);
  Gradients gradients;
  gradients.embeddings.resize(size_t{rows} * model.config().embedding_width);
  REQUIRE(model.ForwardBackward(rows, data.input.data(), data.labels.data(), gradients.embeddings.data(),
                                &gradients.loss).ok());
  for (const auto bucket : model.Gradients()) {
    gradients.values.insert(gradients.values.end(), bucket.begin(), bucket.end());
  }
  return gradients;
}

std::vector<float> Values(DenseModel& model) {
  std::vector<float> values;
  for (const auto& tensor : model.Tensors()) values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  return values;
}

void Train(DenseModel& model, uint64_t steps) {
  for (uint64_t step = 1; step <= steps; ++step) {
    GradientsOf(model, step % 2 == 0 ? 100 : 257, step);
    REQUIRE(model.ApplyGradients(step).ok());
  }
}

// |a - b| / |b|
double RelativeDistance(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  REQUIRE(norm > 0);
  return std::sqrt(difference / norm);
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("own products: loss and all gradients agree with OpenBLAS's within their rounding, for every model type") {
  for (const ProductUnit unit : AllUnitsHere()) {
    for (const ModelType type : {ModelType::kFfnn, ModelType::kDeepFm, ModelType::kDcn, ModelType::kDlrm}) {
      auto model = Make(Config(type, 2), unit), reference = Make(Config(type, 2), ProductUnit::kLibrary);
      const Gradients seen = GradientsOf(*model, 75, 1), expected = GradientsOf(*reference, 75, 1);
      CAPTURE(ProductUnitName(unit));
      CAPTURE(static_cast<int>(type));
      CHECK(std::abs(seen.loss - expected.loss) < (IsBf16(unit) ? 2e-3 : 1e-6) * expected.loss);
      CHECK(RelativeDistance(seen.values, expected.values) < RoundingOf(unit));
      CHECK(RelativeDistance(seen.embeddings, expected.embeddings) < RoundingOf(unit));
      CHECK_FALSE(SameBits(seen.values, expected.values));
    }
  }
}

TEST_CASE("own products: networks without hidden layers and batches of one row work too") {
  for (const ProductUnit unit : AllUnitsHere()) {
    for (const bool hidden : {false, true}) {
      DenseModelConfig config = Config(ModelType::kFfnn, 2);
      if (!hidden) config.hidden.clear();
      auto model = Make(config, unit), reference = Make(config, ProductUnit::kLibrary);
      for (const uint32_t rows : {1u, 33u}) {
        const Gradients seen = GradientsOf(*model, rows, 1), expected = GradientsOf(*reference, rows, 1);
        CHECK(RelativeDistance(seen.values, expected.values) < RoundingOf(unit));
        CHECK(RelativeDistance(seen.embeddings, expected.embeddings) < RoundingOf(unit));
      }
    }
  }
}

TEST_CASE("bf16: units differ by no more than the rounding of sums") {
  const std::vector<ProductUnit> units = UnitsHere<Bf16>();
  auto portable = Make(Config(ModelType::kFfnn, 1), units[0]);
  const Gradients expected = GradientsOf(*portable, 257, 1);
  for (const ProductUnit unit : units) {
    auto model = Make(Config(ModelType::kFfnn, 1), unit);
    CAPTURE(ProductUnitName(unit));
    CHECK(RelativeDistance(GradientsOf(*model, 257, 1).values, expected.values) < 2e-3);
  }
}

TEST_CASE("own products: a batch of no rows predicts nothing") {
  for (const ProductUnit unit : AllUnitsHere()) {
    auto model = Make(Config(ModelType::kDlrm, 2), unit);
    CHECK(model->Predict(0, nullptr, nullptr).ok());
  }
}

TEST_CASE("own products: training gives the same bits for any number of threads") {
  for (const ProductUnit unit : AllUnitsHere()) {
    auto one = Make(Config(ModelType::kFfnn, 1), unit);
    Train(*one, 4);
    for (const uint32_t threads : {2u, 5u}) {
      auto several = Make(Config(ModelType::kFfnn, threads), unit);
      Train(*several, 4);
      CAPTURE(ProductUnitName(unit));
      CHECK(SameBits(Values(*several), Values(*one)));
    }
  }
}

TEST_CASE("own products: a step and a prediction allocate nothing once they have seen their largest batch") {
  if (!kCountsAllocations) {
    MESSAGE("skipped: a sanitizer's operator new is not counted");
    return;
  }
  for (const ProductUnit unit : AllUnitsHere()) {
    const DenseModelConfig config = Config(ModelType::kDlrm, 3);
    auto model = Make(config, unit);
    const Data data = RandomData(config, 200, 1);
    std::vector<float> gradient(200 * config.embedding_width), outputs(400);
    double loss = 0;
    const auto step = [&](uint32_t rows) {
      return model->ForwardBackward(rows, data.input.data(), data.labels.data(), gradient.data(), &loss).ok() &&
             model->ApplyGradients(1).ok() && model->Predict(rows, data.input.data(), outputs.data()).ok();
    };
    REQUIRE(step(200));
    CAPTURE(ProductUnitName(unit));  // before counting: doctest's first capture allocates
    const uint64_t before = AllocationCount();
    for (const uint32_t rows : {200u, 7u, 64u}) REQUIRE(step(rows));
    CHECK(AllocationCount() == before);
  }
}

TEST_CASE("own products: weights that were written count, and stay what they are in float32") {
  const DenseModelConfig config = Config(ModelType::kDlrm, 2);
  for (const ProductUnit unit : AllUnitsHere()) {
    auto trained = Make(config, unit), restored = Make(config, unit);
    Train(*trained, 3);
    const Data data = RandomData(config, 50, 9);
    std::vector<float> expected(100), seen(100);
    REQUIRE(trained->Predict(50, data.input.data(), expected.data()).ok());
    REQUIRE(restored->Predict(50, data.input.data(), seen.data()).ok());
    CHECK_FALSE(SameBits(seen, expected));
    auto target = restored->Tensors();
    const auto source = trained->Tensors();
    for (size_t i = 0; i < source.size(); ++i) std::ranges::copy(source[i].values, target[i].values.begin());
    REQUIRE(restored->WriteTensors().ok());
    REQUIRE(restored->Predict(50, data.input.data(), seen.data()).ok());
    CHECK(SameBits(seen, expected));
    CHECK(SameBits(Values(*restored), Values(*trained)));
  }
}

// float32 and autocast part by themselves in a hundred steps: autocast's distance is the measure.
TEST_CASE("bf16: after 100 steps training is as close to float32 as PyTorch's autocast is") {
  constexpr uint32_t kSteps = 100, kBatches = 4, kRows = 48;
  constexpr double kMargin = 1.5;
  const GoldenFile golden("dense_bf16.txt");
  DenseModelConfig config;
  config.embedding_width = 16;
  config.dense_count = 3;
  config.hidden = {40, 24};
  config.tasks = {{"click", Loss::kBce, 1.0f}};
  config.optimizer.lr = 0.003;
  config.threads = 1;
  const auto check = [&](const std::string& name, std::span<const float> seen) {
    const auto& exact = golden["fp32." + name].values;
    const double autocast = RelativeDistance(golden["bf16." + name].values, exact);
    CAPTURE(name);
    CHECK(RelativeDistance(seen, exact) < kMargin * autocast);
  };
  for (const ProductUnit unit : UnitsHere<Bf16>()) {
    auto model = Make(config, unit);
    for (auto& tensor : model->Tensors()) {
      if (tensor.name.find(".exp_avg") != std::string::npos) continue;
      std::ranges::copy(golden["start." + tensor.name].values, tensor.values.begin());
    }
    REQUIRE(model->WriteTensors().ok());
    std::vector<float> losses, gradient(kRows * config.embedding_width), predictions(kRows);
    const float *inputs = golden["inputs"].values.data(), *labels = golden["labels"].values.data();
    CAPTURE(ProductUnitName(unit));
    for (uint32_t step = 0; step < kSteps; ++step) {
      const uint32_t batch = step % kBatches;
      double loss = 0;
      REQUIRE(model->ForwardBackward(kRows, inputs + batch * kRows * config.input_width(), labels + batch * kRows,
                                     gradient.data(), &loss).ok());
      if (step == 0) check("embedding_gradient", gradient);
      losses.push_back(static_cast<float>(loss));
      REQUIRE(model->ApplyGradients(step + 1).ok());
    }
    REQUIRE(model->Predict(kRows, inputs, predictions.data()).ok());
    check("losses", losses);
    check("predictions", predictions);
    for (const auto& tensor : model->Tensors()) {
      if (tensor.name.ends_with(".weight")) check(tensor.name, tensor.values);
    }
  }
}

TEST_CASE("bf16: a CPU without bf16 products refuses it with the reason, and has float32") {
  auto unit = UnitFor(Precision::kBf16, ProductUnit::kFp32Avx512, ProductUnit::kLibrary);
  CHECK(unit.status().code() == ErrorCode::kConfigUnsupported);
  CHECK(unit.status().message().find("AMX-BF16 or AVX512-BF16") != std::string::npos);
  for (const ProductUnit fp32 : {ProductUnit::kLibrary, ProductUnit::kFp32Avx512}) {
    for (const ProductUnit bf16 : {ProductUnit::kLibrary, ProductUnit::kBf16Avx512, ProductUnit::kBf16Amx}) {
      CHECK(*UnitFor(Precision::kFp32, fp32, bf16) == fp32);
      if (bf16 != ProductUnit::kLibrary) CHECK(*UnitFor(Precision::kBf16, fp32, bf16) == bf16);
    }
  }
}

TEST_CASE("own products: a model takes the best unit of its CPU for its precision, in bf16 perhaps none") {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const ProductUnit best = precision == Precision::kFp32 ? BestFp32Unit() : BestBf16Unit();
    DenseModelConfig config = Config(ModelType::kFfnn, 1);
    config.precision = precision;
    auto model = MakeCpuDenseModel(config);
    REQUIRE(model.ok() == (precision == Precision::kFp32 || IsBf16(best)));
    if (!model.ok()) continue;
    auto expected = Make(config, best);
    CHECK(SameBits(GradientsOf(**model, 40, 1).values, GradientsOf(*expected, 40, 1).values));
  }
}

TEST_CASE("own products: memory is counted with the two copies of the weights that they multiply") {
  const bool own_fp32 = BestFp32Unit() != ProductUnit::kLibrary;
  for (const ModelType type : {ModelType::kFfnn, ModelType::kDcn, ModelType::kDlrm}) {
    DenseModelConfig config = Config(type, 1);
    const double fp32 = DenseModelBytes(config);
    config.precision = Precision::kBf16;
    // Each of hidden layers, heads and the bottom MLP; cross layers and what heads make of them are OpenBLAS's.
    double weights = 300 * 70 + 70 * 33 + 33 * 2;
    weights += type == ModelType::kDlrm ? (8 + 15) * 300 + 5 * 50 + 50 * 8 : 45 * 300;
    const double copies_fp32 = own_fp32 ? 2 * 4 * weights : 0, copies_bf16 = 2 * 2 * weights;
    CAPTURE(static_cast<int>(type));
    CHECK(DenseModelBytes(config) - copies_bf16 == fp32 - copies_fp32);
  }
}

}  // namespace
}  // namespace persia
