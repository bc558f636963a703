#include "schedule.h"

#include <algorithm>
#include <array>
#include <bit>
#include <exception>

#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#include "base/rng.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr int kMostThreads = 8;
constexpr int kMain = kMostThreads;  // the fiber of the explorer itself
constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 4096;  // below the stack: an overflow faults

constexpr uint32_t Bit(int thread) { return 1u << thread; }
constexpr int Lowest(uint32_t mask) { return std::countr_zero(mask); }

// A stack that runs a function, and the sanitizers' view of it. The first fiber of a process is its own stack.
class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
#if defined(__SANITIZE_THREAD__)
    if (owned_ != nullptr && tsan_fiber_ != nullptr) __tsan_destroy_fiber(tsan_fiber_);
#endif
    if (owned_ != nullptr) munmap(owned_, kGuardBytes + kStackBytes);
  }

  // Lets the fiber begin with `function`, which never returns, whatever it was doing.
  void Make(void (*function)()) {
    if (owned_ == nullptr) {
      owned_ = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      PERSIA_CHECK(owned_ != MAP_FAILED && mprotect(owned_, kGuardBytes, PROT_NONE) == 0);
      bottom_ = static_cast<std::byte*>(owned_) + kGuardBytes;
      bytes_ = kStackBytes;
    }
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(bottom_, bytes_);  // of frames that were left
#endif
#if defined(__SANITIZE_THREAD__)
    if (tsan_fiber_ != nullptr) __tsan_destroy_fiber(tsan_fiber_);
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
    PERSIA_CHECK(getcontext(&context_) == 0);
    context_.uc_stack.ss_sp = const_cast<void*>(bottom_);
    context_.uc_stack.ss_size = bytes_;
    context_.uc_link = nullptr;
    makecontext(&context_, function, 0);
  }

  // Suspends this fiber, which is running, and runs `to`.
  void SwitchTo(Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, to.bottom_, to.bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    if (tsan_fiber_ == nullptr) tsan_fiber_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.tsan_fiber_, 0);
#endif
    swapcontext(&context_, &to.context_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

  // The first thing that a new fiber does. `first` is where it comes from, if that is the first fiber.
  static void Arrive([[maybe_unused]] Fiber* first) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, first ? &first->bottom_ : nullptr, first ? &first->bytes_ : nullptr);
#endif
  }

 private:
  ucontext_t context_{};
  void* owned_ = nullptr;
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] void* tsan_fiber_ = nullptr;
};

// Why there is a decision. At an access the running thread may go on; then a switch is a preemption.
enum class StepKind : uint8_t { kBegin, kRead, kWrite, kPause, kEnd, kGiven };

struct Step {
  int chosen = 0;
  StepKind kind = StepKind::kGiven;  // kGiven: of a schedule from outside, nothing else is known
  uint32_t candidates = 0;           // threads that could run
  uint32_t untried = 0;              // those to try yet
};

struct Thread {
  const void* address = nullptr;  // of its next access, before which it is suspended
  StepKind access = StepKind::kRead;
  uint64_t changes = 0;  // of atomics, by this thread
  uint64_t seen = 0;     // changes by other threads when its last Pause() returned
  // Threads that could have run since its last Pause() but did not; those it is behind until they run. No cycles:
  // nobody is behind a thread that runs, and only the running thread gets behind others (PLDI 2008).
  uint32_t starved = 0;
  uint32_t behind = 0;
};

// " [steps: 3 of thread 0, 5 of 1, …]"
std::string ShortForm(const std::vector<int>& schedule) {
  std::string text;
  size_t first = 0;
  for (size_t i = 0; i < schedule.size() && text.size() < 1000; ++i) {
    if (i + 1 < schedule.size() && schedule[i + 1] == schedule[i]) continue;
    text += (text.empty() ? " [steps: " : ", ") + std::to_string(i + 1 - first);
    text += (first == 0 ? " of thread " : " of ") + std::to_string(schedule[i]);
    first = i + 1;
  }
  return text + (first < schedule.size() ? ", …]" : text.empty() ? "" : "]");
}

