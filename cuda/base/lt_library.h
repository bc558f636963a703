// cuBLASLt, loaded at run time: it is half a gigabyte, never shipped, and absent on machines without a GPU.
//
// Thread-safety: LoadLt may be called from any thread; the functions it gives are cuBLASLt's own.
#pragma once

#include <cublasLt.h>

#include "base/status.h"

namespace persia {

struct LtLibrary {
#define PERSIA_LT_FUNCTIONS(X)                                                                                       \
  X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtGetVersion) X(cublasLtMatmul) X(cublasLtMatmulAlgoGetHeuristic)       \
  X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute)                           \
  X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceCreate)                       \
  X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute)
#define PERSIA_LT_POINTER(name) decltype(&::name) name = nullptr;
  PERSIA_LT_FUNCTIONS(PERSIA_LT_POINTER)
#undef PERSIA_LT_POINTER
};

// The library of the newest CUDA major version that this was built for, found by the dynamic linker, in CUDA_PATH or in
// /usr/local/cuda. kDevice: not found; the message lists what was tried.
Result<const LtLibrary*> LoadLt();

// A code of cuBLASLt as a Status; `what` as for CudaStatus.
Status LtStatus(cublasStatus_t status, const char* what);

}  // namespace persia
