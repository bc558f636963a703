// A fixed team of threads that runs the parts of one loop at a time; the calling thread is one of the team.
//
// Parts are claimed one after another from `ticket_` = parts << 32 | next part, by compare-and-swap. A successful
// claim proves that the loop is still running, because its caller can't leave before that part is done; so a thread
// that wakes up late either gets a part of the current loop or nothing, and nobody ever waits for a thread that is
// still asleep.
//
//   caller: call_ = …; done_ = 0; ticket_ = parts << 32; ++generation_ -> claims parts -> waits for done_ == parts
//   worker: waits for generation_ to change -> claims parts, ++done_ after each
//
// Waiting spins for kSpinSeconds before it blocks: waking a blocked thread costs 50-100 us, a spinning one 1-2 us.
// Which thread runs a part is open, so a deterministic result needs parts whose work does not depend on the thread.
//
// Thread-safety: externally synchronised; one ParallelFor at a time, and not from inside a part.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace persia {

class ThreadPool {
 public:
  // A team of `threads` (0: one per core) that includes the caller of ParallelFor; the others are called "<name>-1", ….
  ThreadPool(uint32_t threads, const std::string& name);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Calls body(part) once for each part in [0, parts) and returns when all calls have. What the caller wrote before is
  // visible to the parts, what they wrote is visible to the caller. Allocates nothing; a single part runs right here.
  template <typename Body>
  void ParallelFor(uint32_t parts, const Body& body) {
    if (parts > 1 && !workers_.empty()) {
      Run(parts, [](const void* context, uint32_t part) { (*static_cast<const Body*>(context))(part); }, &body);
    } else {
      for (uint32_t part = 0; part < parts; ++part) body(part);
    }
  }

 private:
  using Call = void (*)(const void* context, uint32_t part);

  void Run(uint32_t parts, Call call, const void* context);
  void Work();
  void ClaimParts();

  // Written by the caller between two loops, read by whoever claimed a part of the loop.
  Call call_ = nullptr;
  const void* context_ = nullptr;

  // Orders: ticket_'s release store in Run pairs with the acquire of a claim and publishes call_ and context_. A part's
  // release increment of done_ pairs with the caller's acquire load and publishes what the part wrote. generation_'s
  // release increment pairs with the workers' acquire loads: who sees the new generation sees its ticket.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace persia
