#include "base/hyperloglog.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"

namespace persia {
namespace {

// 1.04 / sqrt(registers)
constexpr double kStandardError = 0.01625;

// Hashes number begin … end - 1 of a sequence of distinct ones.
void AddRange(HyperLogLog& log, uint64_t seed, uint64_t begin, uint64_t end) {
  for (uint64_t n = begin; n < end; ++n) log.Add(Mix64(RandomKey(seed, 0) + n));
}

TEST_CASE("nothing added is estimated as 0, one thing as 1") {
  HyperLogLog log;
  CHECK(log.Estimate() == 0.0);
  log.Add(Mix64(7));
  CHECK(log.Estimate() == doctest::Approx(1.0).epsilon(0.001));
}

TEST_CASE("the estimate is within three standard errors from 1 to 10^6 distinct hashes, whatever the seed") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    HyperLogLog log;
    uint64_t added = 0;
    for (const uint64_t count : {1u, 2u, 3u, 10u, 30u, 100u, 300u, 1000u, 3000u, 5000u, 10'000u, 15'000u, 20'000u,
                                 50'000u, 100'000u, 300'000u, 1'000'000u}) {
      AddRange(log, seed, added, count);
      added = count;
      const auto exact = static_cast<double>(count);
      CAPTURE(seed);
      CAPTURE(count);
      CHECK(std::abs(log.Estimate() - exact) <= 3 * kStandardError * exact);
    }
  }
}

TEST_CASE("the estimate is unbiased and its error is the theoretical one") {
  constexpr int kSeeds = 200;
  for (const uint64_t count : {2000u, 12'000u, 40'000u}) {  // empty registers: many, few, none
    double sum = 0, squares = 0;
    for (uint64_t seed = 100; seed < 100 + kSeeds; ++seed) {
      HyperLogLog log;
      AddRange(log, seed, 0, count);
      const double error = log.Estimate() / static_cast<double>(count) - 1.0;
      sum += error;
      squares += error * error;
    }
    CAPTURE(count);
    CHECK(std::abs(sum / kSeeds) <= 3 * kStandardError / std::sqrt(kSeeds));
    CHECK(std::sqrt(squares / kSeeds) <= 1.15 * kStandardError);
  }
}

TEST_CASE("what was added before doesn't count again") {
  HyperLogLog log;
  AddRange(log, 1, 0, 5000);
  const double once = log.Estimate();
  for (int i = 0; i < 10; ++i) AddRange(log, 1, 0, 5000);
  CHECK(log.Estimate() == once);
}

TEST_CASE("the extreme hashes are ranked by the bits behind the register's") {
  HyperLogLog log;
  log.Add(0);
  log.Add(UINT64_MAX);
  const std::vector<uint8_t> registers = log.Save();
  CHECK(registers.front() == HyperLogLog::kMostRank);
  CHECK(registers.back() == 1);
  CHECK(std::count(registers.begin(), registers.end(), 0) == HyperLogLog::kRegisters - 2);
}

TEST_CASE("registers that are all at the largest rank give a finite estimate") {
  HyperLogLog log;
  const std::vector<uint8_t> full(HyperLogLog::kRegisters, HyperLogLog::kMostRank - 1);
  REQUIRE(log.Restore(full));
  CHECK(std::isfinite(log.Estimate()));
  CHECK(log.Estimate() > 1e18);
}

TEST_CASE("merging gives what adding both had given") {
  HyperLogLog a, b, both;
  AddRange(a, 1, 0, 20'000);
  AddRange(b, 1, 10'000, 50'000);
  AddRange(both, 1, 0, 50'000);
  a.Merge(b);
  CHECK(a.Save() == both.Save());
  CHECK(a.Estimate() == both.Estimate());
}

TEST_CASE("clearing forgets everything") {
  HyperLogLog log;
  AddRange(log, 1, 0, 1000);
  log.Clear();
  CHECK(log.Estimate() == 0.0);
}

TEST_CASE("saved registers restore the estimate, others are refused and change nothing") {
  HyperLogLog log, restored;
  AddRange(log, 1, 0, 30'000);
  const std::vector<uint8_t> saved = log.Save();
  AddRange(restored, 2, 0, 100'000);  // to be forgotten
  REQUIRE(restored.Restore(saved));
  CHECK(restored.Save() == saved);
  CHECK(restored.Estimate() == log.Estimate());

  std::vector<uint8_t> wrong = saved;
  wrong.back() = HyperLogLog::kMostRank + 1;
  CHECK_FALSE(restored.Restore(wrong));
  wrong = saved;
  wrong.pop_back();
  CHECK_FALSE(restored.Restore(wrong));
  CHECK(restored.Save() == saved);
}

TEST_CASE("additions of several threads at once give what one thread would have added") {
  HyperLogLog alone;
  AddRange(alone, 3, 0, 40'000);
  for (int round = 0; round < 10; ++round) {
    HyperLogLog log;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&log, t] { AddRange(log, 3, t * 8'000, t * 8'000 + 16'000); });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(log.Save() == alone.Save());
  }
}

}  // namespace
}  // namespace persia
