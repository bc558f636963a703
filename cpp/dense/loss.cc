#include "dense/loss.h"

#include <algorithm>
#include <cmath>

namespace persia {
namespace {

struct Sample {
  double loss;
  double gradient;
};

// Cross-entropy on the logit x: log(1 + e^x) - x·y, rearranged so that no exponential overflows. What a positive label
// weighs above 1 is added as a term of its own.
Sample BinaryCrossEntropy(double x, double y, double positive_weight) {
  const double tail = std::log1p(std::exp(-std::abs(x))), probability = Sigmoid(x);
  const double extra = (positive_weight - 1.0) * y;
  return {std::max(x, 0.0) - x * y + tail + extra * (std::max(-x, 0.0) + tail),
          probability - y + extra * (probability - 1.0)};
}

Sample SquaredError(double x, double y) { return {(x - y) * (x - y), 2.0 * (x - y)}; }

}  // namespace

double Sigmoid(double x) {
  const double decay = std::exp(-std::abs(x));
  return (x >= 0 ? 1.0 : decay) / (1.0 + decay);
}

double LossAndGradient(const TaskSpec& task, uint32_t rows, uint64_t mean_rows, size_t stride, const float* outputs,
                       const float* labels, float* gradient) {
  const double scale = static_cast<double>(task.weight) / static_cast<double>(mean_rows);
  double sum = 0.0;
  for (size_t i = 0; i < rows * stride; i += stride) {
    const Sample sample = task.loss == Loss::kBce ? BinaryCrossEntropy(outputs[i], labels[i], task.positive_weight)
                                                  : SquaredError(outputs[i], labels[i]);
    sum += sample.loss;
    gradient[i] = static_cast<float>(scale * sample.gradient);
  }
  return scale * sum;
}

}  // namespace persia
