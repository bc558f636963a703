#include "net/socket_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

namespace persia {
namespace {

// The bytes of the IP address alone.
std::string IpOf(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto& ip = reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
    return {reinterpret_cast<const char*>(&ip), sizeof(ip)};
  }
  const auto& ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&ip)) return {reinterpret_cast<const char*>(&ip) + 12, 4};
  return {reinterpret_cast<const char*>(&ip), sizeof(ip)};
}

}  // namespace

Result<SocketAddress> SocketAddress::Parse(const std::string& text) {
  const Status bad(ErrorCode::kTransport, text + " is no address: expected IP:PORT, such as 127.0.0.1:7000 or [::1]:7000");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad;
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stop != end) return bad;
  std::string host = text.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";
  SocketAddress address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage_);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) != 1) return bad;
    return address;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage_);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) != 1) return bad;
  return address;
}

SocketAddress SocketAddress::OfSocket(int socket) {
  SocketAddress address;
  socklen_t length = sizeof(address.storage_);
  getsockname(socket, reinterpret_cast<sockaddr*>(&address.storage_), &length);
  return address;
}

SocketAddress SocketAddress::OfPeer(int socket) {
  SocketAddress address;
  socklen_t length = sizeof(address.storage_);
  getpeername(socket, reinterpret_cast<sockaddr*>(&address.storage_), &length);
  return address;
}

socklen_t SocketAddress::length() const { return family() == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in); }

std::string SocketAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage_);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    return std::string(1, '[').append(text).append("]:").append(std::to_string(ntohs(v6->sin6_port)));
  }
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage_);
  inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
  return std::string(text).append(":").append(std::to_string(ntohs(v4->sin_port)));
}

bool SocketAddress::IsLoopback() const {
  const std::string ip = IpOf(get());
  return ip.size() == 4 ? ip[0] == 127 : std::memcmp(ip.data(), &in6addr_loopback, sizeof(in6addr_loopback)) == 0;
}

std::string SocketAddress::Interface() const {
  // All of 127.0.0.0/8 is loopback, but only one address of it stands in the list.
  if (IsLoopback()) return "lo";
  const std::string ip = IpOf(get());
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  std::string name;
  for (const ifaddrs* at = list; at != nullptr && name.empty(); at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    const int family = at->ifa_addr->sa_family;
    if ((family == AF_INET || family == AF_INET6) && IpOf(at->ifa_addr) == ip) name = at->ifa_name;
  }
  freeifaddrs(list);
  return name;
}

}  // namespace persia
