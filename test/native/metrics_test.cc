#include "dense/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "golden.h"

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

// Scores as a click model gives them, most of them small, with labels that they predict rightly on average.
void AddClicks(uint64_t seed, size_t count, BinaryMetrics& metrics) {
  Rng rng(seed);
  for (size_t i = 0; i < count; ++i) {
    const auto score = static_cast<float>(1.0 / (1.0 + std::exp(3.0 - 2.0 * rng.Normal())));
    const float label = rng.Uniform() < score ? 1.0f : 0.0f;
    metrics.Add(1, &score, 1, &label, 1);
  }
}

TEST_CASE("AUC, log loss, calibration and GAUC are those of the golden file") {
  const GoldenFile golden("metrics_golden.txt");
  const std::vector<float>&scores = golden["scores"].values, &labels = golden["labels"].values;
  BinaryMetrics metrics;
  metrics.Add(scores.size(), scores.data(), 1, labels.data(), 1);
  GroupedAuc grouped;
  for (size_t i = 0; i < scores.size(); ++i) {
    grouped.Add(static_cast<uint64_t>(golden["groups"].values[i]), scores[i], labels[i]);
  }
  const GroupedAuc::Result gauc = grouped.Compute();
  const auto expected = [&](const char* name) { return doctest::Approx(golden[name].values[0]).epsilon(1e-6); };
  CHECK(metrics.Auc() == expected("auc"));
  CHECK(metrics.LogLoss() == expected("logloss"));
  CHECK(metrics.Calibration() == expected("calibration"));
  CHECK(gauc.value == expected("gauc"));
  CHECK(gauc.groups == golden["gauc_groups"].values[0]);
  CHECK(gauc.one_class == golden["gauc_one_class"].values[0]);
  CHECK(gauc.samples == golden["gauc_samples"].values[0]);
}

TEST_CASE("Beyond the samples that are kept, AUC stays within the error that it states") {
  BinaryMetrics exact, histogram(999);
  AddClicks(5, 200000, exact);
  AddClicks(5, 200000, histogram);
  CHECK(exact.AucErrorBound() == 0.0);
  CHECK(histogram.AucErrorBound() > 0.0);
  CHECK(histogram.AucErrorBound() < 1e-4);
  CHECK(std::abs(histogram.Auc() - exact.Auc()) <= histogram.AucErrorBound());
  CHECK(histogram.LogLoss() == exact.LogLoss());
  CHECK(histogram.Calibration() == exact.Calibration());
  CHECK(histogram.count() == 200000);
}

TEST_CASE("AUC stays exact up to the bound and becomes a histogram with the sample after it") {
  const float scores[] = {0.1f, 0.9f, 0.4f}, labels[] = {0, 1, 1};
  BinaryMetrics metrics(3);
  metrics.Add(3, scores, 1, labels, 1);
  CHECK(metrics.Auc() == 1.0);
  CHECK(metrics.AucErrorBound() == 0.0);
  metrics.Add(1, scores, 1, labels + 1, 1);  // a positive at 0.1, beside the negative
  CHECK(metrics.Auc() == doctest::Approx(2.5 / 3));
  CHECK(metrics.AucErrorBound() == doctest::Approx(0.5 / 3));
}

TEST_CASE("The histogram tells scores apart near both ends and has a place for every number") {
  const float scores[] = {1e-30f, 2e-30f, 0.49999f, 0.5f, 0.99999f, 0.999999f, 0.0f, -0.0f, 1.0f};
  for (size_t low = 0; low + 1 < 6; ++low) {
    CAPTURE(scores[low]);
    BinaryMetrics metrics(0);
    const float pair[] = {scores[low], scores[low + 1]}, labels[] = {0, 1};
    metrics.Add(2, pair, 1, labels, 1);
    CHECK(metrics.Auc() == 1.0);
    CHECK(metrics.AucErrorBound() == 0.0);
  }
  BinaryMetrics ends(0);
  const float labels[] = {0, 0, 1};
  ends.Add(3, scores + 6, 1, labels, 1);
  CHECK(ends.Auc() == 1.0);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ends.Add(1, &nan, 1, labels, 1);
  CHECK(std::isnan(ends.Auc()));
}

TEST_CASE("Calibration is predicted over observed") {
  BinaryMetrics metrics;
  CHECK(std::isnan(metrics.Calibration()));
  const float scores[] = {0.5f, 0.25f, 0.75f}, labels[] = {0, 0, 1};
  metrics.Add(2, scores, 1, labels, 1);
  CHECK(std::isnan(metrics.Calibration()));
  metrics.Add(1, scores + 2, 1, labels + 2, 1);
  CHECK(metrics.Calibration() == 1.5);
}

TEST_CASE("GAUC weighs groups by their samples and leaves out those of one class") {
  GroupedAuc metric;
  CHECK(std::isnan(metric.Compute().value));
  metric.Add(7, 0.2f, 0);  // in order: AUC 1 of 2 samples
  metric.Add(~0ULL, 0.9f, 1);
  metric.Add(7, 0.3f, 1);
  metric.Add(0, 0.5f, 1);  // a tie and an inversion: AUC 0.25 of 3 samples
  metric.Add(0, 0.5f, 0);
  metric.Add(0, 0.6f, 0);
  metric.AddWithoutGroup();
  const GroupedAuc::Result result = metric.Compute();
  CHECK(result.value == (2 * 1.0 + 3 * 0.25) / 5);
  CHECK(result.groups == 2);
  CHECK(result.samples == 5);
  CHECK(result.one_class == 1);
  CHECK(result.without_group == 1);
  metric.Add(7, std::numeric_limits<float>::quiet_NaN(), 1);
  CHECK(std::isnan(metric.Compute().value));
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
