// Spin: how a thread looks for what is about to come, before it blocks for it. Waking a blocked thread costs 50 to 100 us,
// so a short look pays, where a core is free for it:
// - The last wait tells the next one's length. After one of more than a millisecond, nobody is at work for this thread, the next
//   look is short.
// - A look that was interrupted ends: others want the core, perhaps those whom this thread waits for. It does not yield to
//   them: who yields waits for its turn, for milliseconds; who blocks is woken at once.
//
// Thread-safety: thread-confined.
#pragma once

#include <chrono>
#include <cstdint>

namespace persia {

class Spin {
 public:
  explicit Spin(std::chrono::microseconds most) : most_(most), length_(most) {}

  // After each look that found nothing. False: time to block.
  bool Again() {
    constexpr std::chrono::microseconds kInterrupted{40};
    constexpr uint32_t kLooks = 8;  // a clock takes longer than a look
    if (looking_ && ++looks_ % kLooks != 0) return true;
    const Time now = std::chrono::steady_clock::now();
    if (!looking_) {
      looking_ = true;
      since_ = last_ = now;
    }
    const bool interrupted = now - last_ > kInterrupted;
    last_ = now;
    return !interrupted && now - since_ < length_;
  }

  // Something came.
  void Found() { looking_ = false; }

  // Something came while the thread was blocked.
  void Woken() {
    if (!looking_) return;
    looking_ = false;
    length_ = std::chrono::steady_clock::now() - since_ < std::chrono::milliseconds(1) ? most_ : most_ / 16;
  }

 private:
  using Time = std::chrono::steady_clock::time_point;

  const std::chrono::microseconds most_;
  std::chrono::microseconds length_;
  Time since_{}, last_{};
  uint32_t looks_ = 0;
  bool looking_ = false;
};

}  // namespace persia
