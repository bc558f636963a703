#include "table/frequency_sketch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <latch>
#include <thread>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"

namespace persia {
namespace {

// The n-th sign as a sketch sees it.
uint64_t HashOf(uint64_t n) { return Mix64(n + 1); }

// `draws` ids of which id i comes with probability ~ (i + 1)^-exponent.
std::vector<uint32_t> ZipfIds(size_t draws, size_t universe, double exponent, uint64_t seed) {
  std::vector<double> cumulative(universe);
  double total = 0;
  for (size_t i = 0; i < universe; ++i) cumulative[i] = total += std::pow(static_cast<double>(i + 1), -exponent);
  Rng rng(seed);
  std::vector<uint32_t> ids(draws);
  for (uint32_t& id : ids) {
    const auto found = std::lower_bound(cumulative.begin(), cumulative.end() - 1, rng.Uniform() * total);
    id = static_cast<uint32_t>(found - cumulative.begin());
  }
  return ids;
}

std::vector<uint32_t> CountsOf(const std::vector<uint32_t>& ids, size_t universe) {
  std::vector<uint32_t> counts(universe);
  for (const uint32_t id : ids) ++counts[id];
  return counts;
}

// Signs that are counted exactly beside each other: all others together leave the estimate of each at 0.
std::vector<uint64_t> ApartHashes(uint64_t expected_signs, size_t count) {
  std::vector<uint64_t> apart;
  for (uint64_t n = 0; n < 2 * count && apart.size() < count; ++n) {
    FrequencySketch others(expected_signs);
    for (uint64_t other = 0; other < 2 * count; ++other) {
      if (other != n) others.Increment(HashOf(other));
    }
    if (others.Estimate(HashOf(n)) == 0) apart.push_back(HashOf(n));
  }
  REQUIRE(apart.size() == count);
  return apart;
}

void IncrementTimes(FrequencySketch& sketch, uint64_t hash, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) sketch.Increment(hash);
}

// Counts `others` in turn, `times` in all. They stay below the most, so that each time something is raised.
void CountOthers(FrequencySketch& sketch, const std::vector<uint64_t>& others, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) REQUIRE(sketch.Increment(others[i % others.size()]) < FrequencySketch::kMost);
}

TEST_CASE("a sign alone is counted exactly, up to the most") {
  FrequencySketch sketch(1000);
  CHECK(sketch.Estimate(HashOf(0)) == 0);
  for (uint32_t n = 1; n <= FrequencySketch::kMost; ++n) {
    REQUIRE(sketch.Increment(HashOf(0)) == n);
    REQUIRE(sketch.Estimate(HashOf(0)) == n);
  }
  for (int i = 0; i < 1000; ++i) REQUIRE(sketch.Increment(HashOf(0)) == FrequencySketch::kMost);
}

TEST_CASE("memory is 8 bytes for each expected sign and little more, 4 KiB at least") {
  CHECK(FrequencySketch(0).bytes() == 4096 + 4);
  CHECK(FrequencySketch(512).bytes() == 4096 + 4);
  CHECK(FrequencySketch(513).bytes() == 2 * (4096 + 4));
  CHECK(FrequencySketch(1'000'000).bytes() <= 8'020'000);
  CHECK(FrequencySketch(1'000'000).bytes() >= 8'000'000);
}

TEST_CASE("before it ages no sign is underestimated, and an increment returns the new estimate") {
  constexpr size_t kSigns = 20'000, kUniverse = 200'000;
  FrequencySketch sketch(kSigns);
  std::vector<uint32_t> counts(kUniverse);
  for (const uint32_t id : ZipfIds(2 * kSigns, kUniverse, 1.05, 1)) {
    const uint32_t estimate = sketch.Increment(HashOf(id));
    REQUIRE(estimate >= std::min(++counts[id], FrequencySketch::kMost));
    REQUIRE(estimate == sketch.Estimate(HashOf(id)));
  }
  for (size_t id = 0; id < kUniverse; ++id) {
    REQUIRE(sketch.Estimate(HashOf(id)) >= std::min(counts[id], FrequencySketch::kMost));
  }
}

