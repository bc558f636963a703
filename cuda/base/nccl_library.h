// NCCL, loaded at run time as cuBLASLt is: it sums over GPUs, and nobody with one GPU needs it.
//
// Thread-safety: LoadNccl may be called from any thread; the functions it gives are NCCL's own.
#pragma once

#include <nccl.h>

#include "base/status.h"

namespace persia {

struct NcclLibrary {
#define PERSIA_NCCL_FUNCTIONS(X)                                                                                   \
  X(ncclAllReduce) X(ncclCommAbort) X(ncclCommGetAsyncError) X(ncclCommInitRankConfig) X(ncclGetErrorString)         \
  X(ncclGetUniqueId)
#define PERSIA_NCCL_POINTER(name) decltype(&::name) name = nullptr;
  PERSIA_NCCL_FUNCTIONS(PERSIA_NCCL_POINTER)
#undef PERSIA_NCCL_POINTER
};

// libnccl.so.2 as the dynamic linker finds it, or in CUDA_PATH. kDevice: not found; the message lists what was tried.
Result<const NcclLibrary*> LoadNccl();

}  // namespace persia
