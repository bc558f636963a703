// The schedule explorer finds the bugs that it is made for, and tries what it says it tries.
#include "schedule.h"

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/rng.h"

namespace persia {
namespace {

template <typename T>
using Atomic = ScheduledEnv::Atomic<T>;

std::vector<std::function<void()>> Times(int count, const std::function<void(int)>& body) {
  std::vector<std::function<void()>> threads;
  for (int t = 0; t < count; ++t) threads.push_back([body, t] { body(t); });
  return threads;
}

// Two threads that each add 1, reading and writing in two steps.
Scenario LostUpdate() {
  auto x = std::make_shared<Atomic<int>>(0);
  return {Times(2, [x](int) { x->store(x->load() + 1); }),
          [x] { return x->load() == 2 ? "" : "x is " + std::to_string(x->load()); }};
}

// `threads` threads that each add 1 `times` times.
MakeScenario Adders(int threads, int times) {
  return [threads, times] {
    auto x = std::make_shared<Atomic<int>>(0);
    return Scenario{Times(threads, [x, times](int) { for (int i = 0; i < times; ++i) x->fetch_add(1); }),
                    [=] { return x->load() == threads * times ? "" : "an update was lost"; }};
  };
}

// A test-and-set lock; without Pause it spins for ever in the explorer.
struct SpinLock {
  Atomic<bool> taken;
  void Lock() {
    while (taken.exchange(true, std::memory_order_acquire)) ScheduledEnv::Pause();
  }
  void Unlock() { taken.store(false, std::memory_order_release); }
};

// Fails when two threads are inside at once. Both of its ends are steps, so there is time to meet.
struct CriticalSection {
  Atomic<int> inside;
  void Pass() {
    if (inside.fetch_add(1) != 0) throw std::runtime_error("two threads in the critical section");
    inside.fetch_sub(1);
  }
};

// The schedules of threads with `left` steps each, with at most `preemptions` switches away from an unfinished thread.
uint64_t CountSchedules(std::vector<int> left, size_t running, int preemptions) {
  uint64_t count = 0;
  bool done = true;
  for (size_t t = 0; t < left.size(); ++t) {
    if (left[t] == 0) continue;
    done = false;
    const bool preempts = running < left.size() && running != t && left[running] > 0;
    if (preempts && preemptions == 0) continue;
    --left[t];
    count += CountSchedules(left, t, preemptions - preempts);
    ++left[t];
  }
  return done ? 1 : count;
}

TEST_CASE("schedules: a lost update takes one preemption") {
  const ScheduleResult none = ExploreSchedules({.preemptions = 0}, LostUpdate);
  CHECK(none.complete);
  CHECK(none.schedules == 2);
  const ScheduleResult one = ExploreSchedules({.preemptions = 1}, LostUpdate);
  CHECK_FALSE(one.complete);
  CHECK(one.failure == "x is 1 [steps: 1 of thread 0, 2 of 1, 1 of 0]");
  CHECK(one.failing_schedule == std::vector<int>{0, 1, 1, 0});
}

TEST_CASE("schedules: a failing schedule fails again in the same way, and another does not") {
  const ScheduleResult found = ExploreSchedules({}, LostUpdate);
  const ScheduleResult again = ReplaySchedule(found.failing_schedule, LostUpdate);
  CHECK(again.failure == found.failure);
  CHECK(again.failing_schedule == found.failing_schedule);
  CHECK(ReplaySchedule({0, 0, 1, 1}, LostUpdate).failure == "");
  CHECK(ReplaySchedule({0, 0, 0, 1}, LostUpdate).failure.starts_with("step 2 differs on replay"));
  CHECK(ReplaySchedule({0, 0, 1, 1, 1}, LostUpdate).failure.starts_with("the run ended before its schedule"));
}

TEST_CASE("schedules: every interleaving is tried once") {
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(2, 5)).schedules == 252);   // 10 choose 5
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(3, 2)).schedules == 90);    // 6! / 2!^3
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(1, 9)).schedules == 1);
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(0, 0)).schedules == 1);
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(8, 0)).schedules == 1);     // no steps, no decisions
  for (const int threads : {2, 3}) {
    for (uint32_t preemptions = 0; preemptions < 5; ++preemptions) {
      const ScheduleResult result = ExploreSchedules({.preemptions = preemptions}, Adders(threads, 4));
      CHECK(result.complete);
      CHECK(result.schedules == CountSchedules(std::vector<int>(threads, 4), threads, static_cast<int>(preemptions)));
    }
  }
}

