// The feed-forward network on one GPU: the CUDA twin of cpp/dense/ffnn.cc.
//
// A step, with what runs at the same time in one line:
//
//   upload    copy of inputs and labels, cast ──► (of the next step, while this one computes)
//   compute   forward ─► heads, loss ─► gradient of layer n … 0 ─► of the embeddings ─► optimizer
//   side                                └► weight gradients of layer n … 0, each checked ─┘
//   download  embedding gradients to the host (while the optimizer runs), then loss and result
//
// What compute and side do is one CUDA graph for each number of rows and slot, made when that number comes the second
// time. Two slots hold what differs between two steps in flight; activations are shared, because steps compute one after
// another. Products are cuBLASLt's (dense/gemm.h), the rest is dense/kernels.h.
//
// In bf16, activations, their gradients and a copy of the weights are bf16; sums, weight gradients, optimizer state and
// the weights that it steps are f32. In fp32 all is f32; tf32 lets products round their inputs to 10 bits.
//
// Thread-safety: externally synchronised, as DenseModel.
#pragma once

#include <memory>

#include "dense/cuda_backend.h"
#include "dense/dense_model.h"

namespace persia {

Result<std::unique_ptr<DenseModel>> MakeCudaFfnn(const DenseModelConfig& config, const CudaOptions& options);

}  // namespace persia
