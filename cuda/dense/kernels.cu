#include "cuda/dense/kernels.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "cuda/base/launch.h"
#include "cuda/dense/optimizer_step.h"

namespace persia {
namespace {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kThreads = 256;

// Four values of a row at once.
template <typename T>
struct Four;
template <>
struct Four<float> {
  static __device__ float4 Load(const float* from) { return *reinterpret_cast<const float4*>(from); }
  static __device__ void Store(float4 v, float* to) { *reinterpret_cast<float4*>(to) = v; }
};
template <>
struct Four<__nv_bfloat16> {
  struct alignas(8) Pairs {  // one access of memory
    __nv_bfloat162 low, high;
  };
  static __device__ float4 Load(const __nv_bfloat16* from) {
    const Pairs pairs = *reinterpret_cast<const Pairs*>(from);
    const float2 a = __bfloat1622float2(pairs.low), b = __bfloat1622float2(pairs.high);
    return {a.x, a.y, b.x, b.y};
  }
  static __device__ void Store(float4 v, __nv_bfloat16* to) {
    *reinterpret_cast<Pairs*>(to) = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
  }
};

// Eight values of a row at once.
template <typename T>
struct Eight;
template <>
struct Eight<float> {
  float4 low, high;
  __device__ void Unpack(float* values) const {
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
  }
  static __device__ Eight Pack(const float* v) { return {{v[0], v[1], v[2], v[3]}, {v[4], v[5], v[6], v[7]}}; }
};
template <>
struct alignas(16) Eight<__nv_bfloat16> {
  __nv_bfloat162 pairs[4];
  __device__ void Unpack(float* values) const {
    for (uint32_t i = 0; i < 4; ++i) {
      const float2 pair = __bfloat1622float2(pairs[i]);
      values[2 * i] = pair.x, values[2 * i + 1] = pair.y;
    }
  }
  static __device__ Eight Pack(const float* v) {
    Eight packed;
    for (uint32_t i = 0; i < 4; ++i) packed.pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    return packed;
  }
};

__device__ float Dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

__device__ float WarpSum(float value) {
  for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

template <typename Value>
__device__ Value BlockSum(Value value) {
  __shared__ Value sums[kThreads];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (uint32_t distance = kThreads / 2; distance > 0; distance /= 2) {
    if (threadIdx.x < distance) sums[threadIdx.x] += sums[threadIdx.x + distance];
    __syncthreads();
  }
  const Value sum = sums[0];
  __syncthreads();  // before the array is used again
  return sum;
}

// ---- input ----------------------------------------------------------------------------------------------------------

__device__ void StorePair(float x, float y, float* to) { *reinterpret_cast<float2*>(to) = {x, y}; }
__device__ void StorePair(float x, float y, __nv_bfloat16* to) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(x, y);
}

// Rows of `in` start anywhere, those of `out` on 32 bytes.
template <typename T>
__global__ void CastKernel(uint32_t rows, uint32_t width, uint32_t stride, const float* __restrict__ in,
                           T* __restrict__ out) {
  for (uint32_t row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
    const float* from = in + size_t{row} * width;
    T* to = out + size_t{row} * stride;
    for (uint32_t i = threadIdx.x * 2; i < stride; i += kWarp * 2) {
      StorePair(i < width ? from[i] : 0.0f, i + 1 < width ? from[i + 1] : 0.0f, to + i);
    }
  }
}

// ---- heads ----------------------------------------------------------------------------------------------------------

// The output of a task for a row, by a warp; every lane gets it.
template <typename T>
__device__ float HeadOutput(const HeadArguments<T>& head, uint32_t row, uint32_t task) {
  const T* h = head.h + size_t{row} * head.stride;
  const float* weight = head.weight + size_t{task} * head.stride;
  float sum = 0.0f;
  for (uint32_t i = threadIdx.x * 4; i < head.stride; i += kWarp * 4) {
    sum += Dot(Four<T>::Load(h + i), Four<float>::Load(weight + i));
  }
  return WarpSum(sum) + head.bias[task];
}

// 1 / (1 + e^-x) without overflow on either side.
__device__ float SigmoidOf(float x) {
  const float decay = expf(-fabsf(x));
  return (x >= 0.0f ? 1.0f : decay) / (1.0f + decay);
}

template <typename T>
__global__ void HeadPredictKernel(HeadArguments<T> head, const TaskLoss* losses, float* outputs) {
  const uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= head.rows) return;
  for (uint32_t task = 0; task < head.tasks; ++task) {
    const float x = HeadOutput(head, row, task);
    if (threadIdx.x == 0) outputs[size_t{row} * head.tasks + task] = losses[task].is_bce ? SigmoidOf(x) : x;
  }
}

template <typename T>
__global__ void HeadLossKernel(HeadArguments<T> head, const TaskLoss* losses, const float* labels,
                               const StepScalars* scalars, float* loss, float* gradient,
                               double* embeddings_verdict) {
  const uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row == 0 && threadIdx.x == 0) *embeddings_verdict = 0.0;
  if (row >= head.rows) return;
  for (uint32_t task = 0; task < head.tasks; ++task) {
    const float x = HeadOutput(head, row, task);
    if (threadIdx.x != 0) continue;
    const size_t at = size_t{row} * head.tasks + task;
    const float y = labels[at], scale = losses[task].weight * scalars->inverse_rows;
    if (losses[task].is_bce) {
      // As cpp/dense/loss.cc, with what a positive label weighs above 1 as a term of its own.
      const float tail = log1pf(expf(-fabsf(x))), probability = SigmoidOf(x);
      const float extra = (losses[task].positive_weight - 1.0f) * y;
      loss[at] = scale * (fmaxf(x, 0.0f) - x * y + tail + extra * (fmaxf(-x, 0.0f) + tail));
      gradient[at] = scale * (probability - y + extra * (probability - 1.0f));
    } else {
      loss[at] = scale * (x - y) * (x - y);
      gradient[at] = scale * 2.0f * (x - y);
    }
    gradient[at] *= scalars->loss_scale;
    // fmaxf drops a NaN; the loss must not.
    if (isnan(x)) loss[at] = x;
  }
}