TEST_CASE("schedules: an exploration that is cut short is not complete") {
  const ScheduleResult cut = ExploreSchedules({.preemptions = kNoLimit, .most_schedules = 251}, Adders(2, 5));
  CHECK(cut.schedules == 251);
  CHECK(cut.failure == "");
  CHECK_FALSE(cut.complete);
  CHECK(ExploreSchedules({.preemptions = kNoLimit, .most_schedules = 252}, Adders(2, 5)).complete);
}

TEST_CASE("schedules: atomics do what std::atomic does") {
  Atomic<uint8_t> byte(250);
  CHECK(byte.fetch_add(10) == 250);
  CHECK(byte.fetch_sub(5) == 4);
  CHECK(byte.exchange(0x0f) == 255);
  CHECK(byte.fetch_or(0xf0) == 0x0f);
  CHECK(byte.fetch_and(0x3c) == 0xff);
  uint8_t expected = 1;
  CHECK_FALSE(byte.compare_exchange_strong(expected, 7, std::memory_order_acq_rel, std::memory_order_acquire));
  CHECK(expected == 0x3c);
  CHECK(byte.compare_exchange_weak(expected, 7, std::memory_order_release, std::memory_order_relaxed));
  CHECK(byte.load(std::memory_order_relaxed) == 7);
  Atomic<int64_t> lowest(INT64_MIN);
  CHECK(lowest.fetch_sub(1) == INT64_MIN);
  CHECK(lowest.load() == INT64_MAX);
  static_assert(sizeof(Atomic<uint8_t>) == 1 && sizeof(Atomic<void*>) == sizeof(void*));
}

// Peterson's lock for two threads. Wrong: with the turn kept instead of given away.
MakeScenario Peterson(bool wrong) {
  struct State {
    std::array<Atomic<bool>, 2> wants;
    Atomic<int> turn;
    CriticalSection section;
  };
  return [wrong] {
    auto state = std::make_shared<State>();
    const auto body = [state, wrong](int self) {
      const int other = 1 - self;
      state->wants[self].store(true);
      state->turn.store(wrong ? self : other);
      while (state->wants[other].load() && state->turn.load() == other) ScheduledEnv::Pause();
      state->section.Pass();
      state->wants[self].store(false);
    };
    return Scenario{Times(2, body), {}};
  };
}

TEST_CASE("schedules: Peterson's lock is right, and wrong with one line changed") {
  const ScheduleResult right = ExploreSchedules({.preemptions = kNoLimit}, Peterson(false));
  CHECK(right.complete);
  CHECK(right.failure == "");
  const ScheduleResult wrong = ExploreSchedules({.preemptions = 2}, Peterson(true));
  CHECK(wrong.failure.find("two threads in the critical section") != std::string::npos);
  CHECK(ReplaySchedule(wrong.failing_schedule, Peterson(true)).failure == wrong.failure);
}

TEST_CASE("schedules: Dekker's flags let both threads give up, but never both in") {
  struct State {
    std::array<Atomic<bool>, 2> wants;
    CriticalSection section;
    Atomic<int> passed;
  };
  std::set<int> passed;
  const auto flags = [&passed](bool looks_first) {
    return [&passed, looks_first] {
      auto state = std::make_shared<State>();
      const auto body = [state, looks_first](int self) {
        if (looks_first && state->wants[1 - self].load()) return;
        state->wants[self].store(true);
        if (!looks_first && state->wants[1 - self].load()) return;
        state->section.Pass();
        state->passed.fetch_add(1);
        state->wants[self].store(false);
      };
      return Scenario{Times(2, body), [state, &passed] { return passed.insert(state->passed.load()), ""; }};
    };
  };
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, flags(false)).complete);
  CHECK(passed == std::set<int>{0, 1, 2});
  CHECK(ExploreSchedules({.preemptions = 1}, flags(true)).complete);  // to meet inside takes a way back
  CHECK(ExploreSchedules({.preemptions = 2}, flags(true)).failure.find("critical section") != std::string::npos);
}

