#include "net/buffer.h"

#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <new>

#include <sys/mman.h>

#include "base/copy.h"

namespace persia {
namespace {

constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;
constexpr size_t kClasses = std::bit_width(BufferPool::kMostPooledBytes);

struct SizeClass {
  std::mutex mutex;
  std::vector<void*> idle;  // guarded by mutex
};

struct Pool {
  std::array<SizeClass, kClasses> classes;
  std::atomic<size_t> idle_bytes{0};  // a bound, no more: relaxed
};

// Never destroyed: buffers of other static objects may outlive it.
Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

size_t AlignmentOf(size_t capacity) { return capacity >= kHugePage ? kHugePage : kLine; }

bool Pooled(size_t capacity) { return capacity > BufferPool::kSmallBytes && capacity <= BufferPool::kMostPooledBytes; }

size_t CapacityFor(size_t bytes) {
  if (bytes <= BufferPool::kSmallBytes) return (bytes + kLine - 1) / kLine * kLine;
  if (bytes <= BufferPool::kMostPooledBytes) return std::bit_ceil(bytes);
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

void* Allocate(size_t capacity) {
  void* memory = ::operator new(capacity, std::align_val_t{AlignmentOf(capacity)}, std::nothrow);
  PERSIA_CHECK(memory != nullptr);
  if (capacity >= kHugePage) madvise(memory, capacity, MADV_HUGEPAGE);
  return memory;
}

void* Take(size_t capacity) {
  if (Pooled(capacity)) {
    SizeClass& sizes = ThePool().classes[std::bit_width(capacity) - 1];
    std::lock_guard lock(sizes.mutex);
    if (!sizes.idle.empty()) {
      void* memory = sizes.idle.back();
      sizes.idle.pop_back();
      ThePool().idle_bytes.fetch_sub(capacity, std::memory_order_relaxed);
      return memory;
    }
  }
  return Allocate(capacity);
}

void GiveBack(void* memory, size_t capacity) {
  Pool& pool = ThePool();
  if (Pooled(capacity) && pool.idle_bytes.load(std::memory_order_relaxed) + capacity <= BufferPool::kMostIdleBytes) {
    pool.idle_bytes.fetch_add(capacity, std::memory_order_relaxed);
    SizeClass& sizes = pool.classes[std::bit_width(capacity) - 1];
    std::lock_guard lock(sizes.mutex);
    sizes.idle.push_back(memory);
    return;
  }
  ::operator delete(memory, std::align_val_t{AlignmentOf(capacity)});
}

}  // namespace

size_t BufferPool::idle_bytes() { return ThePool().idle_bytes.load(std::memory_order_relaxed); }

Buffer::Buffer(size_t bytes) : size_(bytes), capacity_(CapacityFor(bytes)) {
  if (capacity_ > 0) data_ = static_cast<std::byte*>(Take(capacity_));
}

Buffer::~Buffer() {
  if (capacity_ > 0) GiveBack(data_, capacity_);
}

Buffer Buffer::CopyOf(Bytes bytes) {
  Buffer buffer(bytes.size());
  CopyBytes(buffer.data(), bytes.data(), bytes.size());
  return buffer;
}

Buffer Buffer::Over(std::span<std::byte> bytes, std::shared_ptr<const void> owner) {
  Buffer buffer;
  buffer.data_ = bytes.data();
  buffer.size_ = bytes.size();
  buffer.owner_ = std::move(owner);
  return buffer;
}

Payload& Payload::Add(Buffer buffer) {
  auto owner = std::make_shared<Buffer>(std::move(buffer));
  const Bytes bytes = owner->bytes();
  return Add(bytes, std::move(owner));
}

Payload& Payload::Add(Bytes bytes, std::shared_ptr<const void> owner) {
  if (bytes.empty()) return *this;
  PERSIA_CHECK(pieces_.size() < kMostPieces);
  bytes_ += bytes.size();
  pieces_.push_back({bytes, std::move(owner)});
  return *this;
}

void Payload::CopyTo(std::byte* out) const {
  for (const Piece& piece : pieces_) {
    CopyBytes(out, piece.bytes.data(), piece.bytes.size());
    out += piece.bytes.size();
  }
}

}  // namespace persia
