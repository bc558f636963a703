// Owners of CUDA memory, streams and events.
//
// Thread-safety: externally synchronised. Freeing waits for the device, as cudaFree does.
#pragma once

#include <cstddef>
#include <utility>

#include "cuda/base/cuda_status.h"

namespace persia {

enum class MemoryKind { kDevice, kPinned };  // kPinned: on the host, where the copy engines reach it

// An array that is never initialised. Reserve keeps no contents.
template <typename T, MemoryKind kKind>
class CudaArray {
 public:
  CudaArray() = default;
  ~CudaArray() { Free(); }
  CudaArray(CudaArray&& other) noexcept { *this = std::move(other); }
  CudaArray& operator=(CudaArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  Status Reserve(size_t count) {
    if (count <= size_) return Status::Ok();
    Free();
    void* memory = nullptr;
    const size_t bytes = count * sizeof(T);
    const cudaError_t error = kKind == MemoryKind::kDevice ? cudaMalloc(&memory, bytes) : cudaMallocHost(&memory, bytes);
    if (error != cudaSuccess) {
      (void)cudaGetLastError();  // not for the next call to find
      return CudaStatus(error, kKind == MemoryKind::kDevice ? "take memory of the GPU" : "take pinned memory")
          .With("bytes", std::to_string(bytes));
    }
    data_ = static_cast<T*>(memory);
    size_ = count;
    return Status::Ok();
  }

  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void Free() {
    if (data_ == nullptr) return;
    kKind == MemoryKind::kDevice ? cudaFree(data_) : cudaFreeHost(data_);
    data_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  size_t size_ = 0;
};

template <typename T>
using DeviceArray = CudaArray<T, MemoryKind::kDevice>;
template <typename T>
using PinnedArray = CudaArray<T, MemoryKind::kPinned>;

// A stream that does not wait for the default stream.
class CudaStream {
 public:
  CudaStream() = default;
  ~CudaStream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  // The kernels of an urgent stream go first where those of several could.
  Status Create(bool urgent = false) {
    return CudaStatus(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, urgent ? -1 : 0), "make a stream");
  }
  operator cudaStream_t() const { return stream_; }  // NOLINT: stands for the handle wherever CUDA wants one

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  CudaEvent() = default;
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  // Without `timing` an event is cheaper to record and to wait for.
  Status Create(bool timing = false) {
    return CudaStatus(cudaEventCreateWithFlags(&event_, timing ? cudaEventDefault : cudaEventDisableTiming),
                      "make an event");
  }
  operator cudaEvent_t() const { return event_; }  // NOLINT

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace persia
