// cuBLASLt by triple loops, in place of cuda/base/lt_library.cc: column-major products with the epilogue that cuda/
// asks for, of f32 and bf16. PERSIA_EMULATE_NO_EPILOGUES makes it refuse epilogues, as cuBLASLt does for some shapes.
#include "cuda/base/lt_library.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include "emulation.h"

namespace {

struct Description {
  std::map<int, uint64_t> attributes{{CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT}};

  template <typename T>
  T Get(cublasLtMatmulDescAttributes_t attribute) const {
    T value{};
    if (const auto found = attributes.find(attribute); found != attributes.end()) {
      std::memcpy(&value, &found->second, sizeof(T));
    }
    return value;
  }
};

struct MatrixLayout {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t stride;
};

float Read(const void* data, cudaDataType type, size_t at) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[at];
  return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at]);
}

void Write(void* data, cudaDataType type, size_t at, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[at] = value;
  } else {
    static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16(value);
  }
}

// Entry (row, column) of op(matrix).
size_t At(const MatrixLayout& layout, cublasOperation_t op, size_t row, size_t column) {
  const auto stride = static_cast<size_t>(layout.stride);
  return op == CUBLAS_OP_N ? column * stride + row : row * stride + column;
}

void Multiply(const Description& d, const void* a, const MatrixLayout& la, const void* b, const MatrixLayout& lb,
              void* out, const MatrixLayout& lo) {
  const auto op_a = d.Get<cublasOperation_t>(CUBLASLT_MATMUL_DESC_TRANSA);
  const auto op_b = d.Get<cublasOperation_t>(CUBLASLT_MATMUL_DESC_TRANSB);
  const auto epilogue = d.Get<cublasLtEpilogue_t>(CUBLASLT_MATMUL_DESC_EPILOGUE);
  void* bias = d.Get<void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER);
  const size_t inner = op_a == CUBLAS_OP_N ? la.columns : la.rows;
  for (size_t column = 0; column < lo.columns; ++column) {
    for (size_t row = 0; row < lo.rows; ++row) {
      float sum = 0.0f;
      for (size_t i = 0; i < inner; ++i) {
        sum += Read(a, la.type, At(la, op_a, row, i)) * Read(b, lb.type, At(lb, op_b, i, column));
      }
      if (epilogue == CUBLASLT_EPILOGUE_RELU_BIAS) sum = std::max(sum + Read(bias, lo.type, row), 0.0f);
      Write(out, lo.type, At(lo, CUBLAS_OP_N, row, column), sum);
    }
  }
}

cublasStatus_t Matmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void*, const void* a,
                      cublasLtMatrixLayout_t la, const void* b, cublasLtMatrixLayout_t lb, const void*, const void*,
                      cublasLtMatrixLayout_t, void* out, cublasLtMatrixLayout_t lo, const cublasLtMatmulAlgo_t*, void*,
                      size_t, cudaStream_t) {
  // Attributes count as they are now: a captured product keeps them.
  const Description d = *reinterpret_cast<const Description*>(description);
  const auto layout = [](cublasLtMatrixLayout_t of) { return *reinterpret_cast<const MatrixLayout*>(of); };
  emulation::Enqueue([=, la = layout(la), lb = layout(lb), lo = layout(lo)] { Multiply(d, a, la, b, lb, out, lo); });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t Heuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t,
                         cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                         cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t*, int* found) {
  const auto epilogue =
      reinterpret_cast<const Description*>(description)->Get<cublasLtEpilogue_t>(CUBLASLT_MATMUL_DESC_EPILOGUE);
  *found = std::getenv("PERSIA_EMULATE_NO_EPILOGUES") == nullptr || epilogue == CUBLASLT_EPILOGUE_DEFAULT ? 1 : 0;
  return *found == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t SetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute,
                            const void* value, size_t bytes) {
  uint64_t bits = 0;
  std::memcpy(&bits, value, bytes);
  reinterpret_cast<Description*>(description)->attributes[attribute] = bits;
  return CUBLAS_STATUS_SUCCESS;
}

persia::LtLibrary Emulated() {
  persia::LtLibrary lt;
  lt.cublasLtCreate = [](cublasLtHandle_t* handle) {
    *handle = nullptr;
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtDestroy = [](cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; };
  lt.cublasLtMatmul = Matmul;
  lt.cublasLtMatmulAlgoGetHeuristic = Heuristic;
  lt.cublasLtMatmulDescCreate = [](cublasLtMatmulDesc_t* to, cublasComputeType_t, cudaDataType_t) {
    *to = reinterpret_cast<cublasLtMatmulDesc_t>(new Description);
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtMatmulDescDestroy = [](cublasLtMatmulDesc_t description) {
    delete reinterpret_cast<Description*>(description);
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtMatmulDescSetAttribute = SetAttribute;
  lt.cublasLtMatrixLayoutCreate = [](cublasLtMatrixLayout_t* to, cudaDataType type, uint64_t rows, uint64_t columns,
                                     int64_t stride) {
    *to = reinterpret_cast<cublasLtMatrixLayout_t>(new MatrixLayout{type, rows, columns, stride});
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtMatrixLayoutDestroy = [](cublasLtMatrixLayout_t layout) {
    delete reinterpret_cast<MatrixLayout*>(layout);
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtMatmulPreferenceCreate = [](cublasLtMatmulPreference_t* to) {
    *to = nullptr;
    return CUBLAS_STATUS_SUCCESS;
  };
  lt.cublasLtMatmulPreferenceDestroy = [](cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; };
  lt.cublasLtMatmulPreferenceSetAttribute = [](cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                               const void*, size_t) { return CUBLAS_STATUS_SUCCESS; };
  return lt;
}

}  // namespace

namespace persia {

Result<const LtLibrary*> LoadLt() {
  static const LtLibrary library = Emulated();
  return &library;
}

Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::Ok();
  return Status(ErrorCode::kDevice, std::string("cannot ") + what + ": emulated status " + std::to_string(status));
}

}  // namespace persia
