// Metrics over a stream of predictions: ROC AUC and log loss of one binary task, mean squared error of a regression
// task.
//
// AUC is exact: scores are kept (8 bytes a sample) and ranked at the end, ties count half (Mann-Whitney U).
// Thread-safety: externally synchronised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace persia {

class BinaryMetrics {
 public:
  // `scores` are probabilities, `labels` in [0, 1]; (count) f32 each at the given strides. A label >= 0.5 is positive
  // for AUC.
  void Add(size_t count, const float* scores, size_t score_stride, const float* labels, size_t label_stride);

  uint64_t count() const { return scored_.size(); }
  double Auc() const;      // NaN when one class is missing or a score is NaN
  double LogLoss() const;  // mean; probabilities are kept 1e-7 away from 0 and 1; NaN without samples

 private:
  struct Scored {
    float score;
    float label;
  };
  std::vector<Scored> scored_;
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
