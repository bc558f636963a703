// Buffer: the bytes of one message, owned. BufferPool: where their memory comes from.
//
// First touch of fresh memory costs 1 to 6 ms a MiB on virtual machines, more than sending it. So buffers above
// kSmallBytes come from a pool of the process, in sizes of powers of two, and go back there; it keeps at most
// kMostIdleBytes that nobody uses.
//
// Thread-safety: a Buffer is a value of one thread at a time; the pool is internally synchronised.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"

namespace persia {

using Bytes = std::span<const std::byte>;

class Buffer {
 public:
  Buffer() = default;
  // Uninitialised. Ends the process when memory is out: sizes that come from outside are checked first.
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Swap(other);
    return *this;
  }

  static Buffer CopyOf(Bytes bytes);
  // Memory of somebody else's, whose owner is let go with the buffer.
  static Buffer Over(std::span<std::byte> bytes, std::shared_ptr<const void> owner);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {data_, size_}; }
  Bytes bytes() const { return {data_, size_}; }

  // Drops the end. `bytes` <= size().
  void Truncate(size_t bytes) {
    PERSIA_CHECK(bytes <= size_);
    size_ = bytes;
  }

 private:
  void Swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(owner_, other.owner_);
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;  // 0: the memory is not this one's
  std::shared_ptr<const void> owner_;
};

class BufferPool {
 public:
  static constexpr size_t kSmallBytes = 4096;             // up to here malloc serves
  static constexpr size_t kMostPooledBytes = 64u << 20;   // of one buffer; larger ones are allocated and freed
  static constexpr size_t kMostIdleBytes = 256u << 20;

  // Bytes that wait for their next user.
  static size_t idle_bytes();
};

// What is sent: pieces that are put together on the way, without a copy before. Each piece is either owned (a Buffer
// that moves in, or memory held by `owner`) or borrowed. The transport drops a payload, and with it the owners, when it
// does not touch the memory any more; who lends memory gives an owner whose deleter tells that.
class Payload {
 public:
  static constexpr size_t kMostPieces = 16;

  Payload() = default;
  explicit Payload(Buffer buffer) { Add(std::move(buffer)); }

  Payload& Add(Buffer buffer);
  Payload& Add(Bytes bytes, std::shared_ptr<const void> owner);

  size_t bytes() const { return bytes_; }
  size_t pieces() const { return pieces_.size(); }
  Bytes piece(size_t i) const { return pieces_[i].bytes; }
  // All pieces one after another. `out` has bytes().
  void CopyTo(std::byte* out) const;

 private:
  struct Piece {
    Bytes bytes;
    std::shared_ptr<const void> owner;
  };
  std::vector<Piece> pieces_;
  size_t bytes_ = 0;
};

}  // namespace persia