// A block a task.
__global__ void HeadSumsKernel(uint32_t rows, uint32_t tasks, const float* loss, const float* gradient,
                               float* bias_gradient, double* loss_sums) {
  const uint32_t task = blockIdx.x;
  double losses = 0.0, gradients = 0.0;
  for (uint32_t row = threadIdx.x; row < rows; row += blockDim.x) {
    losses += loss[size_t{row} * tasks + task];
    gradients += gradient[size_t{row} * tasks + task];
  }
  losses = BlockSum(losses);
  gradients = BlockSum(gradients);
  if (threadIdx.x != 0) return;
  loss_sums[task] = losses;
  bias_gradient[task] = static_cast<float>(gradients);
}

// ---- sums over the rows of a batch ----------------------------------------------------------------------------------

// A block takes kChunkRows rows and 4 · kWarp columns: lane x has four columns, lane y every kLanes-th row. The sums of
// a chunk go to partials[chunk], which SumChunksKernel adds up in order.
constexpr uint32_t kChunkRows = 64;
constexpr uint32_t kLanes = 8;
constexpr uint32_t kColumns = 4 * kWarp;

uint32_t Chunks(uint32_t rows) { return (rows + kChunkRows - 1) / kChunkRows; }
dim3 ChunkGrid(uint32_t rows, uint32_t stride, uint32_t arrays = 1) {
  return dim3((stride + kColumns - 1) / kColumns, Chunks(rows), arrays);
}

__device__ void Add(float4& sum, float scale, float4 v) {
  sum.x += scale * v.x;
  sum.y += scale * v.y;
  sum.z += scale * v.z;
  sum.w += scale * v.w;
}

