#include "net/socket_link.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace persia {
namespace {

constexpr size_t kAheadBytes = 8 * 1024;
constexpr size_t kLongBytes = 64 * 1024;  // what is asked for in such lengths goes on: nothing is read ahead, to be copied

}  // namespace

SocketLink::SocketLink(int socket, const std::string& received)
    : socket_(socket), ahead_(std::max(kAheadBytes, received.size())), end_(received.size()) {
  std::memcpy(ahead_.data(), received.data(), received.size());
}

size_t SocketLink::Write(std::span<const Bytes> pieces) {
  PERSIA_CHECK(pieces.size() <= kMostPieces);
  std::array<iovec, kMostPieces> parts;
  for (size_t i = 0; i < pieces.size(); ++i) {
    parts[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};  // the kernel only reads it
  }
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = pieces.size();
  const ssize_t count = sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return count > 0 ? static_cast<size_t>(count) : 0;  // full; an error shows when it is read
}

size_t SocketLink::Read(std::span<std::byte> out) {
  if (begin_ < end_) return TakeAhead(out);
  if (std::exchange(drained_, false)) return 0;
  return Receive(out);
}

size_t SocketLink::TakeAhead(std::span<std::byte> out) {
  const size_t count = std::min(out.size(), end_ - begin_);
  std::memcpy(out.data(), ahead_.data() + begin_, count);
  begin_ += count;
  return count;
}

size_t SocketLink::Receive(std::span<std::byte> out) {
  const size_t ahead = out.size() < kLongBytes ? kAheadBytes : 0;
  std::array<iovec, 2> parts = {iovec{out.data(), out.size()}, iovec{ahead_.data(), ahead}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = ahead > 0 ? 2 : 1;
  const ssize_t count = recvmsg(socket_, &message, MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
  if (count <= 0) {
    status_ = Status(ErrorCode::kPeerLost,
                     count == 0 ? "the other side has gone" : std::string("the connection broke: ") + std::strerror(errno));
    return 0;
  }
  const auto got = static_cast<size_t>(count);
  drained_ = got < out.size() + ahead;
  begin_ = 0;
  end_ = got - std::min(got, out.size());
  return std::min(got, out.size());
}

}  // namespace persia
