// CUDA's and cuBLASLt's return codes as Status.
//
// Thread-safety: pure functions.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/status.h"

namespace persia {

// `what` says what was tried: "copy the batch to the GPU".
inline Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return Status::Ok();
  const ErrorCode code = error == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kDevice;
  return Status(code, std::string("cannot ") + what + ": " + cudaGetErrorString(error))
      .With("cuda", cudaGetErrorName(error));
}

// The number of GPUs. kDevice: no driver, one that is too old, or no GPU.
inline Status CountDevices(int* count) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    return Status(ErrorCode::kDevice, "no NVIDIA driver is installed");
  }
  return CudaStatus(cudaGetDeviceCount(count), "find a GPU");
}

}  // namespace persia

#define PERSIA_RETURN_IF_CUDA(expression, what) PERSIA_RETURN_IF_ERROR(::persia::CudaStatus((expression), what))
