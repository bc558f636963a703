#include "batch/dedup.h"

#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "base/rng.h"

namespace persia {
namespace {

// Inserts `signs` as one batch and compares every number with a std::map's.
void CheckBatch(Deduplicator& dedup, const std::vector<uint64_t>& signs) {
  std::map<uint64_t, uint32_t> numbers;
  std::vector<uint64_t> distinct(signs.size(), 0xdead), expected;
  dedup.Reset(signs.size());
  for (const uint64_t sign : signs) {
    const auto [entry, is_new] = numbers.try_emplace(sign, static_cast<uint32_t>(numbers.size()));
    if (is_new) expected.push_back(sign);
    REQUIRE(dedup.Insert(sign, distinct.data()) == entry->second);
  }
  REQUIRE(dedup.distinct() == expected.size());
  distinct.resize(expected.size());
  CHECK(distinct == expected);
}

std::vector<uint64_t> RandomSigns(uint64_t key, size_t count, uint64_t range) {
  Rng rng(key);
  std::vector<uint64_t> signs;
  for (size_t i = 0; i < count; ++i) signs.push_back(rng.Next() % range);
  return signs;
}

TEST_CASE("distinct signs are numbered in order of first occurrence") {
  Deduplicator dedup;
  CheckBatch(dedup, {7, 3, 7, 7, 9, 3});
}

TEST_CASE("the signs 0 and 2^64 - 1 are signs like any other") {
  Deduplicator dedup;
  CheckBatch(dedup, {0, UINT64_MAX, 0, 1, UINT64_MAX});
  CheckBatch(dedup, {0});
}

TEST_CASE("a batch knows nothing of the batches before it, larger or smaller") {
  Deduplicator dedup;
  for (const size_t count : {10u, 1000u, 3u, 0u, 50000u, 1000u, 50000u}) {
    CheckBatch(dedup, RandomSigns(count, count, count / 2 + 1));
  }
}

TEST_CASE("signs stay distinct from those of older batches when the generation stamp wraps") {
  Deduplicator dedup(3);
  for (uint64_t batch = 0; batch < 20; ++batch) CheckBatch(dedup, RandomSigns(batch, 500, 300));
}

TEST_CASE("a batch of all distinct signs fits") {
  Deduplicator dedup;
  std::vector<uint64_t> signs;
  for (uint64_t i = 0; i < 4096; ++i) signs.push_back(i << 40);
  CheckBatch(dedup, signs);
}

}  // namespace
}  // namespace persia
