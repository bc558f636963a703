// CUDA on the CPU, for tests on machines without a GPU: enough of the runtime, of cuBLASLt and of the device's language
// to run cuda/ as it stands, slowly.
//
// A kernel runs block by block; the threads of a block are fibers that hand over at barriers and shuffles, so a missing
// barrier shows as wrong results only where the order of threads 0, 1, 2 … matters. Streams run at once and in the order
// of the calls: what is missing between two streams does not show. Memory starts as NaN, so that what nobody wrote
// shows. Graphs hold the calls of their capture and repeat them.
//
// This header is included before every kernel source. Thread-safety: any thread; kernels run one at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

namespace emulation {

// Runs `work`, or keeps it when a stream is being captured.
void Enqueue(std::function<void()> work);

struct Position {
  dim3 grid, block;
  uint3 block_index, thread_index;
};
const Position& Here();

// Runs `body` as every thread of every block.
void RunKernel(dim3 grid, dim3 block, const std::function<void()>& body);

void Barrier();
int BarrierOr(int value);             // of all threads of the block
float ShuffleXor(float value, uint32_t mask);  // within a warp, along x

}  // namespace emulation

#undef __shared__
#define __shared__ static
#define threadIdx (::emulation::Here().thread_index)
#define blockIdx (::emulation::Here().block_index)
#define blockDim (::emulation::Here().block)
#define gridDim (::emulation::Here().grid)
#undef __launch_bounds__
#define __launch_bounds__(...)
#define __syncthreads() ::emulation::Barrier()
#define __syncthreads_or(value) ::emulation::BarrierOr(value)
#define __shfl_xor_sync(lanes, value, mask) ::emulation::ShuffleXor(value, mask)
#define __float_as_uint(value) std::bit_cast<uint32_t>(value)

namespace persia {

using std::isfinite;
using std::isnan;
using std::min;

// In place of cuda/base/launch.h.
template <typename... Parameters, typename... Arguments>
void Launch(cudaStream_t, dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
  emulation::Enqueue([=] { emulation::RunKernel(grid, block, [&] { kernel(arguments...); }); });
}

}  // namespace persia
