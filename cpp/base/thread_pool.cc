#include "base/thread_pool.h"

#include <algorithm>

#include "base/clock.h"
#include "base/named_thread.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr double kSpinSeconds = 20e-6;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` is no longer `old`; acquires what the writer released.
void WaitWhile(const std::atomic<uint32_t>& value, uint32_t old) {
  const double deadline = NowSeconds() + kSpinSeconds;
  do {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  } while (NowSeconds() < deadline);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads, const std::string& name) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  workers_.reserve(threads - 1);
  for (uint32_t i = 1; i < threads; ++i) {
    workers_.push_back(StartThread(name + "-" + std::to_string(i), [this] { Work(); }));
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);  // published by generation_
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (auto worker = workers_.rbegin(); worker != workers_.rend(); ++worker) worker->join();
}

void ThreadPool::Run(uint32_t parts, Call call, const void* context) {
  call_ = call;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);  // nobody holds a part, so nobody else touches it; published by ticket_
  ticket_.store(uint64_t{parts} << 32, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  ClaimParts();
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != parts;) WaitWhile(done_, done);
}

void ThreadPool::Work() {
  uint32_t seen = 0;
  for (;;) {
    WaitWhile(generation_, seen);
    // Read before claiming: a loop that starts during ClaimParts changes it again and is not slept through.
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    ClaimParts();
  }
}

void ThreadPool::ClaimParts() {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const auto part = static_cast<uint32_t>(ticket);
    const auto parts = static_cast<uint32_t>(ticket >> 32);
    if (part >= parts) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    call_(context_, part);
    // Only the last part wakes the caller; it may already be in its next loop then, and just looks again.
    if (done_.fetch_add(1, std::memory_order_release) + 1 == parts) done_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

}  // namespace persia
