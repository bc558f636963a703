#include "dense/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace persia {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Bins of the histogram: a score below a half by the top bits of its float, which are in the order of the numbers; one
// above by those of its distance to 1, backwards. So a bin is as wide as 1/8192 of its distance to the nearer end.
constexpr uint32_t kDroppedBits = 10;
constexpr uint32_t kHalfBins = (std::bit_cast<uint32_t>(0.5f) >> kDroppedBits) + 1;

uint32_t BinOf(float score) {
  const float p = std::clamp(score, 0.0f, 1.0f);
  const uint32_t distance = std::bit_cast<uint32_t>(p < 0.5f ? p + 0.0f : 1.0f - p) >> kDroppedBits;
  return p < 0.5f ? distance : 2 * kHalfBins - 1 - distance;
}

// Goes up a ranking and credits every positive with the negatives below it, equal scores counting half.
class PairCounter {
 public:
  void AddTies(double positives, double negatives) {
    ordered_ += positives * (negatives_ + 0.5 * negatives);
    tied_ += positives * negatives;
    positives_ += positives;
    negatives_ += negatives;
  }

  // NaN: one class is missing.
  double Auc() const { return PartOfPairs(ordered_); }
  double HalfOfTies() const { return PartOfPairs(0.5 * tied_); }

 private:
  double PartOfPairs(double pairs) const {
    return positives_ == 0 || negatives_ == 0 ? kNan : pairs / (positives_ * negatives_);
  }

  double positives_ = 0, negatives_ = 0, ordered_ = 0, tied_ = 0;
};

// Of samples in the order of their scores.
template <typename Sample, typename IsPositive>
PairCounter CountPairs(const Sample* begin, const Sample* end, IsPositive is_positive) {
  PairCounter pairs;
  while (begin != end) {
    const float score = begin->score;
    double positives = 0, negatives = 0;
    for (; begin != end && begin->score == score; ++begin) (is_positive(*begin) ? positives : negatives) += 1;
    pairs.AddTies(positives, negatives);
  }
  return pairs;
}

template <typename Bins>
PairCounter CountBins(const Bins& bins) {
  PairCounter pairs;
  for (const auto& bin : bins) pairs.AddTies(static_cast<double>(bin.positives), static_cast<double>(bin.negatives));
  return pairs;
}

double CrossEntropy(float score, float label) {
  const double p = std::clamp(static_cast<double>(score), 1e-7, 1.0 - 1e-7);
  const double y = label;
  return -(y * std::log(p) + (1.0 - y) * std::log1p(-p));
}

}  // namespace

void BinaryMetrics::Add(size_t count, const float* scores, size_t score_stride, const float* labels,
                        size_t label_stride) {
  count_ += count;
  if (histogram_.empty() && count_ > most_exact_) BecomeHistogram();
  for (size_t i = 0; i < count; ++i) {
    const Scored sample{scores[i * score_stride], labels[i * label_stride]};
    loss_sum_ += CrossEntropy(sample.score, sample.label);
    score_sum_ += sample.score;
    label_sum_ += sample.label;
    has_nan_ = has_nan_ || std::isnan(sample.score);
    if (histogram_.empty()) {
      scored_.push_back(sample);
    } else {
      Count(sample);
    }
  }
}

void BinaryMetrics::Count(const Scored& sample) {
  if (std::isnan(sample.score)) return;  // has_nan_ is set
  Bin& bin = histogram_[BinOf(sample.score)];
  ++(sample.label >= 0.5f ? bin.positives : bin.negatives);
}

void BinaryMetrics::BecomeHistogram() {
  histogram_.resize(2 * size_t{kHalfBins});
  for (const Scored& sample : scored_) Count(sample);
  scored_ = {};
}

double BinaryMetrics::Auc() {
  if (has_nan_) return kNan;
  if (!histogram_.empty()) return CountBins(histogram_).Auc();
  std::sort(scored_.begin(), scored_.end(), [](const Scored& a, const Scored& b) { return a.score < b.score; });
  const auto is_positive = [](const Scored& sample) { return sample.label >= 0.5f; };
  return CountPairs(scored_.data(), scored_.data() + scored_.size(), is_positive).Auc();
}

double BinaryMetrics::AucErrorBound() const { return histogram_.empty() ? 0.0 : CountBins(histogram_).HalfOfTies(); }

double BinaryMetrics::LogLoss() const { return loss_sum_ / static_cast<double>(count_); }

double BinaryMetrics::Calibration() const { return label_sum_ > 0 ? score_sum_ / label_sum_ : kNan; }

void GroupedAuc::Add(uint64_t group, float score, float label) {
  samples_.push_back({group, score, label >= 0.5f});
  has_nan_ = has_nan_ || std::isnan(score);
}

GroupedAuc::Result GroupedAuc::Compute() {
  Result result;
  result.value = kNan;
  result.without_group = without_group_;
  if (has_nan_) return result;
  std::sort(samples_.begin(), samples_.end(), [](const Sample& a, const Sample& b) {
    return a.group != b.group ? a.group < b.group : a.score < b.score;
  });
  double weighted = 0.0;
  const Sample* const last = samples_.data() + samples_.size();
  for (const Sample *begin = samples_.data(), *end = begin; begin != last; begin = end) {
    end = std::find_if(begin, last, [&](const Sample& sample) { return sample.group != begin->group; });
    const double auc = CountPairs(begin, end, [](const Sample& sample) { return sample.positive; }).Auc();
    if (std::isnan(auc)) {
      ++result.one_class;
      continue;
    }
    const auto samples = static_cast<uint64_t>(end - begin);
    ++result.groups;
    result.samples += samples;
    weighted += auc * static_cast<double>(samples);
  }
  if (result.groups > 0) result.value = weighted / static_cast<double>(result.samples);
  return result;
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
