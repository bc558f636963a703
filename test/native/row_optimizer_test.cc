// Row optimizers against PyTorch, step by step, with every instruction set that this machine has.
#include "table/row_optimizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/finite.h"
#include "base/rng.h"
#include "golden.h"
#include "simd_levels.h"

namespace persia {
namespace {

constexpr size_t kSteps = 24;

struct GoldenCase {
  std::string name;
  RowOptimizerConfig config;
};

RowOptimizerConfig With(RowOptimizerConfig config, float momentum, float weight_decay, float initial_accumulator) {
  config.momentum = momentum;
  config.weight_decay = weight_decay;
  config.initial_accumulator = initial_accumulator;
  return config;
}

RowOptimizerConfig PerGroup(RowOptimizerConfig config) {
  config.bias_correction = BiasCorrection::kGroup;
  return config;
}

RowOptimizerConfig Bounded(RowOptimizerConfig config) {
  config.weight_bound = 0.15f;
  return config;
}

// The hyper-parameters of test/golden/row_optimizer_golden.py.
const RowOptimizerConfig kSgd{.type = RowOptimizerType::kSgd, .lr = 0.1f};
const RowOptimizerConfig kAdagrad{.type = RowOptimizerType::kAdagrad, .lr = 0.05f};
const RowOptimizerConfig kRowwise{.type = RowOptimizerType::kRowwiseAdagrad, .lr = 0.05f};
const RowOptimizerConfig kAdam{.type = RowOptimizerType::kAdam, .lr = 0.01f, .eps = 1e-8f};
const RowOptimizerConfig kAdamW{.type = RowOptimizerType::kAdamW, .lr = 0.01f, .weight_decay = 0.2f, .eps = 1e-8f};
const RowOptimizerConfig kFtrl{.type = RowOptimizerType::kFtrl, .lr = 0.1f};
const RowOptimizerConfig kFtrlL1{.type = RowOptimizerType::kFtrl, .lr = 0.1f, .l1 = 1.0f};
const RowOptimizerConfig kFtrlAll{.type = RowOptimizerType::kFtrl,
                                  .lr = 0.1f,
                                  .weight_decay = 0.02f,
                                  .initial_accumulator = 0.1f,
                                  .beta = 0.5f,
                                  .l1 = 0.3f,
                                  .l2 = 0.2f};

std::vector<GoldenCase> GoldenCases() {
  return {{"sgd", kSgd},
          {"sgd_decay", With(kSgd, 0.0f, 0.02f, 0.0f)},
          {"sgd_momentum", With(kSgd, 0.9f, 0.0f, 0.0f)},
          {"sgd_momentum_decay", With(kSgd, 0.9f, 0.02f, 0.0f)},
          {"adagrad", kAdagrad},
          {"adagrad_start_decay", With(kAdagrad, 0.0f, 0.02f, 0.1f)},
          {"rowwise", kRowwise},
          {"rowwise_start_decay", With(kRowwise, 0.0f, 0.02f, 0.1f)},
          {"adam", kAdam},
          {"adam_decay", With(kAdam, 0.0f, 0.02f, 0.0f)}};
}

std::vector<GoldenCase> FewDimsCases() {
  return {{"adamw", kAdamW},
          {"adam_group", PerGroup(kAdam)},
          {"adam_group_decay", PerGroup(With(kAdam, 0.0f, 0.02f, 0.0f))},
          {"adamw_group", PerGroup(kAdamW)},
          {"adam_rare", PerGroup(kAdam)},
          {"adamw_rare", PerGroup(kAdamW)},
          {"ftrl", kFtrl},
          {"ftrl_l1", kFtrlL1},
          {"ftrl_all", kFtrlAll},
          {"sgd_bound", Bounded(kSgd)},
          {"sgd_momentum_bound", Bounded(With(kSgd, 0.9f, 0.02f, 0.0f))},
          {"adagrad_bound", Bounded(With(kAdagrad, 0.0f, 0.02f, 0.1f))},
          {"rowwise_bound", Bounded(With(kRowwise, 0.0f, 0.02f, 0.1f))},
          {"adam_bound", Bounded(kAdam)},
          {"adamw_bound", Bounded(kAdamW)},
          {"ftrl_bound", Bounded(kFtrlAll)}};
}

// The steps of the row's feature group that touch it: all, or TOUCHED of the script.
std::vector<uint64_t> GroupSteps(bool rare) {
  std::vector<uint64_t> steps;
  for (uint64_t step = 1; steps.size() < kSteps; ++step) {
    if (!rare || step % 3 == 0 || step % 7 == 0) steps.push_back(step);
  }
  return steps;
}

// A new row: `start`, then the state as the optimizer wants it.
std::vector<float> NewRow(const RowOptimizer& optimizer, std::vector<float> start) {
  start.resize(optimizer.row_width(), 77.0f);
  optimizer.InitState(start.data());
  return start;
}

// The largest difference to PyTorch's rows, relative where values exceed 1.
float LargestDifference(const GoldenFile& golden, const std::string& name, const RowOptimizer& optimizer) {
  constexpr size_t kKept[] = {1, 2, 8, 24};
  const GoldenTensor& gradients = golden[name + ".gradients"];
  const GoldenTensor& rows = golden[name + ".rows"];
  REQUIRE(gradients.shape == std::vector<uint64_t>{kSteps, optimizer.dim()});
  REQUIRE(rows.shape == std::vector<uint64_t>{std::size(kKept), optimizer.row_width()});
  std::vector<float> row = NewRow(optimizer, golden[name + ".start"].values);
  const float* expected = rows.values.data();
  const std::vector<uint64_t> group_steps = GroupSteps(name.find("_rare") != std::string::npos);
  float largest = 0.0f;
  for (size_t step = 1; step <= kSteps; ++step) {
    optimizer.Apply(row.data(), &gradients.values[(step - 1) * optimizer.dim()], group_steps[step - 1]);
    if (std::find(std::begin(kKept), std::end(kKept), step) == std::end(kKept)) continue;
    for (const float value : row) {
      largest = std::max(largest, std::abs(value - *expected) / std::max(1.0f, std::abs(*expected)));
      ++expected;
    }
  }
  return largest;
}

void CheckGolden(const GoldenFile& golden, const std::vector<GoldenCase>& cases, const std::vector<uint32_t>& dims) {
  for (const SimdLevel simd : LevelsHere()) {
    for (const GoldenCase& item : cases) {
      for (const uint32_t dim : dims) {
        const std::string name = item.name + "." + std::to_string(dim);
        CAPTURE(name);
        CAPTURE(static_cast<int>(simd));
        CHECK(LargestDifference(golden, name, RowOptimizer(item.config, dim, simd)) <= 1e-6f);
      }
    }
  }
}

TEST_CASE("each row optimizer gives PyTorch's or the paper's weights and state, up to 24 steps") {
  const GoldenFile golden("row_optimizer_golden.txt");
  CheckGolden(golden, GoldenCases(), {5, 8, 16, 19});
  CheckGolden(golden, FewDimsCases(), {5, 16});
  CheckGolden(golden, {{"rowwise_start_decay", With(kRowwise, 0.0f, 0.02f, 0.1f)}}, {32, 64});
}

TEST_CASE("a wide row trains as its pieces would, element by element") {
  constexpr uint32_t kPiece = 5;
  Rng rng(3);
  for (const SimdLevel simd : LevelsHere()) {
    for (const GoldenCase& item : FewDimsCases()) {
      if (item.config.type == RowOptimizerType::kRowwiseAdagrad) continue;
      for (const uint32_t dim : {8u, 16u, 32u, 64u, 65u}) {
        const RowOptimizer wide(item.config, dim, simd);
        const RowOptimizer narrow(item.config, kPiece);
        std::vector<float> start(dim), gradients(kSteps * dim);
        for (float& value : start) value = static_cast<float>(0.1 * rng.Normal());
        for (float& value : gradients) value = static_cast<float>(0.5 * rng.Normal());
        std::vector<float> row = NewRow(wide, start);
        for (size_t step = 0; step < kSteps; ++step) wide.Apply(row.data(), &gradients[step * dim], step + 1);

        float largest = 0.0f;
        for (uint32_t begin = 0; begin + kPiece <= dim; begin += kPiece) {
          std::vector<float> piece = NewRow(narrow, {&start[begin], &start[begin] + kPiece});
          for (size_t step = 0; step < kSteps; ++step) {
            narrow.Apply(piece.data(), &gradients[step * dim + begin], step + 1);
          }
          for (uint32_t i = 0; i < kPiece; ++i) largest = std::max(largest, std::abs(piece[i] - row[begin + i]));
        }
        CAPTURE(item.name);
        CAPTURE(dim);
        CHECK(largest <= 2e-6f);
      }
    }
  }
}

TEST_CASE("the state behind a row has the documented width") {
  const auto width = [](RowOptimizerConfig config) { return RowOptimizer(config, 6).state_width(); };
  CHECK(width(kSgd) == 0);
  CHECK(width(With(kSgd, 0.9f, 0.0f, 0.0f)) == 6);
  CHECK(width(kAdagrad) == 6);
  CHECK(width(kRowwise) == 1);
  CHECK(width(kAdam) == 13);
  CHECK(width(kAdamW) == 13);
  CHECK(width(PerGroup(kAdam)) == 12);
  CHECK(width(PerGroup(kAdamW)) == 12);
  CHECK(width(kFtrl) == 12);
}

TEST_CASE("only Adam with a bias correction per group asks for the group's step") {
  CHECK(RowOptimizer(PerGroup(kAdam), 4).needs_group_step());
  CHECK(RowOptimizer(PerGroup(kAdamW), 4).needs_group_step());
  for (const RowOptimizerConfig& config : {kSgd, kAdagrad, kRowwise, kAdam, kAdamW, PerGroup(kAdagrad), kFtrl}) {
    CHECK_FALSE(RowOptimizer(config, 4).needs_group_step());
  }
}

TEST_CASE("weights stay within the bound after every update, and only then") {
  for (const auto type : {RowOptimizerType::kSgd, RowOptimizerType::kAdagrad, RowOptimizerType::kRowwiseAdagrad,
                          RowOptimizerType::kAdam, RowOptimizerType::kAdamW, RowOptimizerType::kFtrl}) {
    for (const float momentum : {0.0f, 0.5f}) {
      const RowOptimizerConfig config{.type = type, .lr = 1.0f, .momentum = momentum, .weight_bound = 0.25f};
      const RowOptimizer optimizer(config, 9);
      std::vector<float> row = NewRow(optimizer, std::vector<float>(9, 0.0f));
      std::vector<float> gradient(9, -3.0f);
      gradient[1] = 3.0f;
      gradient[2] = 0.0f;
      optimizer.Apply(row.data(), gradient.data());
      CHECK(row[0] == 0.25f);
      CHECK(row[1] == -0.25f);
      CHECK(row[2] == 0.0f);
      CHECK(row[8] == 0.25f);
    }
  }
}

TEST_CASE("Adam's first step moves by the learning rate, whatever the size of the gradient") {
  const RowOptimizer optimizer({.type = RowOptimizerType::kAdam, .lr = 0.01f, .eps = 0.0f}, 4);
  std::vector<float> row = NewRow(optimizer, {0.0f, 0.0f, 0.0f, 0.0f});
  const float gradient[] = {1e-3f, -1.0f, 50.0f, 2e-6f};
  optimizer.Apply(row.data(), gradient);
  const float expected[] = {-0.01f, 0.01f, -0.01f, -0.01f};
  for (int i = 0; i < 4; ++i) CHECK(row[i] == doctest::Approx(expected[i]).epsilon(1e-5));
}

TEST_CASE("late steps of Adam are corrected by the formula, looked up or worked out") {
  // The second step is beyond what is looked up and, with this beta2, not yet close to no correction.
  for (const float beta2 : {0.999f, 0.999999f}) {
    for (const uint64_t step : {uint64_t{1}, uint64_t{400}, uint64_t{20000}, uint64_t{200000}}) {
      RowOptimizerConfig config = PerGroup(kAdam);
      config.beta2 = beta2;
      const RowOptimizer optimizer(config, 1);
      float row[] = {0.5f, 0.25f, 0.125f};
      const float gradient[] = {1.0f};
      optimizer.Apply(row, gradient, step);
      const auto t = static_cast<double>(step);
      const double b1 = 0.9f, b2 = beta2;
      const double m = b1 * 0.25 + (1 - b1), v = b2 * 0.125 + (1 - b2);
      const double rate = static_cast<double>(0.01f) / (1 - std::pow(b1, t));
      CAPTURE(step);
      CHECK(row[0] == doctest::Approx(0.5 - rate * m / (std::sqrt(v / (1 - std::pow(b2, t))) + 1e-8)).epsilon(1e-6));
    }
  }
}

TEST_CASE("FTRL keeps the first weights of a row until a gradient moves them") {
  for (const RowOptimizerConfig& config : {kFtrl, kFtrlL1, kFtrlAll}) {
    RowOptimizerConfig no_decay = config;
    no_decay.weight_decay = 0.0f;
    const RowOptimizer optimizer(no_decay, 4);
    std::vector<float> row = NewRow(optimizer, {0.25f, -0.01f, 0.0f, 3.0f});
    const float gradient[] = {0.0f, 0.0f, 0.0f, 0.5f};
    optimizer.Apply(row.data(), gradient);
    CHECK(row[0] == doctest::Approx(0.25).epsilon(1e-6));
    CHECK(row[1] == doctest::Approx(-0.01).epsilon(1e-5));
    CHECK(row[2] == 0.0f);
    CHECK(row[3] < 3.0f);
  }
}

TEST_CASE("FTRL sets weights that its gradients don't support to exactly zero, and only with l1") {
  for (const float l1 : {0.0f, 5.0f}) {
    const RowOptimizer optimizer({.type = RowOptimizerType::kFtrl, .lr = 0.1f, .l1 = l1}, 2);
    std::vector<float> row = NewRow(optimizer, {0.0f, 0.0f});
    for (int step = 0; step < 20; ++step) {
      const float gradient[] = {step % 2 == 0 ? 0.5f : -0.4f, -1.0f};  // wavering, steady
      optimizer.Apply(row.data(), gradient);
    }
    CHECK((row[0] == 0.0f) == (l1 > 0.0f));
    CHECK(row[1] > 0.1f);
  }
}

TEST_CASE("a copy of an optimizer works without the original") {
  auto original = std::make_unique<RowOptimizer>(kAdam, 3);
  const RowOptimizer copy = *original;
  std::vector<float> row = NewRow(copy, {0.0f, 0.0f, 0.0f});
  std::vector<float> expected = row;
  const float gradient[] = {1.0f, -2.0f, 0.5f};
  original->Apply(expected.data(), gradient);
  original.reset();
  copy.Apply(row.data(), gradient);
  CHECK(row == expected);
}

TEST_CASE("a row far beyond the range of Adam's touch count still trains") {
  const RowOptimizer optimizer({.type = RowOptimizerType::kAdam, .lr = 0.01f, .eps = 1e-8f}, 3);
  std::vector<float> row = NewRow(optimizer, {0.0f, 0.0f, 0.0f});
  row[9] = 16777216.0f;
  const float gradient[] = {1.0f, 1.0f, 1.0f};
  optimizer.Apply(row.data(), gradient);
  CHECK(row[9] == 16777216.0f);
  CHECK(row[0] == doctest::Approx(-0.01 * 0.1 / std::sqrt(0.001)).epsilon(1e-4));
}

TEST_CASE("a touch count that is no number starts over") {
  const RowOptimizer optimizer(kAdam, 3);
  std::vector<float> row = NewRow(optimizer, {0.0f, 0.0f, 0.0f});
  row[9] = std::numeric_limits<float>::quiet_NaN();
  const float gradient[] = {1.0f, 1.0f, 1.0f};
  optimizer.Apply(row.data(), gradient);
  CHECK(row[9] == 1.0f);
  CHECK(row[0] == doctest::Approx(-0.01).epsilon(1e-5));
}

TEST_CASE("one value that is not finite is found at every place of rows of every width") {
  const float largest = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity();
  for (size_t width = 0; width <= 70; ++width) {
    std::vector<float> values(width, -largest);
    CHECK(AllFinite(values));
    for (size_t i = 0; i < width; ++i) {
      for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
        values[i] = bad;
        REQUIRE_FALSE(AllFinite(values));
      }
      values[i] = std::numeric_limits<float>::denorm_min();
    }
    CHECK(AllFinite(values));
  }
}

}  // namespace
}  // namespace persia
