#include "dense/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"

namespace persia {
namespace {

double Auc(std::vector<float> scores, std::vector<float> labels) {
  BinaryMetrics metrics;
  metrics.Add(scores.size(), scores.data(), 1, labels.data(), 1);
  return metrics.Auc();
}

TEST_CASE("AUC is the share of pairs in the right order") {
  CHECK(Auc({0.1f, 0.4f, 0.35f, 0.8f}, {0, 0, 1, 1}) == 0.75);
  CHECK(Auc({0.1f, 0.2f, 0.3f}, {0, 0, 1}) == 1.0);
  CHECK(Auc({0.1f, 0.2f, 0.3f}, {1, 0, 0}) == 0.0);
}

TEST_CASE("AUC counts ties half") {
  CHECK(Auc({0.5f, 0.5f, 0.5f}, {0, 1, 1}) == 0.5);
  // Pairs: (0.7 over 0.2) 1, (0.7 = 0.7) ½, (0.2 = 0.2) ½, (0.2 under 0.7) 0.
  CHECK(Auc({0.7f, 0.2f, 0.2f, 0.7f}, {1, 1, 0, 0}) == 0.5);
  // Positives 0.9, 0.5, 0.5 over negatives 0.5, 0.1: 2 + 1½ + 1½ of 6.
  CHECK(Auc({0.9f, 0.5f, 0.5f, 0.5f, 0.1f}, {1, 1, 1, 0, 0}) == doctest::Approx(5.0 / 6.0));
}

TEST_CASE("AUC equals the count over all pairs on random scores with many ties") {
  Rng rng(3);
  std::vector<float> scores, labels;
  for (int i = 0; i < 500; ++i) {
    scores.push_back(static_cast<float>(rng.Next() % 40));
    labels.push_back(static_cast<float>(rng.Next() % 2));
  }
  double ordered = 0, pairs = 0;
  for (size_t p = 0; p < scores.size(); ++p) {
    for (size_t n = 0; n < scores.size(); ++n) {
      if (labels[p] < 0.5f || labels[n] >= 0.5f) continue;
      ordered += scores[p] > scores[n] ? 1.0 : scores[p] == scores[n] ? 0.5 : 0.0;
      pairs += 1;
    }
  }
  CHECK(Auc(scores, labels) == doctest::Approx(ordered / pairs).epsilon(1e-12));
}

TEST_CASE("AUC has no value without both classes or with a NaN score") {
  CHECK(std::isnan(Auc({}, {})));
  CHECK(std::isnan(Auc({0.1f, 0.2f}, {1, 1})));
  CHECK(std::isnan(Auc({0.1f, 0.2f}, {0, 0})));
  CHECK(std::isnan(Auc({std::numeric_limits<float>::quiet_NaN(), 0.2f}, {0, 1})));
}

TEST_CASE("AUC and log loss read strided columns and add up over batches") {
  // Two tasks side by side; the second column is ours.
  const float outputs[] = {9, 0.25f, 9, 0.5f}, labels[] = {9, 0, 9, 1};
  const float more_output = 0.75f, more_label = 1.0f;
  BinaryMetrics metrics;
  metrics.Add(2, outputs + 1, 2, labels + 1, 2);
  metrics.Add(1, &more_output, 1, &more_label, 1);
  CHECK(metrics.count() == 3);
  CHECK(metrics.Auc() == 1.0);
  CHECK(metrics.LogLoss() == doctest::Approx(-(std::log(0.75) + std::log(0.5) + std::log(0.75)) / 3));
}

TEST_CASE("Log loss stays finite for certain and wrong predictions") {
  const float scores[] = {0, 1}, labels[] = {1, 0};
  BinaryMetrics metrics;
  metrics.Add(2, scores, 1, labels, 1);
  CHECK(metrics.LogLoss() == doctest::Approx(-std::log(1e-7)));
  CHECK(std::isnan(BinaryMetrics().LogLoss()));
}

TEST_CASE("Mean squared error averages over batches") {
  const float outputs[] = {1, 2}, labels[] = {0, 4};
  RegressionMetrics metrics;
  CHECK(std::isnan(metrics.MeanSquaredError()));
  metrics.Add(2, outputs, 1, labels, 1);
  metrics.Add(1, outputs, 1, outputs, 1);
  CHECK(metrics.count() == 3);
  CHECK(metrics.MeanSquaredError() == doctest::Approx(5.0 / 3.0));
}

}  // namespace
}  // namespace persia