// Adds up the row lanes of a block and stores the four columns of each lane x. All threads of the block call it.
__device__ void StoreChunk(float4 sum, uint32_t column, uint32_t stride, float* partial) {
  __shared__ float4 sums[kLanes][kWarp];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < stride) {
    for (uint32_t lane = 1; lane < kLanes; ++lane) Add(sum, 1.0f, sums[lane][threadIdx.x]);
    Four<float>::Store(sum, partial + column);
  }
  __syncthreads();  // before the array is used again
}

// blockIdx.z is the task whose weight gradient is summed. The blocks of task 0 write dz too, and sum its columns as an
// array behind those of the tasks.
template <typename T>
__global__ void HeadBackwardKernel(HeadArguments<T> head, const float* gradient, T* dz, float* partials) {
  const uint32_t column = blockIdx.x * kColumns + threadIdx.x * 4, task = blockIdx.z;
  const uint32_t end = min(head.rows, (blockIdx.y + 1) * kChunkRows);
  float4 sum{}, dz_sum{};
  for (uint32_t row = blockIdx.y * kChunkRows + threadIdx.y; row < end && column < head.stride; row += kLanes) {
    const float* g = gradient + size_t{row} * head.tasks;
    const float4 h = Four<T>::Load(head.h + size_t{row} * head.stride + column);
    Add(sum, g[task], h);
    if (task != 0) continue;
    float4 d{};
    for (uint32_t other = 0; other < head.tasks; ++other) {
      Add(d, g[other], Four<float>::Load(head.weight + size_t{other} * head.stride + column));
    }
    d = {h.x > 0.0f ? d.x : 0.0f, h.y > 0.0f ? d.y : 0.0f, h.z > 0.0f ? d.z : 0.0f, h.w > 0.0f ? d.w : 0.0f};
    Four<T>::Store(d, dz + size_t{row} * head.stride + column);
    Add(dz_sum, 1.0f, d);
  }
  const auto partial = [&](uint32_t array) { return partials + (size_t{array} * gridDim.y + blockIdx.y) * head.stride; };
  StoreChunk(sum, column, head.stride, partial(task));
  if (task == 0) StoreChunk(dz_sum, column, head.stride, partial(head.tasks));
}

// A pass that other kernels' products run beside: few blocks, of all the threads that a multiprocessor takes, leave them
// most of the multiprocessors, whole. A thread has eight columns of every kWideLanes-th row of a chunk, and asks for
// several rows before it looks at the first.
constexpr uint32_t kWideColumns = 8 * kWarp;
constexpr uint32_t kWideLanes = 32;
constexpr uint32_t kRowsAhead = 4;
constexpr uint32_t kWideBlocks = 64;

template <typename T>
__global__ void __launch_bounds__(kWarp* kWideLanes)
    ReluGradientKernel(uint32_t rows, uint32_t chunk_rows, uint32_t stride, const T* __restrict__ h, T* dy,
                       float* partials) {
  __shared__ float lanes[kWideLanes][kWideColumns / 4 + 4];
  const uint32_t column = blockIdx.x * kWideColumns + threadIdx.x * 8;
  const uint32_t end = min(rows, (blockIdx.y + 1) * chunk_rows);
  float sums[8] = {};
  for (uint32_t first = blockIdx.y * chunk_rows + threadIdx.y; first < end && column < stride;
       first += kWideLanes * kRowsAhead) {
    Eight<T> gradients[kRowsAhead], outputs[kRowsAhead];
#pragma unroll
    for (uint32_t i = 0; i < kRowsAhead; ++i) {
      const size_t at = size_t{min(first + i * kWideLanes, end - 1)} * stride + column;
      gradients[i] = *reinterpret_cast<const Eight<T>*>(dy + at);
      outputs[i] = *reinterpret_cast<const Eight<T>*>(h + at);
    }
#pragma unroll
    for (uint32_t i = 0; i < kRowsAhead; ++i) {
      const size_t row = first + i * kWideLanes;
      if (row >= end) break;
      float d[8], y[8];
      gradients[i].Unpack(d);
      outputs[i].Unpack(y);
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) {
        d[j] = y[j] > 0.0f ? d[j] : 0.0f;
        sums[j] += d[j];
      }
      *reinterpret_cast<Eight<T>*>(dy + row * stride + column) = Eight<T>::Pack(d);
    }
  }
  // Quarter by quarter of the block's columns, so that the lanes' sums fit into 48 KiB.
  for (uint32_t quarter = 0; quarter < 4; ++quarter) {
    __syncthreads();
    if (threadIdx.x / 8 == quarter) {
      for (uint32_t j = 0; j < 8; ++j) lanes[threadIdx.y][threadIdx.x % 8 * 8 + j] = sums[j];
    }
    __syncthreads();
    const uint32_t i = threadIdx.y * kWarp + threadIdx.x, sum_column = blockIdx.x * kWideColumns + quarter * 64 + i;
    if (i >= 64 || sum_column >= stride) continue;
    float sum = 0.0f;
    for (uint32_t lane = 0; lane < kWideLanes; ++lane) sum += lanes[lane][i];
    partials[size_t{blockIdx.y} * stride + sum_column] = sum;
  }
}

