#include "dense/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace persia {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

void BinaryMetrics::Add(size_t count, const float* scores, size_t score_stride, const float* labels,
                        size_t label_stride) {
  for (size_t i = 0; i < count; ++i) scored_.push_back({scores[i * score_stride], labels[i * label_stride]});
}

// The share of (positive, negative) pairs that the scores put in the right order, equal scores counting half: goes up
// the ranking and credits every positive with the negatives below it.
double BinaryMetrics::Auc() const {
  std::vector<Scored> ranked = scored_;
  const auto is_nan = [](const Scored& sample) { return std::isnan(sample.score); };
  if (std::any_of(ranked.begin(), ranked.end(), is_nan)) return kNan;
  std::sort(ranked.begin(), ranked.end(), [](const Scored& a, const Scored& b) { return a.score < b.score; });
  double positives = 0, negatives = 0, ordered_pairs = 0;
  for (size_t begin = 0, end = 0; begin < ranked.size(); begin = end) {
    double tied_positives = 0, tied_negatives = 0;
    for (; end < ranked.size() && ranked[end].score == ranked[begin].score; ++end) {
      (ranked[end].label >= 0.5f ? tied_positives : tied_negatives) += 1;
    }
    ordered_pairs += tied_positives * (negatives + 0.5 * tied_negatives);
    positives += tied_positives;
    negatives += tied_negatives;
  }
  if (positives == 0 || negatives == 0) return kNan;
  return ordered_pairs / (positives * negatives);
}

double BinaryMetrics::LogLoss() const {
  double sum = 0;
  for (const Scored& sample : scored_) {
    const double p = std::clamp(static_cast<double>(sample.score), 1e-7, 1.0 - 1e-7);
    const double y = sample.label;
    sum -= y * std::log(p) + (1.0 - y) * std::log1p(-p);
  }
  return sum / static_cast<double>(scored_.size());
}

void RegressionMetrics::Add(size_t count, const float* outputs, size_t output_stride, const float* labels,
                            size_t label_stride) {
  for (size_t i = 0; i < count; ++i) {
    const double error = static_cast<double>(outputs[i * output_stride]) - labels[i * label_stride];
    sum_ += error * error;
  }
  count_ += count;
}

double RegressionMetrics::MeanSquaredError() const { return sum_ / static_cast<double>(count_); }

}  // namespace persia
