// The dense optimizer: one fused pass over all parameters, their gradients and their state, as torch.optim does in
// several.
//
// Parameters, gradients and state are flat arrays of the same layout; the pass is bound by memory (Adam moves 28
// bytes a parameter) and therefore split into chunks of fixed size for the team of threads. The gradient norm is
// summed chunk by chunk in a fixed order: it does not depend on the number of threads.
//
// Thread-safety: externally synchronised.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "dense/dense_model.h"

namespace persia {

class DenseOptimizer {
 public:
  // For `count` parameters; the state starts at 0.
  DenseOptimizer(const DenseOptimizerConfig& config, size_t count);

  // Applies `gradients` to `parameters` (count f32 each) with learning rate lr · lr_factor; `step` counts from 1.
  // kNonFiniteLoss: clipping is on and the norm is not finite; nothing changed.
  Status Step(ThreadPool& pool, uint64_t step, double lr_factor, const float* gradients, float* parameters);

  // A state array as torch.optim names it, in the layout of the parameters.
  struct State {
    const char* name;
    std::span<float> values;
  };
  std::vector<State> States();

 private:
  struct Range {
    size_t begin, count;
  };
  uint32_t chunks() const;
  Range Chunk(uint32_t chunk) const;

  double GradientNorm(ThreadPool& pool, const float* gradients);
  void StepSgd(ThreadPool& pool, double lr, double gradient_scale, const float* gradients, float* parameters);
  void StepAdam(ThreadPool& pool, uint64_t step, double lr, double gradient_scale, const float* gradients,
                float* parameters);

  const DenseOptimizerConfig config_;
  const size_t count_;
  AlignedBuffer<float> first_;   // momentum_buffer or exp_avg
  AlignedBuffer<float> second_;  // exp_avg_sq
  AlignedBuffer<double> partial_norms_;
};

}  // namespace persia
