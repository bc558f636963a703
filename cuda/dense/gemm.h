// One matrix product of the network by cuBLASLt: shapes, epilogue and algorithm are fixed when it is planned, pointers
// are given when it runs.
//
// Matrices are row-major here; cuBLASLt's are column-major, so that D = X · Y is planned as Dᵀ = Yᵀ · Xᵀ. Of each
// form the row-major result is (rows, columns) with sums over `inner` terms:
//   kNt  x (rows, inner) · y (columns, inner)ᵀ     a layer forward: y is the weight
//   kNn  x (rows, inner) · y (inner, columns)      gradient of a layer's input: y is the weight
//   kTn  x (inner, rows)ᵀ · y (inner, columns)     gradient of the weight: x is that of the layer's output
//
// Thread-safety: externally synchronised.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "cuda/base/lt_library.h"

namespace persia {

enum class GemmForm { kNt, kNn, kTn };

// cuBLASLt has epilogues for backward too (dReLU, bias gradients), but runs each as a pass of its own over the result,
// at a seventh of the memory's rate on Hopper (cuBLAS 13): dense/kernels.h does both in one pass instead. That reads
// where the layer's output is positive: to have the product write a mask of it costs more (a fourth of the first layer's
// time) than reading the output again.
enum class Epilogue {
  kNone,
  kBiasRelu,  // out = max(out + bias, 0), bias by column
};

struct GemmShape {
  GemmForm form;
  int64_t rows, columns, inner;
  int64_t x_stride, y_stride, out_stride;  // elements from row to row
  cudaDataType_t in_type, out_type;
  cublasComputeType_t compute;
  Epilogue epilogue = Epilogue::kNone;
};

struct GemmPointers {
  const void* x;
  const void* y;
  void* out;
  void* bias = nullptr;  // (columns) of the type of out
};

class Gemm {
 public:
  struct Workspace {
    void* data;
    size_t bytes;
  };

  // Takes the algorithm that cuBLASLt's heuristic proposes first or, with `tune`, the fastest of its proposals, timed on
  // `pointers`, whose results are overwritten. kDevice: cuBLASLt has none for this shape and epilogue.
  static Result<std::unique_ptr<Gemm>> Plan(const LtLibrary& lt, cublasLtHandle_t handle, const GemmShape& shape,
                                            const GemmPointers& pointers, Workspace workspace, bool tune,
                                            cudaStream_t stream);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  Status Run(const GemmPointers& pointers, Workspace workspace, cudaStream_t stream) const;

  const GemmShape& shape() const { return shape_; }

 private:
  Gemm(const LtLibrary& lt, cublasLtHandle_t handle, const GemmShape& shape) : lt_(lt), handle_(handle), shape_(shape) {}
  Status Describe(const GemmPointers& pointers);
  Status Point(const GemmPointers& pointers) const;
  Status Choose(const GemmPointers& pointers, Workspace workspace, bool tune, cudaStream_t stream);
  Status RunWith(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                 cudaStream_t stream) const;
  Status RunSeries(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                   cudaStream_t stream) const;
  Result<float> Time(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                     cudaStream_t stream) const;

  const LtLibrary& lt_;
  const cublasLtHandle_t handle_;
  const GemmShape shape_;
  cublasLtMatmulDesc_t description_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
};

}  // namespace persia