TEST_CASE("on Zipf ids estimates are a little too high at most") {
  constexpr size_t kSigns = 20'000, kUniverse = 1'000'000;
  const std::vector<uint32_t> ids = ZipfIds(5 * kSigns, kUniverse, 1.05, 2);
  const std::vector<uint32_t> counts = CountsOf(ids, kUniverse);
  FrequencySketch sketch(kSigns);
  for (const uint32_t id : ids) sketch.Increment(HashOf(id));
  double once = 0, once_above = 0, never = 0, never_above = 0, error = 0, hot = 0, hot_error = 0;
  for (size_t id = 0; id < kUniverse; ++id) {
    const uint32_t count = std::min(counts[id], FrequencySketch::kMost);
    const uint32_t over = sketch.Estimate(HashOf(id)) - count;
    (count == 0 ? never : once) += count <= 1;
    (count == 0 ? never_above : once_above) += count <= 1 && over > 0;
    error += count == 1 ? over : 0;
    hot += count >= 8;
    hot_error += count >= 8 ? over : 0;
  }
  REQUIRE(once > 10'000);
  REQUIRE(hot > 100);
  CHECK(never_above / never < 0.08);
  CHECK(once_above / once < 0.05);
  CHECK(error / once < 0.08);
  CHECK(hot_error / hot < 0.05);
}

TEST_CASE("the estimate tells hot signs from cold ones, also after many windows") {
  constexpr size_t kSigns = 5'000, kUniverse = 100'000;
  FrequencySketch sketch(kSigns);
  for (const uint32_t id : ZipfIds(40 * FrequencySketch::kWindow * kSigns, kUniverse, 1.05, 3)) {
    sketch.Increment(HashOf(id));
  }
  size_t right = 0, pairs = 0;
  for (uint32_t hot = 0; hot < 200; ++hot) {  // met 20 times a window or more
    for (uint32_t cold = 50'000; cold < 50'100; ++cold, ++pairs) {
      right += sketch.Estimate(HashOf(hot)) > sketch.Estimate(HashOf(cold));
    }
  }
  CHECK(static_cast<double>(right) >= 0.99 * static_cast<double>(pairs));
}

// A sketch of one page: nothing ages in its first window, then each window halves every counter once.
constexpr uint64_t kSmall = 64;
constexpr uint32_t kSmallWindow = FrequencySketch::kWindow * kSmall;

TEST_CASE("each window after the first halves every counter once, a line at a time") {
  const std::vector<uint64_t> hashes = ApartHashes(kSmall, 158);
  const std::vector<uint64_t> watched(hashes.begin(), hashes.begin() + 30), others(hashes.begin() + 30, hashes.end());
  FrequencySketch sketch(kSmall);
  const auto all_are = [&](uint32_t halvings) {
    for (uint32_t i = 0; i < 30; ++i) REQUIRE(sketch.Estimate(watched[i]) == (i % 15 + 1) >> halvings);
  };
  for (uint32_t i = 0; i < 30; ++i) IncrementTimes(sketch, watched[i], i % 15 + 1);
  CountOthers(sketch, others, kSmallWindow - 240);  // the sum of what is counted already
  all_are(0);
  CountOthers(sketch, others, kSmallWindow / 2);
  size_t halved = 0;
  for (uint32_t i = 0; i < 30; ++i) halved += sketch.Estimate(watched[i]) == (i % 15 + 1) / 2;
  CHECK(halved > 7);
  CHECK(halved < 23);
  CountOthers(sketch, others, kSmallWindow / 2);
  all_are(1);
  CountOthers(sketch, others, kSmallWindow);
  all_are(2);
}

TEST_CASE("popularity of the past fades: what is counted now overtakes it") {
  const std::vector<uint64_t> hashes = ApartHashes(kSmall, 128);
  const std::vector<uint64_t> others(hashes.begin() + 1, hashes.end());
  FrequencySketch sketch(kSmall);
  IncrementTimes(sketch, hashes[0], FrequencySketch::kMost);
  CountOthers(sketch, others, 5 * kSmallWindow);
  CHECK(sketch.Estimate(hashes[0]) <= FrequencySketch::kMost >> 3);
  for (const uint64_t hash : others) CHECK(sketch.Estimate(hash) > sketch.Estimate(hashes[0]));
}

TEST_CASE("clearing forgets the counts and starts the first window again") {
  const std::vector<uint64_t> hashes = ApartHashes(kSmall, 128);
  FrequencySketch sketch(kSmall);
  CountOthers(sketch, hashes, 3 * kSmallWindow);
  sketch.Clear();
  for (const uint64_t hash : hashes) REQUIRE(sketch.Estimate(hash) == 0);
  CountOthers(sketch, hashes, kSmallWindow);
  for (const uint64_t hash : hashes) CHECK(sketch.Estimate(hash) == kSmallWindow / 128);
}

TEST_CASE("a saved sketch goes on as if it had never been saved") {
  constexpr size_t kSigns = 2'000, kUniverse = 20'000;
  const std::vector<uint32_t> ids = ZipfIds(8 * FrequencySketch::kWindow * kSigns, kUniverse, 1.05, 4);
  FrequencySketch undisturbed(kSigns), saved(kSigns), restored(kSigns);
  size_t i = 0;
  for (; i < ids.size() / 2; ++i) {
    REQUIRE(undisturbed.Increment(HashOf(ids[i])) == saved.Increment(HashOf(ids[i])));
  }
  std::vector<uint64_t> state{7};
  saved.Save(state);
  CHECK(state[0] == 7);
  IncrementTimes(restored, HashOf(1), 10);  // to be forgotten
  REQUIRE(restored.Restore(std::span(state).subspan(1)));
  for (; i < ids.size(); ++i) {
    REQUIRE(undisturbed.Increment(HashOf(ids[i])) == restored.Increment(HashOf(ids[i])));
  }
  std::vector<uint64_t> a, b;
  undisturbed.Save(a);
  restored.Save(b);
  CHECK(a == b);
}

TEST_CASE("a state of another sketch or a part of one is refused and changes nothing") {
  FrequencySketch sketch(1000);
  IncrementTimes(sketch, HashOf(1), 5);
  std::vector<uint64_t> before, other, longer, wrong;
  sketch.Save(before);
  FrequencySketch(2000).Save(other);
  CHECK_FALSE(sketch.Restore(other));
  FrequencySketch(600).Save(wrong);  // the same memory, another window
  REQUIRE(wrong[0] == before[0]);
  CHECK_FALSE(sketch.Restore(wrong));
  CHECK_FALSE(sketch.Restore({}));
  CHECK_FALSE(sketch.Restore(std::span(before).first(before.size() - 1)));
  longer = before;
  longer.push_back(0);
  CHECK_FALSE(sketch.Restore(longer));
  for (const auto& [place, word] : std::vector<std::pair<size_t, uint64_t>>{
           {2, 0},                       // no increments, and then what has no head
           {2, uint64_t{2} << 32 | 1},   // behind the last page
           {2, 1000},                    // longer than the state
           {3, uint64_t{1} << 32},       // not a number of increments
           {5, uint64_t{9999} << 32 | 1}}) {
    wrong = before;
    wrong[place] = word;
    CAPTURE(place);
    CHECK_FALSE(sketch.Restore(wrong));
  }
  std::vector<uint64_t> after;
  sketch.Save(after);
  CHECK(after == before);
}

TEST_CASE("the state of a sketch is as large as what it has counted, and no larger than all of it") {
  constexpr uint64_t kSigns = 1'000'000;
  FrequencySketch sketch(kSigns);
  std::vector<uint64_t> state;
  sketch.Save(state);
  CHECK(state.size() == 4);
  for (uint64_t n = 0; n < 1000; ++n) sketch.Increment(HashOf(n));
  state.clear();
  sketch.Save(state);
  CHECK(state.size() <= 4 + 1000 * 4);  // a sign: its word, its page's increments, and a head of each
  for (uint64_t n = 0; n < 5 * kSigns; ++n) sketch.Increment(HashOf(n));
  state.clear();
  sketch.Save(state);
  CHECK(state.size() * sizeof(uint64_t) <= sketch.bytes() * 101 / 100);
}

TEST_CASE("a state of the first release, which had every value, is still read") {
  constexpr uint64_t kSigns = 600, kPages = 2, kWords = 1024;
  FrequencySketch sketch(kSigns), restored(kSigns);
  for (uint64_t n = 0; n < 400; ++n) IncrementTimes(sketch, HashOf(n), static_cast<uint32_t>(n % 5));
  std::vector<uint64_t> state;
  sketch.Save(state);
  REQUIRE(state[0] == (kPages | uint64_t{1} << 63));
  std::vector<uint64_t> first{kPages, state[1]};
  size_t at = 2;
  for (const uint64_t count : {kPages, kWords}) {  // the runs written out
    std::vector<uint64_t> values(count);
    for (; state[at] != 0; at += 1 + (state[at] & UINT32_MAX)) {
      std::copy_n(&state[at + 1], state[at] & UINT32_MAX, &values[state[at] >> 32]);
    }
    ++at;
    first.insert(first.end(), values.begin(), values.end());
  }
  REQUIRE(at == state.size());
  IncrementTimes(restored, HashOf(1000), 3);  // to be forgotten
  REQUIRE(restored.Restore(first));
  std::vector<uint64_t> again;
  restored.Save(again);
  CHECK(again == state);
  first[2] = uint64_t{1} << 32;  // not a number of increments
  CHECK_FALSE(restored.Restore(first));
  first.pop_back();
  CHECK_FALSE(restored.Restore(first));
}

// Runs body(thread) on each of `count` threads, from the same moment on.
template <typename Body>
void OnThreads(uint32_t count, Body body) {
  std::latch start(count);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < count; ++t) {
    threads.emplace_back([&body, &start, t] {
      start.arrive_and_wait();
      body(t);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("increments of several threads at once are all counted") {
  constexpr uint64_t kSigns = 512;  // its window is more than all increments here
  constexpr uint32_t kThreads = 4, kEach = 3;
  const std::vector<uint64_t> hashes = ApartHashes(kSigns, 128);
  for (int round = 0; round < 100; ++round) {
    FrequencySketch sketch(kSigns);
    OnThreads(kThreads, [&](uint32_t) {
      for (const uint64_t hash : hashes) IncrementTimes(sketch, hash, kEach);
    });
    for (const uint64_t hash : hashes) REQUIRE(sketch.Estimate(hash) == kThreads * kEach);
  }
}

TEST_CASE("signs that share counters are not underestimated whoever counts them at once") {
  constexpr uint32_t kThreads = 4, kSigns = 2000, kEach = 2;  // one sign a word, all in the first window
  for (int round = 0; round < 20; ++round) {
    FrequencySketch sketch(kSigns);
    OnThreads(kThreads, [&](uint32_t t) {
      for (uint64_t i = 0; i < kEach * kSigns; ++i) sketch.Increment(HashOf((i + t * 500) % kSigns));
    });
    size_t exact = 0;
    for (uint64_t n = 0; n < kSigns; ++n) {
      REQUIRE(sketch.Estimate(HashOf(n)) >= kThreads * kEach);
      exact += sketch.Estimate(HashOf(n)) == kThreads * kEach;
    }
    REQUIRE(exact > kSigns / 2);
  }
}

TEST_CASE("halving beside increments loses none of them") {
  constexpr uint32_t kWatched = 30, kTimes = 12;
  const std::vector<uint64_t> hashes = ApartHashes(kSmall, kWatched + 128);
  const std::vector<uint64_t> others(hashes.begin() + kWatched, hashes.end());
  for (int round = 0; round < 100; ++round) {
    FrequencySketch sketch(kSmall);
    CountOthers(sketch, others, kSmallWindow);  // from here on lines age
    OnThreads(4, [&](uint32_t t) {
      if (t == 3) return CountOthers(sketch, others, kSmallWindow - kWatched * kTimes);
      for (uint32_t i = 0; i < kTimes * kWatched; i += 3) sketch.Increment(hashes[(i + t) % kWatched]);
    });
    // One window has passed: each was halved once, at whatever count it had.
    for (uint32_t i = 0; i < kWatched; ++i) {
      REQUIRE(sketch.Estimate(hashes[i]) >= kTimes / 2);
      REQUIRE(sketch.Estimate(hashes[i]) <= kTimes);
    }
    std::vector<uint64_t> state;
    sketch.Save(state);
    REQUIRE(state[3] == 2 * kSmallWindow);  // every increment was numbered
  }
}

TEST_CASE("clearing beside increments leaves a sketch that counts") {
  constexpr uint64_t kSigns = 100'000;
  FrequencySketch sketch(kSigns);
  std::atomic<bool> done{false};
  OnThreads(3, [&](uint32_t t) {
    if (t == 0) {
      for (int i = 0; i < 50; ++i) sketch.Clear();
      return done.store(true);
    }
    for (uint64_t n = 0; !done.load(); n = (n + 1) % kSigns) sketch.Increment(HashOf(n));
  });
  sketch.Clear();
  for (uint64_t n = 0; n < kSigns; ++n) REQUIRE(sketch.Estimate(HashOf(n)) == 0);
  CHECK(sketch.Increment(HashOf(0)) == 1);
}

}  // namespace
}  // namespace persia
