// The matrix products of a network for one number of rows, planned once and run every step.
//
// Where cuBLASLt has no fused epilogue for a forward product, its plain form is planned and a kernel of dense/kernels.h
// does the rest; callers don't notice.
//
// Thread-safety: externally synchronised.
#pragma once

#include <memory>
#include <vector>

#include "cuda/base/device_buffer.h"
#include "cuda/dense/device_layout.h"
#include "cuda/dense/gemm.h"
#include "cuda/dense/kernels.h"

namespace persia {

// What all steps share; sized for the largest batch so far.
template <typename T>
struct Activations {
  std::vector<DeviceArray<T>> hidden;        // outputs of hidden layers (rows, out)
  std::vector<DeviceArray<T>> gradients;     // of hidden layers before their ReLU (rows, out)
  std::vector<DeviceArray<float>> partials;  // of the columns' sums of `gradients`; of the last with those of the heads
};

template <typename T>
class Products {
 public:
  struct Context {
    const LtLibrary& lt;
    cublasLtHandle_t handle;
    const DeviceLayout& layout;
    Activations<T>& activations;
    const T* weights;             // (layout.size), weights and biases
    float* weight_gradients;      // (layout.size)
    Gemm::Workspace workspace, side_workspace;
    cublasComputeType_t compute;
    bool tune;
  };

  // `input` (rows, in of layer 0) and `embedding_gradient` (rows, embedding_stride) stand for those of all steps: what
  // is planned is timed on them.
  static Result<std::unique_ptr<Products>> Plan(const Context& context, uint32_t rows, uint32_t embedding_width,
                                                const T* input, float* embedding_gradient, cudaStream_t stream);

  // Each enqueues one product and what belongs to it. `layer` counts hidden layers from 0.
  // hidden[layer] = relu(x · weightᵀ + bias), x being `input` or the layer before.
  Status Forward(size_t layer, const T* input, cudaStream_t stream);
  // gradients[layer - 1] behind its ReLU from gradients[layer]; layer > 0.
  Status InputGradient(size_t layer, cudaStream_t stream);
  // gradients[layer] through the ReLU, and its partials.
  void ReluGradient(size_t layer, cudaStream_t stream);
  Status EmbeddingGradient(float* embedding_gradient, cudaStream_t stream);
  // From gradients[layer]; uses the side workspace.
  Status WeightGradient(size_t layer, const T* input, cudaStream_t stream);

 private:
  Products(const Context& context, uint32_t rows) : c_(context), rows_(rows) {}
  Status PlanAll(uint32_t embedding_width, const T* input, float* embedding_gradient, cudaStream_t stream);
  Result<std::unique_ptr<Gemm>> PlanOne(GemmShape shape, const GemmPointers& pointers, bool side,
                                        cudaStream_t stream) const;
  const T* InputOf(size_t layer, const T* input) const;
  GemmPointers ForwardPointers(size_t layer, const T* input) const;
  GemmPointers InputGradientPointers(size_t layer) const;
  GemmPointers WeightGradientPointers(size_t layer, const T* input) const;

  Context c_;
  const uint32_t rows_;
  std::vector<std::unique_ptr<Gemm>> forward_, input_gradient_, weight_gradient_;  // by layer; input_gradient_[0] empty
  std::unique_ptr<Gemm> embedding_gradient_;                                       // null without embeddings
};

}  // namespace persia
