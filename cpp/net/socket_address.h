// Numeric socket addresses: "127.0.0.1:7000", "[::1]:0".
//
// Thread-safety: values.
#pragma once

#include <string>

#include <sys/socket.h>

#include "base/status.h"

namespace persia {

class SocketAddress {
 public:
  // kTransport: it is none. "localhost:PORT" is taken for 127.0.0.1.
  static Result<SocketAddress> Parse(const std::string& text);
  // Of a connected or bound socket: its own side, the other side.
  static SocketAddress OfSocket(int socket);
  static SocketAddress OfPeer(int socket);

  int family() const { return storage_.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t length() const;
  std::string ToString() const;

  bool IsLoopback() const;

  // The network interface that has this address, "lo" or "eth0"; empty when none has.
  std::string Interface() const;

 private:
  sockaddr_storage storage_{};
};

}  // namespace persia