TEST_CASE("schedules: a spin lock is right, and waiting for it ends") {
  const auto make = [] {
    struct State {
      SpinLock lock;
      CriticalSection section;
      Atomic<int> x;
    };
    auto state = std::make_shared<State>();
    const auto body = [state](int) {
      state->lock.Lock();
      state->section.Pass();
      state->x.store(state->x.load() + 1);
      state->lock.Unlock();
    };
    return Scenario{Times(3, body), [state] { return state->x.load() == 3 ? "" : "an update was lost"; }};
  };
  for (const bool prune : {false, true}) {
    const ScheduleResult result = ExploreSchedules({.preemptions = 2, .prune = prune}, make);
    CHECK(result.complete);
    CHECK(result.failure == "");
  }
}

// A stack of the nodes 0, 1, 2 with its head in one word: (pops << 8 | top) with tags, (top) without.
struct Stack {
  static constexpr uint32_t kEnd = 0xff;
  bool tagged = false;
  std::array<Atomic<uint32_t>, 3> next{1, 2, kEnd};
  Atomic<uint32_t> head{0};

  void Push(uint32_t node) {
    uint32_t seen = head.load();
    do {
      next[node].store(seen & 0xff);
    } while (!head.compare_exchange_weak(seen, (seen & ~0xffu) | node));
  }
  std::optional<uint32_t> Pop() {
    uint32_t seen = head.load();
    for (;;) {
      const uint32_t top = seen & 0xff;
      if (top == kEnd) return std::nullopt;
      const uint32_t tag = tagged ? (seen & ~0xffu) + 0x100 : 0;
      if (head.compare_exchange_weak(seen, tag | next[top].load())) return top;
    }
  }
};

// One thread pops; the other pops two and gives the first back. All nodes are in one place then, or one was lost.
MakeScenario Treiber(bool tagged) {
  return [tagged] {
    struct State {
      Stack stack;
      std::array<std::optional<uint32_t>, 2> popped;
    };
    auto state = std::make_shared<State>();
    state->stack.tagged = tagged;
    std::vector<std::function<void()>> threads{[state] { state->popped[0] = state->stack.Pop(); },
                                               [state] {
                                                 const auto first = state->stack.Pop();
                                                 state->popped[1] = state->stack.Pop();
                                                 if (first) state->stack.Push(*first);
                                               }};
    return Scenario{threads, [state] {
                      std::multiset<uint32_t> nodes;
                      for (const auto& node : state->popped) {
                        if (node) nodes.insert(*node);
                      }
                      for (int i = 0; i < 4; ++i) {
                        if (const auto node = state->stack.Pop()) nodes.insert(*node);
                      }
                      return nodes == std::multiset<uint32_t>{0, 1, 2} ? "" : "a node is in two places, or in none";
                    }};
  };
}

TEST_CASE("schedules: a stack without tags suffers from ABA, a stack with tags does not") {
  CHECK(ExploreSchedules({.preemptions = 0}, Treiber(false)).complete);
  for (const bool prune : {false, true}) {
    const ScheduleResult naive = ExploreSchedules({.preemptions = 1, .prune = prune}, Treiber(false));
    CHECK(naive.failure.starts_with("a node is in two places, or in none"));
    CHECK(ReplaySchedule(naive.failing_schedule, Treiber(false)).failure == naive.failure);
    CHECK(ExploreSchedules({.preemptions = kNoLimit, .prune = prune}, Treiber(true)).complete);
  }
  CHECK(RandomSchedules(10'000, 7, Treiber(false)).failure.starts_with("a node is in two places, or in none"));
}

TEST_CASE("schedules: a deadlock is found and replayed, and the next exploration is none the worse") {
  const auto make = [] {
    auto locks = std::make_shared<std::array<SpinLock, 2>>();
    return Scenario{Times(2,
                          [locks](int self) {
                            (*locks)[self].Lock();
                            (*locks)[1 - self].Lock();
                            (*locks)[1 - self].Unlock();
                            (*locks)[self].Unlock();
                          }),
                    {}};
  };
  CHECK(ExploreSchedules({.preemptions = 0}, make).complete);
  const ScheduleResult found = ExploreSchedules({.preemptions = 1}, make);
  CHECK(found.failure.starts_with("deadlock: 2 threads wait"));
  CHECK(ReplaySchedule(found.failing_schedule, make).failure == found.failure);
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, Adders(2, 5)).complete);
}