class Scheduler {
 public:
  void Prepare(const ScheduleOptions& options);
  void Given(const std::vector<int>& schedule);
  void Random(uint64_t key);
  void Run(const MakeScenario& make, ScheduleResult* result);
  bool Backtrack();

  void BeforeAccess(const void* address, StepKind access);
  void Changed();
  void Pause();
  void Retire(std::function<void()> free);

 private:
  static void FiberMain();
  void RunBodies(int self);
  void Yield(StepKind kind);
  int Choose(StepKind kind);
  int Replay(StepKind kind, uint32_t candidates);
  int Extend(StepKind kind, uint32_t candidates);
  void Account(StepKind kind, int next);
  int Fail(const std::string& message);
  uint64_t ChangesByOthers(int thread) const { return changes_ - threads_[thread].changes; }
  uint32_t Enabled() const;
  uint32_t Candidates() const;

  // Of the exploration.
  ScheduleOptions options_;
  std::vector<Step> steps_;  // decisions to replay; a run appends its own
  bool random_ = false;
  Rng rng_{0};
  uint64_t switch_period_ = 1;

  // Of the run. Masks have a bit for each thread.
  Scenario scenario_;
  std::vector<std::function<void()>> retired_;
  std::string failure_;
  std::array<Thread, kMostThreads> threads_;
  int running_ = kMain;
  int started_ = 0;
  bool begun_ = false;
  size_t depth_ = 0;
  uint32_t live_ = 0;
  uint32_t paused_ = 0;
  uint32_t asleep_ = 0;     // preempted, and nobody has touched what they are about to touch (pruning)
  bool redundant_ = false;  // one of them went on all the same, so this schedule's like has been tried
  uint32_t preemptions_ = 0;
  uint64_t changes_ = 0;

  std::array<Fiber, kMostThreads + 1> fibers_;
  uint32_t ready_ = 0;  // fibers that wait for a body to run
};

Scheduler scheduler;

void Scheduler::Prepare(const ScheduleOptions& options) {
  PERSIA_CHECK(running_ == kMain);
  options_ = options;
  steps_.clear();
  random_ = false;
}

void Scheduler::Given(const std::vector<int>& schedule) {
  steps_.clear();
  for (const int thread : schedule) {
    PERSIA_CHECK(thread >= 0 && thread < kMostThreads);
    steps_.push_back({.chosen = thread});
  }
}

void Scheduler::Random(uint64_t key) {
  steps_.clear();
  random_ = true;
  rng_ = Rng(key);
  switch_period_ = uint64_t{1} << rng_.Next() % 6;
}

void Scheduler::Run(const MakeScenario& make, ScheduleResult* result) {
  scenario_ = make();
  const int count = static_cast<int>(scenario_.threads.size());
  PERSIA_CHECK(count <= kMostThreads);
  threads_.fill({});
  started_ = 0;
  begun_ = redundant_ = false;
  depth_ = 0;
  live_ = Bit(count) - 1;
  paused_ = asleep_ = preemptions_ = 0;
  changes_ = 0;
  failure_.clear();
  for (int t = 0; t < count; ++t) {
    if (!(ready_ & Bit(t))) fibers_[t].Make(FiberMain);
    ready_ |= Bit(t);
  }
  Yield(StepKind::kBegin);
  if (failure_.empty() && depth_ < steps_.size()) Fail("the run ended before its schedule");
  if (failure_.empty() && scenario_.check) failure_ = scenario_.check();
  ++result->schedules;
  if (!failure_.empty()) {
    for (size_t i = 0; i < depth_; ++i) result->failing_schedule.push_back(steps_[i].chosen);
    result->failure = failure_ + ShortForm(result->failing_schedule);
  }
  for (const auto& free : retired_) free();
  retired_.clear();
  scenario_ = {};
}

