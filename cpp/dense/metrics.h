// Metrics over a stream of predictions. Of a binary task: ROC AUC, log loss, calibration, and AUC within groups (GAUC);
// of a regression task: mean squared error.
//
// AUC is exact up to 10^7 samples: scores are kept (8 bytes a sample) and ranked at the end, ties count half
// (Mann-Whitney U). Beyond that, scores become counts in a histogram of fixed size whose bins are narrow near 0 and
// near 1. A bin's scores then count as ties, so the error is at most half of the pairs that meet in a bin:
//
//   |AUC - exact AUC| <= sum over bins of positives · negatives / 2 / (all positives · all negatives)
//
// GAUC (Zhu et al. 2017, "Optimized Cost per Click in Taobao Display Advertising") is the mean of each group's own AUC,
// weighted by the group's samples (impressions): what a ranking within a user, say, is worth. Groups with one class
// have no AUC and are left out. It keeps 16 bytes a sample.
//
// Thread-safety: externally synchronised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace persia {

// `scores` are probabilities, `labels` in [0, 1]; (count) f32 each at the given strides. A label >= 0.5 is positive for
// AUC.
class BinaryMetrics {
 public:
  static constexpr uint64_t kMostExact = 10'000'000;

  explicit BinaryMetrics(uint64_t most_exact = kMostExact) : most_exact_(most_exact) {}

  void Add(size_t count, const float* scores, size_t score_stride, const float* labels, size_t label_stride);

  uint64_t count() const { return count_; }
  double Auc();                  // NaN when one class is missing or a score is NaN; orders what is kept
  double AucErrorBound() const;  // 0 while AUC is exact
  double LogLoss() const;        // mean; probabilities are kept 1e-7 away from 0 and 1; NaN without samples
  double Calibration() const;    // sum of scores / sum of labels: 1 is right; NaN where no label is above 0

 private:
  struct Scored {
    float score;
    float label;
  };
  struct Bin {
    uint64_t positives = 0, negatives = 0;
  };

  void Count(const Scored& sample);
  void BecomeHistogram();

  const uint64_t most_exact_;
  uint64_t count_ = 0;
  bool has_nan_ = false;
  double loss_sum_ = 0.0, score_sum_ = 0.0, label_sum_ = 0.0;
  std::vector<Scored> scored_;    // until there are more than most_exact_
  std::vector<Bin> histogram_;    // from then on
};

class GroupedAuc {
 public:
  struct Result {
    double value = 0.0;          // NaN when no group has an AUC or a score is NaN
    uint64_t groups = 0;         // that have both classes
    uint64_t samples = 0;        // of these groups
    uint64_t one_class = 0;      // groups that were left out
    uint64_t without_group = 0;  // samples that were left out
  };

  // One sample of a group.
  void Add(uint64_t group, float score, float label);
  void AddWithoutGroup() { ++without_group_; }

  Result Compute();  // orders what is kept

 private:
  struct Sample {
    uint64_t group;
    float score;
    bool positive;
  };
  std::vector<Sample> samples_;
  uint64_t without_group_ = 0;
  bool has_nan_ = false;
};

class RegressionMetrics {
 public:
  void Add(size_t count, const float* outputs, size_t output_stride, const float* labels, size_t label_stride);
  uint64_t count() const { return count_; }
  double MeanSquaredError() const;  // NaN without samples

 private:
  uint64_t count_ = 0;
  double sum_ = 0.0;
};

}  // namespace persia