// Readers of a lock that announce themselves, look, and step back if it is taken: each of them wakes the other.
Scenario RudeReaders() {
  struct State {
    Atomic<uint32_t> word;  // readers, and 0x100 for the writer
  };
  auto state = std::make_shared<State>();
  const auto read = [state] {
    while (state->word.fetch_add(1) >= 0x100) {
      state->word.fetch_sub(1);
      ScheduledEnv::Pause();
    }
    state->word.fetch_sub(1);
  };
  const auto write = [state] {
    state->word.fetch_or(0x100);
    state->word.fetch_and(0xff);
  };
  return {{read, read, write}, [state] { return state->word.load() == 0 ? "" : "the lock is taken"; }};
}

TEST_CASE("schedules: threads that wake each other can't starve the one that they wait for") {
  const ScheduleResult result = ExploreSchedules({.preemptions = 2}, RudeReaders);
  CHECK(result.failure == "");
  CHECK(result.complete);
  CHECK(RandomSchedules(1000, 3, RudeReaders).failure == "");
}

TEST_CASE("schedules: a thread may pause before its first step, and is behind no thread for ever") {
  const auto make = [] {
    auto x = std::make_shared<Atomic<int>>(0);
    const auto add = [x] { x->fetch_add(1); };
    const auto wait = [x] {
      do {
        ScheduledEnv::Pause();
      } while (x->load() < 2);
    };
    return Scenario{{wait, add, add}, {}};
  };
  CHECK(ExploreSchedules({.preemptions = kNoLimit}, make).complete);
}

TEST_CASE("schedules: a loop without end is reported, with Pause and without") {
  const auto livelock = [] {
    auto x = std::make_shared<Atomic<uint32_t>>(0);
    return Scenario{Times(2,
                          [x](int) {
                            for (x->fetch_add(1);; x->fetch_add(1)) {
                              x->fetch_sub(1);
                              ScheduledEnv::Pause();
                            }
                          }),
                    {}};
  };
  CHECK(ExploreSchedules({.most_steps = 500}, livelock).failure.starts_with("no end after 500 steps"));
  const auto spin = [] {
    auto x = std::make_shared<Atomic<bool>>(false);
    return Scenario{Times(1, [x](int) { while (!x->load()) {} }), {}};
  };
  CHECK(ExploreSchedules({}, spin).failure.starts_with("no end after 10000 steps"));
}

TEST_CASE("schedules: a thread that throws fails the run") {
  const auto make = [] {
    auto x = std::make_shared<Atomic<int>>(0);
    return Scenario{{[x] { x->fetch_add(1); },
                     [x] {
                       if (x->load() == 0) throw std::runtime_error("too early");
                     }},
                    {}};
  };
  const ScheduleResult result = ExploreSchedules({}, make);
  CHECK(result.schedules == 2);
  CHECK(result.failure == "thread 1 threw: too early [steps: 1 of thread 1]");
}

TEST_CASE("schedules: a scenario that remembers an earlier run is found out") {
  const auto make = [runs = std::make_shared<int>(0)] {
    auto x = std::make_shared<Atomic<int>>(0);
    const bool later = ++*runs > 2;
    return Scenario{Times(2,
                          [x, later](int) {
                            x->fetch_add(1);
                            if (later) x->load();
                            x->fetch_add(1);
                          }),
                    {}};
  };
  CHECK(ExploreSchedules({}, make).failure.find("is no function of its schedule") != std::string::npos);
}

TEST_CASE("schedules: what is retired lives to the end of the run, and no longer") {
  using Word = Atomic<uint64_t>;
  uint64_t freed = 0;
  const auto make = [&freed] {
    auto shared = std::make_shared<Atomic<Word*>>(ScheduledEnv::NewZeroed<Word>(9));
    const auto read = [shared] {
      Word* words = shared->load();
      if (words[8].load() != 0) throw std::runtime_error("not zeroed, or freed");
    };
    const auto replace = [shared, &freed] {
      Word* old = shared->exchange(ScheduledEnv::NewZeroed<Word>(9));
      ScheduledEnv::Retire([old, &freed] {
        ScheduledEnv::Delete(old, 9);
        ++freed;
      });
    };
    return Scenario{{read, replace}, [shared, &freed, before = freed] {
                      const bool aligned = reinterpret_cast<uintptr_t>(shared->load()) % 64 == 0;
                      ScheduledEnv::Delete(shared->load(), 9);
                      return freed == before && aligned ? "" : "freed too early, or not aligned";
                    }};
  };
  const ScheduleResult result = ExploreSchedules({.preemptions = kNoLimit}, make);
  CHECK(result.complete);
  CHECK(result.failure == "");
  CHECK(result.schedules == 3);
  CHECK(freed == 3);
}