// Goes to the next schedule; false: there is none.
bool Scheduler::Backtrack() {
  while (!steps_.empty()) {
    Step& step = steps_.back();
    if (step.untried != 0) {
      step.chosen = Lowest(step.untried);
      step.untried &= ~Bit(step.chosen);
      return true;
    }
    steps_.pop_back();
  }
  return false;
}

void Scheduler::FiberMain() {
  const int self = scheduler.running_;
  Fiber::Arrive(self == 0 ? &scheduler.fibers_[kMain] : nullptr);  // thread 0 is started by the explorer
  scheduler.RunBodies(self);
}

// A fiber serves the thread of its number in one run after the other. One that is left in the midst of a body, because
// the run failed, is made anew; what is on its stack is leaked.
void Scheduler::RunBodies(int self) {
  for (;;) {
    ready_ &= ~Bit(self);
    try {
      scenario_.threads[self]();
    } catch (const std::exception& error) {
      Fail("thread " + std::to_string(self) + " threw: " + error.what());
    } catch (...) {
      Fail("thread " + std::to_string(self) + " threw");
    }
    ready_ |= Bit(self);
    live_ &= ~Bit(self);
    Yield(StepKind::kEnd);
  }
}

// Hands over to the thread whose step is next, and returns when it is the caller's turn again.
void Scheduler::Yield(StepKind kind) {
  const int self = running_;
  if (!failure_.empty()) {
    running_ = kMain;
  } else if (started_ < static_cast<int>(scenario_.threads.size())) {
    running_ = started_++;
  } else {
    running_ = Choose(std::exchange(begun_, true) ? kind : StepKind::kBegin);
  }
  if (running_ != self) fibers_[self].SwitchTo(fibers_[running_]);
}

int Scheduler::Choose(StepKind kind) {
  if (live_ == 0) return kMain;
  const uint32_t candidates = Candidates();
  if (candidates == 0) {
    return Fail("deadlock: " + std::to_string(std::popcount(live_)) + " threads wait for changes that nobody makes");
  }
  if (depth_ == options_.most_steps) {
    return Fail("no end after " + std::to_string(depth_) + " steps: a loop without Pause(), or a livelock");
  }
  const int next = depth_ < steps_.size() ? Replay(kind, candidates) : Extend(kind, candidates);
  if (next == kMain) return kMain;
  ++depth_;
  Account(kind, next);
  return next;
}

int Scheduler::Replay(StepKind kind, uint32_t candidates) {
  const Step& step = steps_[depth_];
  const bool same = step.kind == StepKind::kGiven || (step.kind == kind && step.candidates == candidates);
  if (same && (candidates & Bit(step.chosen))) return step.chosen;
  return Fail("step " + std::to_string(depth_) + " differs on replay: the run is no function of its schedule");
}

int Scheduler::Extend(StepKind kind, uint32_t candidates) {
  const bool stays = kind == StepKind::kRead || kind == StepKind::kWrite;
  uint32_t allowed = stays && preemptions_ >= options_.preemptions ? Bit(running_) : candidates;
  if ((allowed & ~asleep_) != 0) {
    allowed &= ~asleep_;
  } else {
    redundant_ = true;
  }
  int next = stays ? running_ : Lowest(allowed);
  if (random_ && (!stays || rng_.Next() % switch_period_ == 0)) {
    const auto skipped = rng_.Next() % static_cast<uint64_t>(std::popcount(allowed));
    uint32_t rest = allowed;
    for (uint64_t i = 0; i < skipped; ++i) rest &= rest - 1;
    next = Lowest(rest);
  }
  steps_.push_back({next, kind, candidates, redundant_ || random_ ? 0 : allowed & ~Bit(next)});
  return next;
}

// Keeps the books of a step that `next` will make.
void Scheduler::Account(StepKind kind, int next) {
  if (next == running_ && kind != StepKind::kBegin) return;
  if (kind == StepKind::kRead || kind == StepKind::kWrite) {
    ++preemptions_;
    if (options_.prune) asleep_ |= Bit(running_);
  }
  for (Thread& thread : threads_) {
    thread.starved &= ~Bit(next);
    thread.behind &= ~Bit(next);
  }
}