// sums[array][column] over the chunks of each array. A block has kWarp columns of one array and kLanes lanes of chunks.
__global__ void SumChunksKernel(uint32_t chunks, uint32_t stride, const float* partials, float* sums) {
  __shared__ float lanes[kLanes][kWarp];
  const uint32_t column = blockIdx.x * kWarp + threadIdx.x;
  const float* partial = partials + size_t{blockIdx.y} * chunks * stride;
  float sum = 0.0f;
  for (uint32_t chunk = threadIdx.y; chunk < chunks && column < stride; chunk += kLanes) {
    sum += partial[size_t{chunk} * stride + column];
  }
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= stride) return;
  for (uint32_t lane = 1; lane < kLanes; ++lane) sum += lanes[lane][threadIdx.x];
  sums[size_t{blockIdx.y} * stride + column] = sum;
}

void SumChunks(uint32_t chunks, uint32_t stride, uint32_t arrays, const float* partials, float* sums,
               cudaStream_t stream) {
  Launch(stream, dim3((stride + kWarp - 1) / kWarp, arrays), dim3(kWarp, kLanes), SumChunksKernel, chunks, stride,
         partials, sums);
}

// ---- an epilogue that cuBLASLt lacks for some shapes -----------------------------------------------------------------

template <typename T>
__global__ void BiasReluKernel(uint32_t rows, uint32_t stride, const T* bias, T* y) {
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (uint32_t i = threadIdx.x * 4; i < stride; i += blockDim.x * 4) {
      T* at = y + size_t{row} * stride + i;
      const float4 v = Four<T>::Load(at), b = Four<T>::Load(bias + i);
      Four<T>::Store({fmaxf(v.x + b.x, 0.0f), fmaxf(v.y + b.y, 0.0f), fmaxf(v.z + b.z, 0.0f), fmaxf(v.w + b.w, 0.0f)},
                     at);
    }
  }
}

// ---- optimizer ------------------------------------------------------------------------------------------------------

__device__ uint32_t IsNotFinite(float value) { return (__float_as_uint(value) & 0x7f800000u) == 0x7f800000u; }

