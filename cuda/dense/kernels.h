// The kernels that the network needs beside its matrix products.
//
// T is the type of activations: float or __nv_bfloat16. Matrices are row-major in the GPU's memory; a `stride` is in
// elements from row to row. Sums over a batch are made in a fixed order, so results don't change from run to run.
//
// Thread-safety: each call enqueues work on `stream` and returns; a launch that fails shows in cudaGetLastError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace persia {

// What a step needs from the host, read by kernels so that a captured graph serves all steps.
struct StepScalars {
  float inverse_rows;  // 1 / rows of the global batch
  float loss_scale, inverse_loss_scale;
  // Of the optimizer; see cuda/dense/optimizer_step.h.
  float lr, momentum, l2;
  float keep, rise1, beta2, rise2, step_size, root_correction2, eps;
  float clip_norm;  // 0: off
};

// What a step tells the host.
struct StepResult {
  double gradient_norm;  // of all weight gradients, before clipping; only with clipping
  uint32_t skipped;      // 1: a gradient was not finite, nothing was changed
};

struct TaskLoss {
  uint32_t is_bce;  // else squared error
  float weight;
  float positive_weight;  // bce: factor on the loss of a positive label
};

// The heads: one linear output a task over the last hidden layer h (rows, width).
template <typename T>
struct HeadArguments {
  uint32_t rows, width, stride, tasks;
  const T* h;
  const float* weight;  // (tasks, stride)
  const float* bias;    // (tasks)
};

// out (rows, stride) = in (rows, width) f32, and 0 behind `width`.
template <typename T>
void LaunchCast(uint32_t rows, uint32_t width, uint32_t stride, const float* in, T* out, cudaStream_t stream);

// Outputs of the heads as probabilities (bce) or values, (rows, tasks) f32.
template <typename T>
void LaunchHeadPredict(const HeadArguments<T>& head, const TaskLoss* losses, float* outputs, cudaStream_t stream);

// Loss of each sample and task, weighted and divided by the rows of the global batch, and its gradient with respect to
// the heads' outputs, times loss_scale; both (rows, tasks) f32. `labels` as well. Clears `embeddings_verdict`.
template <typename T>
void LaunchHeadLoss(const HeadArguments<T>& head, const TaskLoss* losses, const float* labels,
                    const StepScalars* scalars, float* loss, float* gradient, double* embeddings_verdict,
                    cudaStream_t stream);

// gradient (count) /= loss_scale; `verdict` becomes NaN when one of the results is not finite.
void LaunchEmbeddingGradient(size_t count, const StepScalars* scalars, float* gradient, double* verdict,
                             cudaStream_t stream);

// Bias gradient (tasks) f32 and loss (tasks) f64: column sums of the two matrices of LaunchHeadLoss.
void LaunchHeadSums(uint32_t rows, uint32_t tasks, const float* loss, const float* gradient, float* bias_gradient,
                    double* loss_sums, cudaStream_t stream);

// Gradient of the last hidden layer before its ReLU, dz (rows, stride), and in `partials` (HeadPartials floats of
// tasks + 1 arrays) what LaunchHeadWeightSums makes of it the gradient of the heads' weights (tasks, stride) f32 and of
// the layer's bias, dz_sums (stride) f32.
template <typename T>
void LaunchHeadBackward(const HeadArguments<T>& head, const float* gradient, T* dz, float* partials,
                        cudaStream_t stream);
void LaunchHeadWeightSums(uint32_t rows, uint32_t stride, uint32_t tasks, const float* partials, float* weight_gradient,
                          float* dz_sums, cudaStream_t stream);
size_t HeadPartials(uint32_t rows, uint32_t stride, uint32_t arrays);

// dy = h > 0 ? dy : 0, both (rows, stride). `partials` (HeadPartials floats of one array) is what LaunchColumnSums makes
// the sums (stride) f32 of dy's columns of.
template <typename T>
void LaunchReluGradient(uint32_t rows, uint32_t stride, const T* h, T* dy, float* partials, cudaStream_t stream);
void LaunchColumnSums(uint32_t rows, uint32_t stride, const float* partials, float* sums, cudaStream_t stream);

// What cuBLASLt's epilogue does, for shapes or types for which it has none: y = max(y + bias, 0), y (rows, stride), bias
// (stride).
template <typename T>
void LaunchBiasRelu(uint32_t rows, uint32_t stride, const T* bias, T* y, cudaStream_t stream);

// Looks at gradients and losses: whether each is finite and, with clipping, the sum of the gradients' squares, by
// block. It is done part by part, as gradients are finished; the optimizer's blocks read it all. One of the parts looks
// at the tasks' losses and the embeddings' verdict behind them too (the others have `losses` 0).
constexpr uint32_t kCheckBlocks = 256;
constexpr uint32_t kMostTasks = 255;
struct GradientCheck {
  double squares[kCheckBlocks];
  uint32_t not_finite[kCheckBlocks];
};
struct CheckedPart {
  size_t begin, count;            // of the flat array of gradients
  uint32_t first_block, blocks;   // of the check
};
void LaunchGradientCheck(const CheckedPart& part, const float* gradients, uint32_t losses, const double* loss_sums,
                         bool squares, GradientCheck* check, cudaStream_t stream);

enum class OptimizerKernel { kSgd, kMomentum, kAdam };

// Of count values each, f32 but `low`. `low`: the parameters as the products take them, bf16; null in fp32.
struct OptimizerArrays {
  size_t count;  // a multiple of 4
  const float* gradients;
  float* parameters;
  float* first;   // momentum_buffer or exp_avg
  float* second;  // exp_avg_sq
  void* low;
};

// One step of the optimizer over all parameters, with gradients divided by loss_scale, which `check_blocks` blocks have looked at; does nothing but say so
// when a gradient was not finite.
void LaunchOptimizer(OptimizerKernel kernel, const OptimizerArrays& arrays, const StepScalars* scalars,
                     const GradientCheck* check, uint32_t check_blocks, StepResult* result, cudaStream_t stream);

// low = bf16(parameters), count values.
void LaunchLower(size_t count, const float* parameters, void* low, cudaStream_t stream);

}  // namespace persia
