#include "base/pretouch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/named_thread.h"

namespace persia {
namespace {

struct Range {
  uintptr_t begin, end;
  size_t bytes() const { return end - begin; }
};

// Never destroyed: its thread runs as long as the process.
class Toucher {
 public:
  void Request(Range range) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    if (!started_) StartThread("persia-memory", [this] { Run(); }).detach();
    started_ = true;
    (range.bytes() <= kStep ? short_ : long_).push_back(range);
    CountBacklog();
    changed_.notify_all();
  }

  void Pace(size_t bytes) {
    if (!behind_.load(std::memory_order_relaxed)) return;
    constexpr double kPortion = 2e-4;         // worth a sleep
    thread_local double owed = 0;             // seconds
    owed += static_cast<double>(bytes) * seconds_per_byte_.load(std::memory_order_relaxed);
    if (owed < kPortion) return;
    const double start = NowSeconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(owed, kPortion)));
    owed = std::max(-kPortion, std::min(owed, kPortion) - (NowSeconds() - start));
  }

  void Cancel(Range range) {
    std::unique_lock lock(mutex_);
    for (std::deque<Range>* waiting : {&short_, &long_}) {
      std::erase_if(*waiting, [&](const Range& one) { return Overlaps(one, range); });
    }
    CountBacklog();
    changed_.wait(lock, [&] { return !Overlaps(serving_, range); });
  }

 private:
  static constexpr uintptr_t kPage = 4096, kStep = uintptr_t{2} << 20;
  static constexpr size_t kBehind = 8 * kStep;

  void CountBacklog() {
    size_t bytes = 0;
    for (const std::deque<Range>* waiting : {&short_, &long_}) {
      for (const Range& one : *waiting) bytes += one.bytes();
    }
    behind_.store(bytes > kBehind, std::memory_order_relaxed);
  }

  static bool Overlaps(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; }

  [[noreturn]] void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return !short_.empty() || !long_.empty(); });
      // A step at a time, so that cancelling never waits for more.
      std::deque<Range>& waiting = short_.empty() ? long_ : short_;
      Range& first = waiting.front();
      serving_ = {first.begin, std::min(first.begin + kStep, first.end)};
      first.begin = serving_.end;
      if (first.begin >= first.end) waiting.pop_front();
      CountBacklog();
      lock.unlock();
      const double start = NowSeconds();
      // An atomic "or nothing" writes the page, whoever else is writing it, and changes nothing.
      for (uintptr_t at = serving_.begin; at < serving_.end; at += kPage) {
        __atomic_fetch_or(reinterpret_cast<unsigned char*>(at), 0, __ATOMIC_RELAXED);
      }
      const double per_byte = (NowSeconds() - start) / static_cast<double>(serving_.bytes());
      const double before = seconds_per_byte_.load(std::memory_order_relaxed);
      seconds_per_byte_.store(before + (per_byte - before) / 8, std::memory_order_relaxed);
      lock.lock();
      serving_ = {0, 0};
      changed_.notify_all();
    }
  }

  std::mutex mutex_;  // guards everything but the atomics
  std::condition_variable changed_;
  bool started_ = false;
  std::deque<Range> short_, long_;  // requests: of one step at most, and others
  Range serving_{0, 0};
  std::atomic<bool> behind_{false};             // whether many bytes are waiting: read without the mutex
  std::atomic<double> seconds_per_byte_{0};  // of touching, of late
};

Toucher& TheToucher() {
  static Toucher* const toucher = new Toucher;
  return *toucher;
}

Range RangeOf(void* begin, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(begin);
  return {at, at + bytes};
}

}  // namespace

void PretouchSoon(void* begin, size_t bytes) { TheToucher().Request(RangeOf(begin, bytes)); }
void PaceUse(size_t bytes) { TheToucher().Pace(bytes); }
void CancelPretouch(void* begin, size_t bytes) { TheToucher().Cancel(RangeOf(begin, bytes)); }

}  // namespace persia