__global__ void EmbeddingGradientKernel(size_t count, const StepScalars* scalars, float* gradient, double* verdict) {
  const float factor = scalars->inverse_loss_scale;
  uint32_t not_finite = 0;
  const size_t step = size_t{gridDim.x} * blockDim.x * 4;
  for (size_t i = (size_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4; i < count; i += step) {
    float4 g = Four<float>::Load(gradient + i);
    g = {g.x * factor, g.y * factor, g.z * factor, g.w * factor};
    not_finite |= IsNotFinite(g.x) | IsNotFinite(g.y) | IsNotFinite(g.z) | IsNotFinite(g.w);
    if (factor != 1.0f) Four<float>::Store(g, gradient + i);
  }
  if (not_finite != 0) *verdict = nan("");  // the same from every thread
}

template <bool kSquares>
__device__ void LookAt(float4 g, uint32_t& not_finite, double& squares) {
  not_finite |= IsNotFinite(g.x) | IsNotFinite(g.y) | IsNotFinite(g.z) | IsNotFinite(g.w);
  if constexpr (kSquares) {
    squares += double{g.x} * g.x + double{g.y} * g.y + double{g.z} * g.z + double{g.w} * g.w;
  }
}

template <bool kSquares>
__global__ void GradientCheckKernel(size_t count, const float* __restrict__ gradients, uint32_t losses,
                                    const double* loss_sums, uint32_t first_block, GradientCheck* check) {
  constexpr uint32_t kAhead = 4;
  uint32_t not_finite = threadIdx.x < losses && !isfinite(loss_sums[threadIdx.x]);
  double squares = 0.0;
  const size_t step = size_t{gridDim.x} * blockDim.x * 4;
  size_t i = (size_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4;
  for (; i + (kAhead - 1) * step < count; i += kAhead * step) {
    float4 g[kAhead];
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j) g[j] = Four<float>::Load(gradients + i + j * step);
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j) LookAt<kSquares>(g[j], not_finite, squares);
  }
  for (; i < count; i += step) LookAt<kSquares>(Four<float>::Load(gradients + i), not_finite, squares);
  not_finite = __syncthreads_or(static_cast<int>(not_finite)) != 0 ? 1 : 0;
  if constexpr (kSquares) squares = BlockSum(squares);
  if (threadIdx.x != 0) return;
  check->not_finite[first_block + blockIdx.x] = not_finite;
  check->squares[first_block + blockIdx.x] = squares;
}

// What all blocks conclude from the check alike: whether to step, and the factor on gradients.
struct Verdict {
  bool skip;
  float scale;
  double norm;
};

__device__ Verdict Judge(const StepScalars& scalars, const GradientCheck& check, uint32_t blocks) {
  static_assert(kCheckBlocks == kThreads);
  const bool counts = threadIdx.x < blocks;
  const bool skip = __syncthreads_or(counts && check.not_finite[threadIdx.x] != 0) != 0;
  if (scalars.clip_norm == 0.0f) return {skip, scalars.inverse_loss_scale, 0.0};
  const double norm = sqrt(BlockSum(counts ? check.squares[threadIdx.x] : 0.0)) * scalars.inverse_loss_scale;
  const auto clip = static_cast<float>(fmin(1.0, scalars.clip_norm / (norm + 1e-6)));
  return {skip, clip * scalars.inverse_loss_scale, norm};
}

template <OptimizerKernel kKernel>
__device__ void OptimizeOne(const StepScalars& k, float scale, float g, float* p, float* first, float* second) {
  if constexpr (kKernel == OptimizerKernel::kSgd) SgdStep(k, scale, g, p);
  if constexpr (kKernel == OptimizerKernel::kMomentum) MomentumStep(k, scale, g, p, first);
  if constexpr (kKernel == OptimizerKernel::kAdam) AdamStep(k, scale, g, p, first, second);
}

