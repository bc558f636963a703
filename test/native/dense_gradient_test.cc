// The gradients of the dense network against central differences of a plain double-precision forward pass.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "dense/dense_model.h"

namespace persia {
namespace {

using Vector = std::vector<double>;

struct Case {
  DenseModelConfig config;
  uint32_t rows;
  Vector input, labels;
  std::map<std::string, Vector> parameters;

  bool has(const std::string& name) const { return parameters.contains(name); }
  // weight · x + bias, of a layer by name; without a bias where it has none.
  Vector Linear(const std::string& layer, const Vector& x) const;
  // The chain "<name>.0", "<name>.1", …, with ReLU after each layer, or each but the last.
  Vector Chain(const std::string& name, Vector x, bool relu_at_end) const;
};

Vector Case::Linear(const std::string& layer, const Vector& x) const {
  const Vector& weight = parameters.at(layer + ".weight");
  Vector y = has(layer + ".bias") ? parameters.at(layer + ".bias") : Vector(weight.size() / x.size());
  for (size_t o = 0; o < y.size(); ++o) y[o] = std::inner_product(x.begin(), x.end(), &weight[o * x.size()], y[o]);
  return y;
}

Vector Case::Chain(const std::string& name, Vector x, bool relu_at_end) const {
  const auto layer = [&](size_t i) { return name + "." + std::to_string(i); };
  for (size_t i = 0; has(layer(i) + ".weight"); ++i) {
    x = Linear(layer(i), x);
    const bool relu = relu_at_end || has(layer(i + 1) + ".weight");
    for (double& value : x) value = relu ? std::max(value, 0.0) : value;
  }
  return x;
}

double Dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// Dot products of all pairs (i, j < i).
Vector Dots(const std::vector<Vector>& vectors) {
  Vector dots;
  for (size_t i = 0; i < vectors.size(); ++i) {
    for (size_t j = 0; j < i; ++j) dots.push_back(Dot(vectors[i], vectors[j]));
  }
  return dots;
}

Vector Cross(const Case& c, const Vector& x0) {
  Vector x = x0;
  for (uint32_t l = 0; l < c.config.cross.layers; ++l) {
    const std::string name = "cross." + std::to_string(l);
    const Vector z = c.config.cross.rank == 0 ? c.Linear(name, x) : c.Linear(name + ".u", c.Linear(name + ".v", x));
    for (size_t i = 0; i < x.size(); ++i) x[i] += x0[i] * z[i];
  }
  return x;
}

Vector Dlrm(const Case& c, const Vector& x) {
  std::vector<Vector> vectors;
  const auto dense = x.begin() + c.config.embedding_width;
  if (c.config.dense_count > 0) vectors.push_back(c.Chain("bottom", {dense, x.end()}, true));
  for (auto at = x.begin(); at < dense; at += c.config.fields[0].dim) {
    vectors.emplace_back(at, at + c.config.fields[0].dim);
  }
  Vector output = c.config.dense_count > 0 ? vectors[0] : Vector();
  std::ranges::copy(Dots(vectors), std::back_inserter(output));
  return c.Chain("layer", output, false);
}

Vector DeepFm(const Case& c, const Vector& x) {
  std::vector<Vector> vectors;
  for (auto at = x.begin(); at < x.begin() + c.config.embedding_width; at += c.config.fields[0].dim) {
    vectors.emplace_back(at, at + c.config.fields[0].dim);
  }
  const Vector dots = Dots(vectors), linear = c.Linear("linear", x);
  Vector outputs = c.Chain("layer", x, false);
  for (size_t task = 0; task < outputs.size(); ++task) {
    outputs[task] += linear[task] + std::accumulate(dots.begin(), dots.end(), 0.0);
  }
  return outputs;
}

Vector Dcn(const Case& c, const Vector& x) {
  if (c.config.cross.structure == CrossStructure::kStacked) return c.Chain("layer", Cross(c, x), false);
  const Vector crossed = c.Linear("cross.head", Cross(c, x));
  Vector outputs = c.Chain("layer", x, false);
  std::ranges::transform(outputs, crossed, outputs.begin(), std::plus());
  return outputs;
}

Vector Outputs(const Case& c, const Vector& x) {
  switch (c.config.type) {
    case ModelType::kFfnn:
      return c.Chain("layer", x, false);
    case ModelType::kDeepFm:
      return DeepFm(c, x);
    case ModelType::kDcn:
      return Dcn(c, x);
    case ModelType::kDlrm:
      return Dlrm(c, x);
  }
  return {};
}

// The network by its definition: loss = sum over tasks of weight · mean over samples.
double ReferenceLoss(const Case& c) {
  const size_t tasks = c.config.tasks.size();
  double loss = 0;
  for (uint32_t row = 0; row < c.rows; ++row) {
    const auto begin = c.input.begin() + row * c.config.input_width();
    const Vector x = Outputs(c, {begin, begin + c.config.input_width()});
    for (size_t task = 0; task < tasks; ++task) {
      const TaskSpec& spec = c.config.tasks[task];
      const double y = c.labels[row * tasks + task], softplus = std::log1p(std::exp(x[task]));
      const double bce = spec.positive_weight * y * (softplus - x[task]) + (1 - y) * softplus;
      const double term = spec.loss == Loss::kBce ? bce : (x[task] - y) * (x[task] - y);
      loss += spec.weight * term / c.rows;
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
  for (const auto& [name, shape, values] : (*model)->Tensors()) c.parameters[name] = {values.begin(), values.end()};

  std::vector<float> embedding_gradient(size_t{rows} * config.embedding_width);
  double loss = 0;
  REQUIRE((*model)->ForwardBackward(rows, ToFloat(c.input).data(), ToFloat(c.labels).data(), embedding_gradient.data(),
                                    &loss).ok());
  CHECK(loss == doctest::Approx(ReferenceLoss(c)).epsilon(1e-6));
  REQUIRE((*model)->ApplyGradients(1).ok());

  const auto stepped = (*model)->Tensors();
  for (size_t tensor = 0; tensor < stepped.size(); ++tensor) {
    CAPTURE(stepped[tensor].name);
    auto& values = c.parameters.at(stepped[tensor].name);
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
    CHECK(std::abs(embedding_gradient[entry] - difference) < 2e-7 + 1e-6 * std::abs(difference));
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

TEST_CASE("Dense gradients of positive labels that weigh more match finite differences") {
  auto config = Network(5, 2, {6});
  config.tasks = {{"click", Loss::kBce, 0.7f, 5.0f}, {"like", Loss::kBce, 1.0f, 0.25f}};
  CheckGradients(config, 8, 1000);
}

// `fields` id features of `dim`, and two tasks.
DenseModelConfig Interaction(ModelType type, uint32_t fields, uint32_t dim, uint32_t dense_count,
                             std::vector<uint32_t> hidden) {
  DenseModelConfig config = Network(fields * dim, dense_count, std::move(hidden));
  config.type = type;
  config.tasks.push_back({"rating", Loss::kMse, 0.5f});
  for (uint32_t field = 0; field < fields; ++field) config.fields.push_back({"field", dim});
  return config;
}

TEST_CASE("Gradients of deepfm match finite differences") {
  CheckGradients(Interaction(ModelType::kDeepFm, 3, 4, 2, {6}), 9, 1000);
  CheckGradients(Interaction(ModelType::kDeepFm, 1, 3, 0, {}), 5, 1000);
}

TEST_CASE("Gradients of dcn match finite differences, stacked and parallel, of full and low rank") {
  for (const auto structure : {CrossStructure::kStacked, CrossStructure::kParallel}) {
    for (const uint32_t rank : {0u, 2u}) {
      auto config = Interaction(ModelType::kDcn, 2, 3, 2, {5});
      config.cross = {3, rank, structure};
      CheckGradients(config, 7, 1000);
      config.hidden.clear();
      config.cross.layers = 1;
      CheckGradients(config, 7, 1000);
    }
  }
}

TEST_CASE("Gradients of dcn without id features match finite differences") {
  auto config = Interaction(ModelType::kDcn, 0, 0, 4, {5});
  config.cross.layers = 2;
  CheckGradients(config, 7, 1000);
}

TEST_CASE("Gradients of dlrm match finite differences, with and without dense features") {
  auto config = Interaction(ModelType::kDlrm, 3, 4, 5, {6});
  config.bottom = {7};
  CheckGradients(config, 19, 1000);
  CheckGradients(Interaction(ModelType::kDlrm, 1, 4, 5, {}), 8, 1000);
  CheckGradients(Interaction(ModelType::kDlrm, 4, 2, 0, {6}), 3, 1000);
}

TEST_CASE("Gradients of interactions split over threads and bands match finite differences") {
  const auto check = [](ModelType type, CrossStructure structure) {
    auto config = Interaction(type, 12, 10, 17, {64});
    config.bottom = {80};
    config.cross = {2, 0, structure};
    config.threads = 3;
    CheckGradients(config, 300, 2);
  };
  check(ModelType::kDeepFm, {});
  check(ModelType::kDlrm, {});
  check(ModelType::kDcn, CrossStructure::kStacked);
  check(ModelType::kDcn, CrossStructure::kParallel);
}

}  // namespace
}  // namespace persia
