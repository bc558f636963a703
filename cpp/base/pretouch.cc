#include "base/pretouch.h"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "base/named_thread.h"

namespace persia {
namespace {

struct Range {
  uintptr_t begin, end;
};

// Never destroyed: its thread runs as long as the process.
class Toucher {
 public:
  void Request(Range range) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    if (!started_) StartThread("persia-memory", [this] { Run(); }).detach();
    started_ = true;
    waiting_.push_back(range);
    changed_.notify_all();
  }

  void Cancel(Range range) {
    std::unique_lock lock(mutex_);
    std::erase_if(waiting_, [&](const Range& one) { return Overlaps(one, range); });
    changed_.wait(lock, [&] { return !Overlaps(serving_, range); });
  }

 private:
  static constexpr uintptr_t kPage = 4096, kStep = uintptr_t{2} << 20;

  static bool Overlaps(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; }

  [[noreturn]] void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return !waiting_.empty(); });
      // A step at a time, so that cancelling never waits for more.
      Range& first = waiting_.front();
      serving_ = {first.begin, first.end - first.begin > kStep ? first.begin + kStep : first.end};
      first.begin = serving_.end;
      if (first.begin >= first.end) waiting_.pop_front();
      lock.unlock();
      // An atomic "or nothing" writes the page, whoever else is writing it, and changes nothing.
      for (uintptr_t at = serving_.begin; at < serving_.end; at += kPage) {
        __atomic_fetch_or(reinterpret_cast<unsigned char*>(at), 0, __ATOMIC_RELAXED);
      }
      lock.lock();
      serving_ = {0, 0};
      changed_.notify_all();
    }
  }

  std::mutex mutex_;  // guards everything
  std::condition_variable changed_;
  bool started_ = false;
  std::deque<Range> waiting_;
  Range serving_{0, 0};
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
void CancelPretouch(void* begin, size_t bytes) { TheToucher().Cancel(RangeOf(begin, bytes)); }

}  // namespace persia