template <OptimizerKernel kKernel>
__global__ void OptimizerKernelOf(OptimizerArrays a, const StepScalars* scalars, const GradientCheck* check,
                                  uint32_t blocks, StepResult* result) {
  const StepScalars k = *scalars;
  const Verdict verdict = Judge(k, *check, blocks);
  if (blockIdx.x == 0 && threadIdx.x == 0) *result = {verdict.norm, verdict.skip ? 1u : 0u};
  if (verdict.skip) return;
  constexpr bool kFirst = kKernel != OptimizerKernel::kSgd, kSecond = kKernel == OptimizerKernel::kAdam;
  const size_t step = size_t{gridDim.x} * blockDim.x * 4;
  for (size_t i = (size_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4; i < a.count; i += step) {
    const float4 g = Four<float>::Load(a.gradients + i);
    float4 p = Four<float>::Load(a.parameters + i), first{}, second{};
    if constexpr (kFirst) first = Four<float>::Load(a.first + i);
    if constexpr (kSecond) second = Four<float>::Load(a.second + i);
    OptimizeOne<kKernel>(k, verdict.scale, g.x, &p.x, &first.x, &second.x);
    OptimizeOne<kKernel>(k, verdict.scale, g.y, &p.y, &first.y, &second.y);
    OptimizeOne<kKernel>(k, verdict.scale, g.z, &p.z, &first.z, &second.z);
    OptimizeOne<kKernel>(k, verdict.scale, g.w, &p.w, &first.w, &second.w);
    Four<float>::Store(p, a.parameters + i);
    if constexpr (kFirst) Four<float>::Store(first, a.first + i);
    if constexpr (kSecond) Four<float>::Store(second, a.second + i);
    if (a.low != nullptr) Four<__nv_bfloat16>::Store(p, static_cast<__nv_bfloat16*>(a.low) + i);
  }
}

__global__ void LowerKernel(size_t count, const float* parameters, __nv_bfloat16* low) {
  const size_t step = size_t{gridDim.x} * blockDim.x * 4;
  for (size_t i = (size_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4; i < count; i += step) {
    Four<__nv_bfloat16>::Store(Four<float>::Load(parameters + i), low + i);
  }
}

constexpr dim3 kRowBlock(kWarp, kLanes);  // a warp a row
uint32_t RowBlocks(uint32_t rows) { return (rows + kLanes - 1) / kLanes; }

constexpr uint32_t kMostBlocks = 2048;  // of a loop over a flat array: several waves of any GPU

uint32_t FlatBlocks(size_t count) {
  return static_cast<uint32_t>(std::clamp<size_t>((count / 4 + kThreads - 1) / kThreads, 1, kMostBlocks));
}

}  // namespace

template <typename T>
void LaunchCast(uint32_t rows, uint32_t width, uint32_t stride, const float* in, T* out, cudaStream_t stream) {
  Launch(stream, std::min(RowBlocks(rows), kMostBlocks), kRowBlock, CastKernel<T>, rows, width, stride, in, out);
}

template <typename T>
void LaunchHeadPredict(const HeadArguments<T>& head, const TaskLoss* losses, float* outputs, cudaStream_t stream) {
  Launch(stream, RowBlocks(head.rows), kRowBlock, HeadPredictKernel<T>, head, losses, outputs);
}

template <typename T>
void LaunchHeadLoss(const HeadArguments<T>& head, const TaskLoss* losses, const float* labels,
                    const StepScalars* scalars, float* loss, float* gradient, double* embeddings_verdict,
                    cudaStream_t stream) {
  Launch(stream, RowBlocks(head.rows), kRowBlock, HeadLossKernel<T>, head, losses, labels, scalars, loss, gradient,
         embeddings_verdict);
}

void LaunchEmbeddingGradient(size_t count, const StepScalars* scalars, float* gradient, double* verdict,
                             cudaStream_t stream) {
  Launch(stream, FlatBlocks(count), kThreads, EmbeddingGradientKernel, count, scalars, gradient, verdict);
}

void LaunchHeadSums(uint32_t rows, uint32_t tasks, const float* loss, const float* gradient, float* bias_gradient,
                    double* loss_sums, cudaStream_t stream) {
  Launch(stream, tasks, kThreads, HeadSumsKernel, rows, tasks, loss, gradient, bias_gradient, loss_sums);
}

size_t HeadPartials(uint32_t rows, uint32_t stride, uint32_t tasks) {
  return size_t{Chunks(rows)} * stride * tasks;
}

template <typename T>
void LaunchHeadBackward(const HeadArguments<T>& head, const float* gradient, T* dz, float* partials,
                        cudaStream_t stream) {
  Launch(stream, ChunkGrid(head.rows, head.stride, head.tasks), kRowBlock, HeadBackwardKernel<T>, head, gradient, dz,
         partials);
}

void LaunchHeadWeightSums(uint32_t rows, uint32_t stride, uint32_t tasks, const float* partials, float* weight_gradient,
                          float* dz_sums, cudaStream_t stream) {
  SumChunks(Chunks(rows), stride, tasks, partials, weight_gradient, stream);
  SumChunks(Chunks(rows), stride, 1, partials + HeadPartials(rows, stride, tasks), dz_sums, stream);
}

template <typename T>
void LaunchBiasRelu(uint32_t rows, uint32_t stride, const T* bias, T* y, cudaStream_t stream) {
  Launch(stream, std::min(rows, kMostBlocks), kThreads, BiasReluKernel<T>, rows, stride, bias, y);
}

// Rows of a chunk of LaunchReluGradient: so many that there are about kWideBlocks blocks.
uint32_t WideChunkRows(uint32_t rows, uint32_t stride) {
  const uint32_t across = (stride + kWideColumns - 1) / kWideColumns;
  const uint32_t chunks = std::clamp(kWideBlocks / across, 1u, (rows + 63) / 64);
  return (rows + chunks - 1) / chunks;
}

template <typename T>
void LaunchReluGradient(uint32_t rows, uint32_t stride, const T* h, T* dy, float* partials, cudaStream_t stream) {
  const uint32_t chunk_rows = WideChunkRows(rows, stride);
  Launch(stream, dim3((stride + kWideColumns - 1) / kWideColumns, (rows + chunk_rows - 1) / chunk_rows),
         dim3(kWarp, kWideLanes), ReluGradientKernel<T>, rows, chunk_rows, stride, h, dy, partials);
}

void LaunchColumnSums(uint32_t rows, uint32_t stride, const float* partials, float* sums, cudaStream_t stream) {
  const uint32_t chunk_rows = WideChunkRows(rows, stride);
  SumChunks((rows + chunk_rows - 1) / chunk_rows, stride, 1, partials, sums, stream);
}

void LaunchGradientCheck(const CheckedPart& part, const float* gradients, uint32_t losses, const double* loss_sums,
                         bool squares, GradientCheck* check, cudaStream_t stream) {
  const auto launch = [&](auto* function) {
    Launch(stream, part.blocks, kThreads, function, part.count, gradients + part.begin, losses, loss_sums,
           part.first_block, check);
  };
  squares ? launch(GradientCheckKernel<true>) : launch(GradientCheckKernel<false>);
}

void LaunchOptimizer(OptimizerKernel kernel, const OptimizerArrays& arrays, const StepScalars* scalars,
                     const GradientCheck* check, uint32_t check_blocks, StepResult* result, cudaStream_t stream) {
  const auto launch = [&](auto* function) {
    Launch(stream, FlatBlocks(arrays.count), kThreads, function, arrays, scalars, check, check_blocks, result);
  };
  switch (kernel) {
    case OptimizerKernel::kSgd: return launch(OptimizerKernelOf<OptimizerKernel::kSgd>);
    case OptimizerKernel::kMomentum: return launch(OptimizerKernelOf<OptimizerKernel::kMomentum>);
    case OptimizerKernel::kAdam: return launch(OptimizerKernelOf<OptimizerKernel::kAdam>);
  }
}

void LaunchLower(size_t count, const float* parameters, void* low, cudaStream_t stream) {
  Launch(stream, FlatBlocks(count), kThreads, LowerKernel, count, parameters, static_cast<__nv_bfloat16*>(low));
}

#define PERSIA_INSTANTIATE(T)                                                                                         \
  template void LaunchCast(uint32_t, uint32_t, uint32_t, const float*, T*, cudaStream_t);                              \
  template void LaunchHeadPredict(const HeadArguments<T>&, const TaskLoss*, float*, cudaStream_t);                     \
  template void LaunchHeadLoss(const HeadArguments<T>&, const TaskLoss*, const float*, const StepScalars*, float*,     \
                               float*, double*, cudaStream_t);                                                         \
  template void LaunchHeadBackward(const HeadArguments<T>&, const float*, T*, float*, cudaStream_t);                   \
  template void LaunchBiasRelu(uint32_t, uint32_t, const T*, T*, cudaStream_t);                                        \
  template void LaunchReluGradient(uint32_t, uint32_t, const T*, T*, float*, cudaStream_t);
PERSIA_INSTANTIATE(float)
PERSIA_INSTANTIATE(__nv_bfloat16)
#undef PERSIA_INSTANTIATE

}  // namespace persia
