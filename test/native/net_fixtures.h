// What the tests of transports and of what stands on them share.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/transport.h"

namespace persia {

// Until something holds, or half a minute has passed. Returns whether it holds.
inline bool Eventually(const std::function<bool()>& holds) {
  const auto end = SteadyClock::now() + std::chrono::seconds(30);
  while (!holds()) {
    if (SteadyClock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

inline Buffer TextBuffer(const std::string& text) {
  return Buffer::CopyOf({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}
inline std::string TextOf(const Buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.data()), buffer.size()};
}

// Bytes that follow from a seed.
inline Buffer PatternBuffer(uint64_t seed, size_t bytes) {
  Buffer buffer(bytes);
  for (size_t i = 0; i < bytes; ++i) buffer.data()[i] = static_cast<std::byte>((seed * 31 + i * 7 + (i >> 8)) & 255);
  return buffer;
}
inline bool SameBytes(const Buffer& a, const Buffer& b) {
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// Keeps what comes. Internally synchronised.
class Inbox final : public PeerHandler {
 public:
  struct Item {
    PeerId peer;
    MessageHeader header;
    Buffer payload;
  };

  void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) override {
    std::lock_guard lock(mutex_);
    items_.push_back({peer, header, std::move(payload)});
    changed_.notify_all();
  }
  void OnLost(PeerId peer, const Status& reason) override {
    std::lock_guard lock(mutex_);
    lost_.emplace_back(peer, reason);
    changed_.notify_all();
  }

  // The messages once there are so many, or what there is after half a minute.
  std::vector<Item> Take(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [&] { return items_.size() >= count; });
    return std::exchange(items_, {});
  }
  std::vector<std::pair<PeerId, Status>> WaitLost(size_t count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [&] { return lost_.size() >= count; });
    return lost_;
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return items_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;
  std::vector<std::pair<PeerId, Status>> lost_;
};

// A kind of transport to run a test over: makes transports that can reach each other, and the address to listen at.
class TransportKind {
 public:
  virtual ~TransportKind() = default;
  virtual std::string name() const = 0;
  virtual std::unique_ptr<Transport> Make(const TransportOptions& options = {}) = 0;
  virtual std::string address() const = 0;
};

// Every kind that this machine has. What the environment variable PERSIA_TEST_TRANSPORTS names (comma-separated), or all
// but rdma; a kind that is named must be there.
std::vector<std::unique_ptr<TransportKind>> TransportKinds();

// One of them, by name; null when the test shall not run over it.
std::unique_ptr<TransportKind> TransportKindNamed(const std::string& name);

}  // namespace persia