int Scheduler::Fail(const std::string& message) {
  failure_ = message;
  return kMain;
}

// Threads that could run, but for fairness.
uint32_t Scheduler::Enabled() const {
  uint32_t enabled = live_ & ~paused_;
  for (uint32_t rest = live_ & paused_; rest != 0; rest &= rest - 1) {
    const int thread = Lowest(rest);
    if (ChangesByOthers(thread) != threads_[thread].seen) enabled |= Bit(thread);
  }
  return enabled;
}

uint32_t Scheduler::Candidates() const {
  uint32_t candidates = Enabled();
  for (uint32_t rest = candidates & paused_; rest != 0; rest &= rest - 1) {
    if (threads_[Lowest(rest)].behind != 0) candidates &= ~Bit(Lowest(rest));
  }
  return candidates;
}

void Scheduler::BeforeAccess(const void* address, StepKind access) {
  if (running_ == kMain) return;  // while a scenario is made or checked
  threads_[running_].address = address;
  threads_[running_].access = access;
  Yield(access);
  for (uint32_t rest = asleep_; rest != 0; rest &= rest - 1) {
    const Thread& thread = threads_[Lowest(rest)];
    const bool conflict = access == StepKind::kWrite || thread.access == StepKind::kWrite;
    if (thread.address == address && conflict) asleep_ &= ~Bit(Lowest(rest));
  }
}

void Scheduler::Changed() {
  if (running_ == kMain) return;
  ++changes_;
  ++threads_[running_].changes;
}

void Scheduler::Pause() {
  if (running_ == kMain) return;
  const int self = running_;
  Thread& thread = threads_[self];
  thread.behind |= thread.starved;
  thread.starved = Enabled() & ~Bit(self);
  paused_ |= Bit(self);
  asleep_ = 0;  // when a pause ends may depend on any change
  Yield(StepKind::kPause);
  paused_ &= ~Bit(self);
  thread.seen = ChangesByOthers(self);
}

void Scheduler::Retire(std::function<void()> free) {
  if (running_ == kMain) {
    free();
  } else {
    retired_.push_back(std::move(free));
  }
}

}  // namespace

namespace scheduling {

void BeforeAccess(const void* address, Access access) {
  scheduler.BeforeAccess(address, access == Access::kRead ? StepKind::kRead : StepKind::kWrite);
}
void Changed() { scheduler.Changed(); }
void Pause() { scheduler.Pause(); }
void Retire(std::function<void()> free) { scheduler.Retire(std::move(free)); }

}  // namespace scheduling

ScheduleResult ExploreSchedules(const ScheduleOptions& options, const MakeScenario& make) {
  ScheduleResult result;
  scheduler.Prepare(options);
  do {
    if (result.schedules == options.most_schedules) return result;
    scheduler.Run(make, &result);
    if (!result.failure.empty()) return result;
  } while (scheduler.Backtrack());
  result.complete = true;
  return result;
}

ScheduleResult RandomSchedules(uint64_t count, uint64_t seed, const MakeScenario& make) {
  ScheduleResult result;
  scheduler.Prepare({.preemptions = kNoLimit, .most_steps = 100'000});
  while (result.schedules < count && result.failure.empty()) {
    scheduler.Random(RandomKey(seed, result.schedules));
    scheduler.Run(make, &result);
  }
  return result;
}

ScheduleResult ReplaySchedule(const std::vector<int>& schedule, const MakeScenario& make) {
  ScheduleResult result;
  const uint32_t steps = std::max(ScheduleOptions().most_steps, static_cast<uint32_t>(schedule.size()));
  scheduler.Prepare({.preemptions = 0, .most_steps = steps});
  scheduler.Given(schedule);
  scheduler.Run(make, &result);
  return result;
}

}  // namespace persia
