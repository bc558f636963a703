// Runs small multi-threaded scenarios of lock-free code under every schedule with at most a few preemptions, in the
// manner of CHESS (Musuvathi and Qadeer, PLDI 2007: iterative context bounding; PLDI 2008: fair schedules).
//
// Code templated on an environment (base/environment.h) takes ScheduledEnv. Its threads are then fibers on one OS
// thread, and before every operation on an Atomic the scheduler decides whose step is next. Schedules are enumerated by
// depth-first search: a run replays the decisions up to the last one that has an untried alternative, takes that, and
// keeps the current thread running from there on. A *preemption* is a switch away from a thread that could go on;
// switches at a thread's end or in Pause() are free. Most bugs need one or two preemptions.
//
// What is assumed
//  - Sequential consistency: the orders given to atomics and fences are ignored, compare_exchange_weak never fails
//    spuriously. Weak orders are ThreadSanitizer's job and the reader's.
//  - A scenario is a function of its schedule: no clocks, no addresses, no state kept from run to
//    run. Checked on replay.
//  - The threads of a scenario are one to the language: they share their thread_local variables.
//  - Threads run up to their first atomic operation in the order of their numbers, before the first decision.
//  - Who pauses promises that its loop can't get on before another thread changes an atomic. So a thread that pauses is
//    not scheduled until one has changed since its last Pause() (or its start): whatever it has read is stale then. A
//    write of the value that was there changes nothing. When all threads wait so, the run fails as a deadlock.
//  - Fairness: a thread that pauses twice while another could run but did not is passed over until that one runs. Spin
//    loops that wake each other therefore can't starve the thread they wait for, and the search ends. Left out are
//    schedules in which they go on for longer.
//
// Pruning (optional): a preempted thread that is resumed before any other thread has touched what its next operation
// touches could as well have been preempted after it, in a schedule with no more preemptions that is tried anyway. Such
// a run goes to its end and is checked, but not branched further. This assumes that what threads share *is* atomic or
// ordered by atomics; a history of operations with real-time order needs an Atomic as its clock.
//
// Thread-safety: none. One exploration at a time, all on the same OS thread.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace persia {

// What runs once under one schedule. What the threads share is owned by the functions, so that it goes with them.
struct Scenario {
  std::vector<std::function<void()>> threads;  // at most 8. One that throws fails the run and stops the others
  std::function<std::string()> check;          // after the threads: what is wrong, or nothing. May be empty
};
using MakeScenario = std::function<Scenario()>;

inline constexpr uint32_t kNoLimit = UINT32_MAX;

struct ScheduleOptions {
  uint32_t preemptions = 2;             // at most, in one schedule
  uint64_t most_schedules = 1'000'000;  // the exploration is incomplete after so many
  uint32_t most_steps = 10'000;         // of one schedule; more is reported as a loop without end
  bool prune = false;
};

struct ScheduleResult {
  uint64_t schedules = 0;             // that were run
  bool complete = false;              // all schedules within the bound were run, and none failed
  std::string failure;                // of the first run that failed, with its schedule in short
  std::vector<int> failing_schedule;  // the thread of each step, for ReplaySchedule
};

ScheduleResult ExploreSchedules(const ScheduleOptions& options, const MakeScenario& make);
// `count` random schedules of a scenario that has too many; each with its own rate of switches.
ScheduleResult RandomSchedules(uint64_t count, uint64_t seed, const MakeScenario& make);
// One run of a schedule as found in a result; past its end the current thread keeps running.
ScheduleResult ReplaySchedule(const std::vector<int>& schedule, const MakeScenario& make);

namespace scheduling {
enum class Access : uint8_t { kRead, kWrite };
void BeforeAccess(const void* address, Access access);  // returns when the calling thread's step is next
void Changed();                                         // the calling thread has changed a value
void Pause();
void Retire(std::function<void()> free);
}  // namespace scheduling

struct ScheduledEnv {
  // Vector loads would read several atomics in one step.
  static constexpr bool kVector = false;

  // std::atomic's members, each a step of the schedule. As large as T, and valid when zeroed.
  template <typename T>
  class Atomic {
    static_assert(std::is_trivially_copyable_v<T>);
    using Order = std::memory_order;
    static constexpr Order kSeqCst = std::memory_order_seq_cst;

   public:
    constexpr Atomic() = default;
    constexpr Atomic(T value) : value_(value) {}
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    T load(Order = kSeqCst) const {
      scheduling::BeforeAccess(this, scheduling::Access::kRead);
      return value_;
    }
    void store(T value, Order = kSeqCst) { exchange(value); }
    T exchange(T value, Order = kSeqCst) {
      return Update([value](T) { return value; });
    }
    bool compare_exchange_strong(T& expected, T desired, Order = kSeqCst, Order = kSeqCst) {
      scheduling::BeforeAccess(this, scheduling::Access::kWrite);
      if (!Same(value_, expected)) {
        expected = value_;
        return false;
      }
      Set(desired);
      return true;
    }
    bool compare_exchange_weak(T& expected, T desired, Order = kSeqCst, Order = kSeqCst) {
      return compare_exchange_strong(expected, desired);
    }

    T fetch_add(T n, Order = kSeqCst) requires std::integral<T> {
      return Update([n](T value) { return static_cast<T>(Unsigned(value) + Unsigned(n)); });
    }
    T fetch_sub(T n, Order = kSeqCst) requires std::integral<T> {
      return Update([n](T value) { return static_cast<T>(Unsigned(value) - Unsigned(n)); });
    }
    T fetch_or(T bits, Order = kSeqCst) requires std::integral<T> {
      return Update([bits](T value) { return static_cast<T>(value | bits); });
    }
    T fetch_and(T bits, Order = kSeqCst) requires std::integral<T> {
      return Update([bits](T value) { return static_cast<T>(value & bits); });
    }

   private:
    static uint64_t Unsigned(T value) { return static_cast<uint64_t>(value); }  // wraps, as std::atomic does
    static bool Same(const T& a, const T& b) { return std::memcmp(&a, &b, sizeof(T)) == 0; }

    void Set(T value) {
      if (!Same(value_, value)) scheduling::Changed();
      value_ = value;
    }
    template <typename Change>
    T Update(Change change) {
      scheduling::BeforeAccess(this, scheduling::Access::kWrite);
      const T before = value_;
      Set(change(before));
      return before;
    }

    T value_{};
  };

  static void Fence(std::memory_order) {}
  static void Pause() { scheduling::Pause(); }

  template <typename T>
  static T* NewZeroed(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    void* objects = std::aligned_alloc(64, bytes);
    if (objects == nullptr) throw std::bad_alloc();
    return static_cast<T*>(std::memset(objects, 0, bytes));
  }
  template <typename T>
  static void Delete(T* objects, size_t) {
    std::free(objects);
  }
  static void TouchSoon(void*, size_t) {}
  // Frees after the run: until then any thread may hold what was retired.
  static void Retire(std::function<void()> free) { scheduling::Retire(std::move(free)); }
};

}  // namespace persia
