// In cuBLASLt's column-major terms A is y, B is x, and the result D has `columns` rows and `rows` columns. Hence its
// bias "by row of D" is ours by column.
#include "cuda/dense/gemm.h"

#include <algorithm>
#include <array>
#include <limits>

#include "cuda/base/device_buffer.h"
#include "cuda/base/graph.h"

namespace persia {
namespace {

constexpr int kProposals = 16;
constexpr int kTimedSeries = 3;
constexpr int kRunsOfSeries = 8;

}  // namespace

Result<std::unique_ptr<Gemm>> Gemm::Plan(const LtLibrary& lt, cublasLtHandle_t handle, const GemmShape& shape,
                                         const GemmPointers& pointers, Workspace workspace, bool tune,
                                         cudaStream_t stream) {
  std::unique_ptr<Gemm> gemm(new Gemm(lt, handle, shape));
  PERSIA_RETURN_IF_ERROR(gemm->Describe(pointers));
  PERSIA_RETURN_IF_ERROR(gemm->Choose(pointers, workspace, tune, stream));
  return gemm;
}

Gemm::~Gemm() {
  if (a_ != nullptr) lt_.cublasLtMatrixLayoutDestroy(a_);
  if (b_ != nullptr) lt_.cublasLtMatrixLayoutDestroy(b_);
  if (d_ != nullptr) lt_.cublasLtMatrixLayoutDestroy(d_);
  if (description_ != nullptr) lt_.cublasLtMatmulDescDestroy(description_);
}

Status Gemm::Describe(const GemmPointers& pointers) {
  const GemmShape& s = shape_;
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    return LtStatus(lt_.cublasLtMatmulDescSetAttribute(description_, attribute, &value, sizeof(value)),
                    "describe a product");
  };
  PERSIA_RETURN_IF_ERROR(LtStatus(lt_.cublasLtMatmulDescCreate(&description_, s.compute, CUDA_R_32F),
                                  "describe a product"));
  const cublasOperation_t op_a = s.form == GemmForm::kNt ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = s.form == GemmForm::kTn ? CUBLAS_OP_T : CUBLAS_OP_N;
  PERSIA_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSA, op_a));
  PERSIA_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSB, op_b));
  if (s.epilogue == Epilogue::kBiasRelu) {
    PERSIA_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU_BIAS));
  }
  PERSIA_RETURN_IF_ERROR(Point(pointers));

  const auto layout = [&](cublasLtMatrixLayout_t* to, cudaDataType_t type, bool transposed, int64_t rows,
                          int64_t columns, int64_t stride) {
    if (transposed) std::swap(rows, columns);
    return LtStatus(lt_.cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                                   static_cast<uint64_t>(columns), stride),
                    "describe a matrix");
  };
  PERSIA_RETURN_IF_ERROR(layout(&a_, s.in_type, op_a == CUBLAS_OP_T, s.columns, s.inner, s.y_stride));
  PERSIA_RETURN_IF_ERROR(layout(&b_, s.in_type, op_b == CUBLAS_OP_T, s.inner, s.rows, s.x_stride));
  return layout(&d_, s.out_type, false, s.columns, s.rows, s.out_stride);
}

Status Gemm::Point(const GemmPointers& pointers) const {
  if (shape_.epilogue == Epilogue::kNone) return Status::Ok();
  return LtStatus(lt_.cublasLtMatmulDescSetAttribute(description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &pointers.bias,
                                                     sizeof(pointers.bias)),
                  "describe a product");
}

Status Gemm::Choose(const GemmPointers& pointers, Workspace workspace, bool tune, cudaStream_t stream) {
  cublasLtMatmulPreference_t preference = nullptr;
  PERSIA_RETURN_IF_ERROR(LtStatus(lt_.cublasLtMatmulPreferenceCreate(&preference), "choose an algorithm"));
  std::array<cublasLtMatmulHeuristicResult_t, kProposals> proposals{};
  int found = 0;
  cublasStatus_t status = lt_.cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace.bytes, sizeof(workspace.bytes));
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = lt_.cublasLtMatmulAlgoGetHeuristic(handle_, description_, a_, b_, d_, d_, preference,
                                                tune ? kProposals : 1, proposals.data(), &found);
  }
  lt_.cublasLtMatmulPreferenceDestroy(preference);
  PERSIA_RETURN_IF_ERROR(LtStatus(status, "choose an algorithm for a product"));
  if (found == 0) return Status(ErrorCode::kDevice, "cuBLASLt has no algorithm for a product of this shape");
  algorithm_ = proposals[0].algo;
  if (!tune) return Status::Ok();

  float least_ms = std::numeric_limits<float>::max();
  for (int i = 0; i < found; ++i) {
    const Result<float> ms = Time(proposals[i].algo, pointers, workspace, stream);
    if (!ms.ok() || ms.value() >= least_ms) continue;
    least_ms = ms.value();
    algorithm_ = proposals[i].algo;
  }
  return Status::Ok();
}

// The shortest of several series, which foreign load disturbs least. A series is a graph, as the products of a step are:
// some algorithms clear memory first, which costs a graph more than a stream.
Result<float> Gemm::Time(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                         cudaStream_t stream) const {
  CudaEvent begin, end;
  PERSIA_RETURN_IF_ERROR(begin.Create(true));
  PERSIA_RETURN_IF_ERROR(end.Create(true));
  GraphExec series;
  PERSIA_RETURN_IF_ERROR(series.Capture(stream, [&] { return RunSeries(algorithm, pointers, workspace, stream); }));
  float best = std::numeric_limits<float>::max();
  for (int i = 0; i <= kTimedSeries; ++i) {
    PERSIA_RETURN_IF_CUDA(cudaEventRecord(begin, stream), "time a product");
    PERSIA_RETURN_IF_ERROR(series.Launch(stream));
    PERSIA_RETURN_IF_CUDA(cudaEventRecord(end, stream), "time a product");
    PERSIA_RETURN_IF_CUDA(cudaEventSynchronize(end), "time a product");
    float ms = 0.0f;
    PERSIA_RETURN_IF_CUDA(cudaEventElapsedTime(&ms, begin, end), "time a product");
    if (i > 0) best = std::min(best, ms);  // the first one loads the kernel
  }
  return best;
}

Status Gemm::RunSeries(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                       cudaStream_t stream) const {
  for (int run = 0; run < kRunsOfSeries; ++run) {
    PERSIA_RETURN_IF_ERROR(RunWith(algorithm, pointers, workspace, stream));
  }
  return Status::Ok();
}

Status Gemm::Run(const GemmPointers& pointers, Workspace workspace, cudaStream_t stream) const {
  PERSIA_RETURN_IF_ERROR(Point(pointers));
  return RunWith(algorithm_, pointers, workspace, stream);
}

Status Gemm::RunWith(const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, Workspace workspace,
                     cudaStream_t stream) const {
  const float one = 1.0f, zero = 0.0f;
  return LtStatus(lt_.cublasLtMatmul(handle_, description_, &one, pointers.y, a_, pointers.x, b_, &zero, pointers.out,
                                     d_, pointers.out, d_, &algorithm, workspace.data, workspace.bytes, stream),
                  "multiply matrices");
}

}  // namespace persia
