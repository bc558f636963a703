// A growable array of trivial values on 64-byte boundaries, from huge pages where it is large, or from memory of another
// kind.
//
// Unlike std::vector it never initialises and Reserve never keeps old contents: it is scratch and storage for kernels.
// Thread-safety: externally synchronised.
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include <sys/mman.h>

#include "base/host_memory.h"
#include "base/status.h"

namespace persia {

template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t count) { Resize(count); }
  ~AlignedBuffer() { Free(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept { Swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    Swap(other);
    return *this;
  }

  // Takes its memory, from now on, from `memory`, which outlives the buffer; null: the ordinary one. Contents are lost.
  void UseMemory(HostMemory* memory) {
    Free();
    data_ = nullptr;
    size_ = capacity_ = 0;
    memory_ = memory;
  }

  // Makes room for `count` values; contents are undefined when it has to grow. Ends the process when memory is out:
  // callers that take sizes from outside check them first.
  void Resize(size_t count) {
    if (count > capacity_) Allocate(count);
    size_ = count;
  }

  void Fill(T value) {
    for (size_t i = 0; i < size_; ++i) data_[i] = value;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  static constexpr size_t kLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;

  void Allocate(size_t count) {
    Free();
    if (memory_ != nullptr) return AllocateFrom(*memory_, count);
    alignment_ = count * sizeof(T) >= kHugePage ? kHugePage : kLine;
    const size_t bytes = (count * sizeof(T) + alignment_ - 1) / alignment_ * alignment_;
    data_ = static_cast<T*>(::operator new(bytes, std::align_val_t{alignment_}, std::nothrow));
    PERSIA_CHECK(data_ != nullptr);
    if (alignment_ == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
    capacity_ = bytes / sizeof(T);
  }

  void AllocateFrom(HostMemory& memory, size_t count) {
    data_ = static_cast<T*>(memory.Allocate(count * sizeof(T)));
    PERSIA_CHECK(data_ != nullptr);
    capacity_ = count;
  }

  void Free() {
    if (data_ == nullptr) return;
    memory_ != nullptr ? memory_->Free(data_) : ::operator delete(data_, std::align_val_t{alignment_});
  }

  void Swap(AlignedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(alignment_, other.alignment_);
    std::swap(memory_, other.memory_);
  }

  T* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
  size_t alignment_ = kLine;
  HostMemory* memory_ = nullptr;
};

}  // namespace persia
