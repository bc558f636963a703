// Starts a kernel: the one place where the launch syntax stands, so that kernels are plain C++ to every other compiler.
//
// Thread-safety: any thread, as CUDA's launches. A launch that fails shows in cudaGetLastError.
#pragma once

#include <cuda_runtime.h>

#ifndef PERSIA_CUDA_EMULATION  // which brings its own

namespace persia {

template <typename... Parameters, typename... Arguments>
void Launch(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
  kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
}

}  // namespace persia

#endif
