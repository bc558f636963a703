// The gradients of the dense network against central differences of a plain double-precision forward pass.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "dense/dense_model.h"

namespace persia {
namespace {

struct Case {
  DenseModelConfig config;
  uint32_t rows;
  std::vector<double> input, labels;
  std::vector<std::vector<double>> parameters;  // weight, bias, weight, bias, …
};

// The network by its definition: loss = sum over tasks of weight · mean over samples.
double ReferenceLoss(const Case& c) {
  const size_t tasks = c.config.tasks.size();
  double loss = 0;
  for (uint32_t row = 0; row < c.rows; ++row) {
    const auto begin = c.input.begin() + row * c.config.input_width();
    std::vector<double> x(begin, begin + c.config.input_width());
    for (size_t layer = 0; layer < c.parameters.size() / 2; ++layer) {
      const auto& weight = c.parameters[2 * layer];
      std::vector<double> y = c.parameters[2 * layer + 1];
      for (size_t o = 0; o < y.size(); ++o) {
        for (size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
        if (layer + 1 < c.parameters.size() / 2) y[o] = std::max(y[o], 0.0);
      }
      x = std::move(y);
    }
    for (size_t task = 0; task < tasks; ++task) {
      const double y = c.labels[row * tasks + task];
      const bool bce = c.config.tasks[task].loss == Loss::kBce;
      const double term = bce ? std::log1p(std::exp(x[task])) - x[task] * y : (x[task] - y) * (x[task] - y);
      loss += c.config.tasks[task].weight * term / c.rows;
    }
  }
  return loss;
}

double CentralDifference(Case& c, double* variable) {
  constexpr double kStep = 1e-6;
  const double value = *variable;
  *variable = value + kStep;
  const double above = ReferenceLoss(c);
  *variable = value - kStep;
  const double below = ReferenceLoss(c);
  *variable = value;
  return (above - below) / (2 * kStep);
}

std::vector<float> ToFloat(const std::vector<double>& values) { return {values.begin(), values.end()}; }

// Compares `samples` entries of the model's gradient with differences. Plain SGD of rate 1 makes the weight gradients
// visible: they are what a step takes away.
void CheckGradients(DenseModelConfig config, uint32_t rows, size_t samples) {
  config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 1.0};
  config.seed = 11;
  auto model = MakeCpuDenseModel(config);
  REQUIRE(model.ok());
  Case c{config, rows, {}, {}, {}};
  Rng rng(5);
  for (size_t i = 0; i < size_t{rows} * config.input_width(); ++i) c.input.push_back(static_cast<float>(rng.Normal()));
  for (size_t i = 0; i < rows * config.tasks.size(); ++i) c.labels.push_back(static_cast<float>(rng.Uniform()));
  for (const auto& tensor : (*model)->Tensors()) c.parameters.emplace_back(tensor.values.begin(), tensor.values.end());

  std::vector<float> embedding_gradient(size_t{rows} * config.embedding_width);
  double loss = 0;
  REQUIRE((*model)->ForwardBackward(rows, ToFloat(c.input).data(), ToFloat(c.labels).data(), embedding_gradient.data(),
                                    &loss).ok());
  CHECK(loss == doctest::Approx(ReferenceLoss(c)).epsilon(1e-6));
  REQUIRE((*model)->ApplyGradients(1).ok());

  const auto stepped = (*model)->Tensors();
  for (size_t tensor = 0; tensor < stepped.size(); ++tensor) {
    CAPTURE(stepped[tensor].name);
    auto& values = c.parameters[tensor];
    for (size_t n = 0; n < std::min(samples, values.size()); ++n) {
      const size_t entry = values.size() <= samples ? n : rng.Next() % values.size();
      const double gradient = values[entry] - static_cast<double>(stepped[tensor].values[entry]);
      CHECK(std::abs(gradient - CentralDifference(c, &values[entry])) < 2e-6);
    }
  }
  for (size_t n = 0; n < std::min(samples, embedding_gradient.size()); ++n) {
    const size_t entry = rng.Next() % embedding_gradient.size();
    const size_t row = entry / config.embedding_width, column = entry % config.embedding_width;
    const double difference = CentralDifference(c, &c.input[row * config.input_width() + column]);
    CHECK(std::abs(embedding_gradient[entry] - difference) < 2e-7);
  }
}

DenseModelConfig Network(uint32_t embedding_width, uint32_t dense_count, std::vector<uint32_t> hidden) {
  DenseModelConfig config;
  config.embedding_width = embedding_width;
  config.dense_count = dense_count;
  config.hidden = std::move(hidden);
  config.tasks = {{"click", Loss::kBce, 1.0f}};
  return config;
}

TEST_CASE("Dense gradients of a network with hidden layers match finite differences") {
  CheckGradients(Network(6, 3, {7, 5}), 9, 1000);
}

TEST_CASE("Dense gradients of a logistic regression match finite differences") {
  CheckGradients(Network(4, 2, {}), 5, 1000);
}

TEST_CASE("Dense gradients of weighted bce and mse tasks match finite differences") {
  auto config = Network(5, 0, {6});
  config.tasks = {{"click", Loss::kBce, 0.7f}, {"rating", Loss::kMse, 1.5f}, {"like", Loss::kBce, 1.0f}};
  CheckGradients(config, 8, 1000);
}

TEST_CASE("Dense gradients of a network without id features match finite differences") {
  CheckGradients(Network(0, 4, {5}), 6, 1000);
}

TEST_CASE("Dense gradients of layers split over threads match finite differences") {
  for (uint32_t threads : {2u, 6u}) {
    auto config = Network(30, 10, {256, 40});
    config.threads = threads;
    CheckGradients(config, 130, 6);
  }
}

}  // namespace
}  // namespace persia
