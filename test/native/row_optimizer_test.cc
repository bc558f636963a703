// Row optimizers against PyTorch, step by step, with both instruction sets.
#include "table/row_optimizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "golden.h"

namespace persia {
namespace {

struct GoldenCase {
  std::string name;
  RowOptimizerConfig config;
};

// The hyper-parameters of test/golden/row_optimizer_golden.py.
std::vector<GoldenCase> GoldenCases() {
  const RowOptimizerConfig sgd{.type = RowOptimizerType::kSgd, .lr = 0.1f};
  const RowOptimizerConfig adagrad{.type = RowOptimizerType::kAdagrad, .lr = 0.05f};
  const RowOptimizerConfig rowwise{.type = RowOptimizerType::kRowwiseAdagrad, .lr = 0.05f};
  const RowOptimizerConfig adam{.type = RowOptimizerType::kAdam, .lr = 0.01f, .eps = 1e-8f};
  const auto with = [](RowOptimizerConfig config, float momentum, float weight_decay, float initial_accumulator) {
    config.momentum = momentum;
    config.weight_decay = weight_decay;
    config.initial_accumulator = initial_accumulator;
    return config;
  };
  return {{"sgd", sgd},
          {"sgd_decay", with(sgd, 0.0f, 0.02f, 0.0f)},
          {"sgd_momentum", with(sgd, 0.9f, 0.0f, 0.0f)},
          {"sgd_momentum_decay", with(sgd, 0.9f, 0.02f, 0.0f)},
          {"adagrad", adagrad},
          {"adagrad_start_decay", with(adagrad, 0.0f, 0.02f, 0.1f)},
          {"rowwise", rowwise},
          {"rowwise_start_decay", with(rowwise, 0.0f, 0.02f, 0.1f)},
          {"adam", adam},
          {"adam_decay", with(adam, 0.0f, 0.02f, 0.0f)}};
}

// A new row: `start`, then the state as the optimizer wants it.
std::vector<float> NewRow(const RowOptimizer& optimizer, std::vector<float> start) {
  start.resize(optimizer.row_width());
  optimizer.InitState(start.data() + optimizer.dim());
  return start;
}

// The largest difference to PyTorch's rows, relative where values exceed 1.
float LargestDifference(const GoldenFile& golden, const std::string& name, const RowOptimizer& optimizer) {
  constexpr size_t kSteps = 24, kKept[] = {1, 2, 8, 24};
  const GoldenTensor& gradients = golden[name + ".gradients"];
  const GoldenTensor& rows = golden[name + ".rows"];
  REQUIRE(gradients.shape == std::vector<uint64_t>{kSteps, optimizer.dim()});
  REQUIRE(rows.shape == std::vector<uint64_t>{std::size(kKept), optimizer.row_width()});
  std::vector<float> row = NewRow(optimizer, golden[name + ".start"].values);
  const float* expected = rows.values.data();
  float largest = 0.0f;
  for (size_t step = 1; step <= kSteps; ++step) {
    optimizer.Apply(row.data(), &gradients.values[(step - 1) * optimizer.dim()]);
    if (std::find(std::begin(kKept), std::end(kKept), step) == std::end(kKept)) continue;
    for (const float value : row) {
      largest = std::max(largest, std::abs(value - *expected) / std::max(1.0f, std::abs(*expected)));
      ++expected;
    }
  }
  return largest;
}

TEST_CASE("each row optimizer gives PyTorch's weights and state, up to 24 steps") {
  const GoldenFile golden("row_optimizer_golden.txt");
  for (const bool use_avx2 : {false, true}) {
    if (use_avx2 && !HasAvx2()) continue;
    for (const GoldenCase& item : GoldenCases()) {
      for (const uint32_t dim : {5u, 8u, 16u, 19u}) {
        const std::string name = item.name + "." + std::to_string(dim);
        CAPTURE(name);
        CAPTURE(use_avx2);
        CHECK(LargestDifference(golden, name, RowOptimizer(item.config, dim, use_avx2)) <= 1e-6f);
      }
    }
  }
}

TEST_CASE("the state behind a row has the documented width") {
  const auto width = [](RowOptimizerType type, float momentum) {
    return RowOptimizer({.type = type, .momentum = momentum}, 6).state_width();
  };
  CHECK(width(RowOptimizerType::kSgd, 0.0f) == 0);
  CHECK(width(RowOptimizerType::kSgd, 0.9f) == 6);
  CHECK(width(RowOptimizerType::kAdagrad, 0.0f) == 6);
  CHECK(width(RowOptimizerType::kRowwiseAdagrad, 0.0f) == 1);
  CHECK(width(RowOptimizerType::kAdam, 0.0f) == 13);
}

TEST_CASE("weights stay within the bound after every update, and only then") {
  for (const auto type : {RowOptimizerType::kSgd, RowOptimizerType::kAdagrad, RowOptimizerType::kRowwiseAdagrad,
                          RowOptimizerType::kAdam}) {
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

TEST_CASE("a row far beyond the range of Adam's touch count still trains") {
  const RowOptimizer optimizer({.type = RowOptimizerType::kAdam, .lr = 0.01f, .eps = 1e-8f}, 3);
  std::vector<float> row = NewRow(optimizer, {0.0f, 0.0f, 0.0f});
  row[9] = 16777216.0f;
  const float gradient[] = {1.0f, 1.0f, 1.0f};
  optimizer.Apply(row.data(), gradient);
  CHECK(row[9] == 16777216.0f);
  CHECK(row[0] == doctest::Approx(-0.01 * 0.1 / std::sqrt(0.001)).epsilon(1e-4));
}

}  // namespace
}  // namespace persia
