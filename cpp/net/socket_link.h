// A TCP connection as a stream of bytes.
//
//   kernel ──► [ out | ahead_ ]      one call reads what was asked for and the little that follows, so that a short frame, or
//                                    the end of a long one and the next one's head, cost one call
//
// Why not UCX, which carries rdma: it does three quarters of what a plain socket does below the same frames
// (docs/benchmarks.md).
//
// Thread-safety: thread-confined. Whoever opened the socket closes it, and uses this no more then.
#pragma once

#include <string>
#include <vector>

#include "net/byte_link.h"

namespace persia {

class SocketLink final : public ByteLink {
 public:
  // A connected socket that does not block; `received` was read from it before.
  SocketLink(int socket, const std::string& received);

  size_t Write(std::span<const Bytes> pieces) override;
  size_t Read(std::span<std::byte> out) override;
  Status status() const override { return status_; }

 private:
  size_t TakeAhead(std::span<std::byte> out);
  size_t Receive(std::span<std::byte> out);

  const int socket_;
  std::vector<std::byte> ahead_;
  size_t begin_ = 0, end_ = 0;  // of what is in ahead_
  bool drained_ = false;        // the last call took all that there was
  Status status_;
};

}  // namespace persia
