// ByteLink: a stream of bytes in both directions between two processes. Nothing in it blocks.
//
//   ShmLink      two rings in shared memory (shm_link.h)
//   SocketLink   a TCP connection (socket_link.h)
//
// Thread-safety: one thread at a time on each side.
#pragma once

#include <span>

#include "base/status.h"
#include "net/buffer.h"

namespace persia {

class ByteLink {
 public:
  static constexpr size_t kMostPieces = 64;

  virtual ~ByteLink() = default;

  // Bytes of the pieces, one piece after another, that there was room for. At most kMostPieces pieces.
  virtual size_t Write(std::span<const Bytes> pieces) = 0;
  // Bytes that were there. 0: none for now, or the link has ended.
  virtual size_t Read(std::span<std::byte> out) = 0;

  // kPeerLost: the other side has ended it, and all that it sent was read. kProtocol: it has broken it.
  virtual Status status() const = 0;
};

}  // namespace persia