// A random program over two words and a lock: what it does is in `key`, what its threads see in the outcome.
MakeScenario RandomProgram(uint64_t key, int threads, bool locks, std::set<std::string>* outcomes) {
  struct State {
    std::array<Atomic<uint32_t>, 2> words;
    SpinLock lock;
    std::vector<std::string> seen;
  };
  return [=] {
    auto state = std::make_shared<State>();
    state->seen.resize(threads);
    const auto body = [state, key, locks](int self) {
      Rng rng(RandomKey(key, self));
      for (int i = 0; i < 3; ++i) {
        Atomic<uint32_t>& word = state->words[rng.Next() % 2];
        const uint64_t what = rng.Next() % (locks ? 5 : 4);
        uint32_t value = self * 4 + i + 1;
        if (what == 0) word.store(value);
        if (what == 1) value = word.load();
        if (what == 2) value = word.fetch_add(16);
        if (what == 3) word.compare_exchange_strong(value, 1);
        if (what == 4) {
          state->lock.Lock();
          word.store(word.load() * 2 + 1);
          state->lock.Unlock();
        }
        state->seen[self] += std::to_string(value) + " ";
      }
    };
    return Scenario{Times(threads, body), [state, outcomes] {
                      std::string outcome;
                      for (const std::string& seen : state->seen) outcome += seen + "| ";
                      for (const auto& word : state->words) outcome += std::to_string(word.load()) + " ";
                      outcomes->insert(outcome);
                      return "";
                    }};
  };
}

TEST_CASE("schedules: pruning loses no outcome of random programs at any bound") {
  uint64_t full = 0, pruned = 0, distinct = 0;
  for (uint64_t key = 0; key < 30; ++key) {
    for (const uint32_t preemptions : {0u, 1u, 2u, 3u, kNoLimit}) {
      const int threads = key % 2 == 0 && preemptions != 3 ? 3 : 2;
      const bool locks = preemptions != kNoLimit;
      std::set<std::string> all, kept;
      const ScheduleResult a = ExploreSchedules({.preemptions = preemptions}, RandomProgram(key, threads, locks, &all));
      const ScheduleResult b = ExploreSchedules({.preemptions = preemptions, .prune = true},
                                                RandomProgram(key, threads, locks, &kept));
      REQUIRE(a.complete);
      REQUIRE(b.complete);
      CHECK(all == kept);
      CHECK(b.schedules <= a.schedules);
      full += a.schedules;
      pruned += b.schedules;
      distinct += all.size();
    }
  }
  CHECK(pruned < full);
  MESSAGE("schedules: ", full, ", pruned: ", pruned, ", outcomes: ", distinct);
}

TEST_CASE("schedules: pruning tries each place of a preemption once when the threads share nothing") {
  const auto schedules = [](int threads, int steps) {
    const auto make = [=] {
      auto words = std::make_shared<std::array<Atomic<int>, 3>>();
      const auto body = [words, steps](int self) {
        for (int i = 0; i < steps; ++i) (*words)[self].fetch_add(1);
      };
      return Scenario{Times(threads, body), {}};
    };
    const ScheduleResult result = ExploreSchedules({.preemptions = kNoLimit, .prune = true}, make);
    CHECK(result.complete);
    return result.schedules;
  };
  // Each thread but the last is preempted at one place or none, and never goes on before the others are done. Unpruned
  // it would be 30 choose 15, and 15! / 5!^3.
  CHECK(schedules(2, 15) == 2 * 15);
  CHECK(schedules(3, 5) == 6 * 5 * 5);
}

TEST_CASE("schedules: random schedules are many, and the same for the same seed") {
  std::set<std::string> first, second;
  CHECK(RandomSchedules(300, 1, RandomProgram(5, 3, true, &first)).schedules == 300);
  RandomSchedules(300, 1, RandomProgram(5, 3, true, &second));
  CHECK(first == second);
  CHECK(first.size() > 5);
  const ScheduleResult found = RandomSchedules(1000, 1, LostUpdate);
  CHECK(found.failure.starts_with("x is 1"));
  CHECK(ReplaySchedule(found.failing_schedule, LostUpdate).failure == found.failure);
}

}  // namespace
}  // namespace persia
