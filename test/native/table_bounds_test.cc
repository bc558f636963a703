// What a table keeps when it can't keep everything: order of eviction, groups, time to live, admission, memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"
#include "sanitizers.h"
#include "table_fixtures.h"

namespace persia {
namespace {

void Train(Table& table, const Signs& signs, uint64_t request = 0) {
  Values out(signs.size() * table.dim());
  table.Gather(signs, LookupMode::kTrain, request, out.data());
}

Signs Range(uint64_t begin, uint64_t end) {
  Signs signs(end - begin);
  std::iota(signs.begin(), signs.end(), begin);
  return signs;
}

constexpr uint64_t InGroup(uint64_t group, uint64_t id) { return (group + 1) << 56 | id; }

// Ids by Zipf's law with exponent 1.05 over `range` ids, by inversion of the continuous distribution.
Signs ZipfTrace(size_t count, uint64_t range, uint64_t seed) {
  constexpr double kExponent = 1.05;
  Rng rng(seed);
  Signs trace(count);
  const double top = std::pow(static_cast<double>(range), 1 - kExponent);
  for (uint64_t& id : trace) id = static_cast<uint64_t>(std::pow(1 + rng.Uniform() * (top - 1), 1 / (1 - kExponent)));
  return trace;
}

double ExactLruHitRate(const Signs& trace, size_t capacity) {
  std::list<uint64_t> recency;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places;
  size_t hits = 0;
  for (const uint64_t id : trace) {
    const auto found = places.find(id);
    if (found != places.end()) {
      ++hits;
      recency.splice(recency.begin(), recency, found->second);
      continue;
    }
    if (places.size() == capacity) {
      places.erase(recency.back());
      recency.pop_back();
    }
    recency.push_front(id);
    places[id] = recency.begin();
  }
  return static_cast<double>(hits) / static_cast<double>(trace.size());
}

double TableHitRate(const TableOptions& options, const Signs& trace) {
  Table table(options);
  Signs call;
  for (size_t i = 0; i < trace.size(); ++i) {
    if (std::find(call.begin(), call.end(), trace[i]) != call.end() || call.size() == 16) {
      Train(table, call);
      call.clear();
    }
    call.push_back(trace[i]);
  }
  Train(table, call);
  CHECK(table.size() == options.capacity_rows);
  const TableCounters counters = table.counters();
  return static_cast<double>(counters.hits) / static_cast<double>(counters.hits + counters.misses);
}

TEST_CASE("the hit rate on a Zipf trace is within 5 % of exact LRU, and LFU's is better") {
  const size_t scale = kSanitized ? 1 : 10;
  const Signs trace = ZipfTrace(scale * 60000, scale * 100000, 3);
  const Signs capacities = kSanitized ? Signs{3000} : Signs{3000, 20000, 60000};
  for (const uint64_t capacity : capacities) {
    const double exact = ExactLruHitRate(trace, capacity);
    TableOptions options = SumOptions(1, capacity);
    const double lru = TableHitRate(options, trace);
    options.eviction = EvictionPolicy::kLfu;
    const double lfu = TableHitRate(options, trace);
    MESSAGE("capacity ", capacity, ": exact LRU ", exact, ", LRU ", lru, ", LFU ", lfu);
    CHECK(std::abs(lru - exact) <= 0.05 * exact);
    CHECK(lfu > lru);
  }
}

TEST_CASE("rows in use survive a flood of new ids that is larger than the table" * OneThread()) {
  Table table(SumOptions(2, 50000));
  const Signs used = Range(0, 5000);
  for (uint64_t i = 0; i < 15; ++i) {
    Train(table, used);
    Train(table, Range(1000000 + i * 5000, 1005000 + i * 5000));
  }
  CHECK(std::count_if(used.begin(), used.end(), [&](uint64_t sign) { return Holds(table, sign); }) == 5000);
  CHECK(table.size() == 50000);
  CHECK(table.counters().inserts - table.counters().evictions == 50000);
}

TEST_CASE("a group with room of its own neither evicts others nor is evicted by them" * OneThread()) {
  TableOptions options = SumOptions(2, 3000);
  options.group_count = 3;
  options.group_capacities = {{1, 100}};
  Table table(options);
  Signs first, flood, others;
  for (uint64_t id = 0; id < 100; ++id) first.push_back(InGroup(1, id));
  for (uint64_t id = 0; id < 2000; ++id) others.push_back(InGroup(id % 2 == 0 ? 0 : 2, id));
  Train(table, others);
  Train(table, first);
  for (uint64_t id = 0; id < 10000; ++id) flood.push_back(InGroup(1, 1000 + id));
  Train(table, flood);
  CHECK(std::all_of(others.begin(), others.end(), [&](uint64_t sign) { return Holds(table, sign); }));
  const std::vector<TableCounters> groups = table.group_counters();
  REQUIRE(groups.size() == 4);
  CHECK(groups[0].rows == 1000);
  CHECK(groups[1].rows == 100);
  CHECK(groups[1].inserts == 10100);
  CHECK(groups[1].evictions == 10000);
  CHECK(groups[0].evictions + groups[2].evictions == 0);
  CHECK(groups[2].misses == 1000);

  flood.clear();
  for (uint64_t id = 0; id < 10000; ++id) flood.push_back(InGroup(0, 5000 + id));
  Train(table, flood);
  CHECK(table.group_counters()[1].rows == 100);
  CHECK(table.size() == 3100);
  CHECK(table.group_counters()[0].evictions + table.group_counters()[2].evictions == 9000);
}

TEST_CASE("signs of no known group are counted as others") {
  TableOptions options = SumOptions(2, 100);
  options.group_count = 1;
  Table table(options);
  Train(table, {InGroup(0, 1), InGroup(1, 2), 3});
  CHECK(table.group_counters()[0].rows == 1);
  CHECK(table.group_counters()[1].rows == 2);
}

TEST_CASE("rows that outlive their time are gone: lookups miss them, sweeps free them, use keeps them") {
  uint64_t now = 1000000;
  TableOptions options = SumOptions(2, 20000);
  options.initializer.type = InitializerType::kZeros;
  options.time_to_live_ms = 32000;
  options.now_ms = [&now] { return now; };
  Table table(options);
  const Signs kept = Range(0, 100), left = Range(100, 3000);
  Train(table, kept);
  Train(table, left);
  table.Apply(left, Values(left.size() * 2, 1.0f).data(), 0);
  for (int i = 0; i < 40; ++i) {
    now += 1000;
    Train(table, kept);
  }
  CHECK(std::all_of(kept.begin(), kept.end(), [&](uint64_t sign) { return Holds(table, sign); }));
  CHECK(std::none_of(left.begin(), left.end(), [&](uint64_t sign) { return Holds(table, sign); }));
  Values out(2);
  table.Gather(Signs{200}, LookupMode::kReadOnly, 0, out.data());
  CHECK(out == Values{0, 0});
  for (int i = 0; i < 3000; ++i) Train(table, {1});  // each call sweeps a little
  CHECK(table.size() == 100);
  CHECK(table.counters().expired == 2900);
  CHECK(table.counters().evictions == 2900);
  Train(table, {200});  // comes back as a new row
  table.Gather(Signs{200}, LookupMode::kReadOnly, 0, out.data());
  CHECK(out == Values{0, 0});
  CHECK(Holds(table, 200));
}

TEST_CASE("a row expires between its time to live and 1/16 later") {
  uint64_t now = 5000;
  TableOptions options = SumOptions(1, 100);
  options.time_to_live_ms = 3200;
  options.now_ms = [&now] { return now; };
  Table table(options);
  Train(table, {7});
  for (; now < 5000 + 3199; now += 13) {
    Train(table, {8});
    REQUIRE(Holds(table, 7));
  }
  now = 5000 + 3400 + 200;
  Train(table, {8});
  CHECK(!Holds(table, 7));
}

TEST_CASE("a sign gets its row when it is met the n-th time") {
  TableOptions options = SumOptions(2, 10000);
  options.admit_frequency = 3;
  Table table(options);
  const Signs signs = Range(1, 501);
  Train(table, signs);
  Train(table, signs);
  CHECK(table.size() == 0);
  CHECK(table.counters().refused == 1000);
  Train(table, signs);
  CHECK(table.size() == 500);
  Values out(2);
  table.Gather(Signs{700}, LookupMode::kReadOnly, 0, out.data());  // a read-only lookup doesn't count
  table.Gather(Signs{700}, LookupMode::kReadOnly, 0, out.data());
  table.Gather(Signs{700}, LookupMode::kReadOnly, 0, out.data());
  CHECK(!Holds(table, 700));
}

TEST_CASE("overhead is at most 16 bytes a row at capacity, at a load of 0.85 or more" * OneThread()) {
  const Signs capacities = kSanitized ? Signs{300000} : Signs{300000, 1000000};
  for (const uint64_t capacity : capacities) {
    TableOptions options = SumOptions(16, capacity);
    options.optimizer.type = RowOptimizerType::kAdagrad;
    Table table(options);
    for (uint64_t begin = 0; begin < capacity; begin += 50000) Train(table, Range(begin, begin + 50000));
    const TableCounters counters = table.counters();
    CHECK(counters.rows == capacity);
    CHECK(counters.evictions == 0);
    const auto rows = static_cast<double>(counters.rows);
    const double overhead = static_cast<double>(counters.bytes) / rows - static_cast<double>(table.row_bytes());
    const double load = rows / static_cast<double>(counters.lanes);
    MESSAGE("overhead ", overhead, " bytes a row of ", table.row_bytes(), ", load ", load);
    CHECK(load >= 0.85);
    CHECK(overhead <= 16.0);
  }
}

TEST_CASE("a capacity in bytes bounds the table's memory" * OneThread()) {
  TableOptions options = SumOptions(8, 0);
  options.capacity_bytes = 16 << 20;
  Table table(options);
  for (uint64_t begin = 0; begin < 500000; begin += 10000) Train(table, Range(begin, begin + 10000));
  CHECK(table.counters().bytes <= options.capacity_bytes);
  CHECK(table.counters().bytes >= options.capacity_bytes / 10 * 8);
  CHECK(table.counters().evictions > 0);
  CHECK(table.counters().rows == table.capacity_rows());
}

TEST_CASE("ids that are made to collide cost evictions, never a failure" * OneThread()) {
  // Mix64 inverted: signs whose hashes are neighbours all have the same home.
  const auto unmix = [](uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ULL;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ULL;
    return x ^ x >> 30 ^ x >> 60;
  };
  REQUIRE(Mix64(unmix(12345)) == 12345);
  Table table(SumOptions(2, 100000));
  Signs signs;
  for (uint64_t i = 0; i < 20000; ++i) signs.push_back(unmix((uint64_t{7} << 56) + i));
  for (size_t i = 0; i < signs.size(); i += 500) Train(table, Signs(&signs[i], &signs[i] + 500));
  CHECK(table.counters().misses == 20000);
  CHECK(table.counters().inserts == 20000);
  CHECK(table.size() == 20000 - table.counters().evictions);
  CHECK(table.size() >= 500);
  CHECK(Holds(table, signs.back()));
}

TEST_CASE("half-precision rows learn from steps far below their resolution" * OneThread()) {
  for (const auto storage : {StorageType::kFp16, StorageType::kBf16}) {
    TableOptions options = SumOptions(8, 5000);
    options.storage = storage;
    options.optimizer.lr = 1e-4f;
    options.initializer = {};
    options.initializer.type = InitializerType::kUniform;
    options.initializer.low = 0.99f;
    options.initializer.high = 1.0f;
    Table table(options);
    const Signs signs = Range(0, 1000);
    Values before(8000), after(8000);
    table.Gather(signs, LookupMode::kTrain, 0, before.data());
    table.Gather(signs, LookupMode::kReadOnly, 0, after.data());
    CHECK(before == after);  // what a new row reads as is what it is stored as
    for (uint64_t step = 0; step < 1000; ++step) table.Apply(signs, Values(8000, 1.0f).data(), step);
    table.Gather(signs, LookupMode::kReadOnly, 0, after.data());
    double moved = 0;
    for (size_t i = 0; i < after.size(); ++i) moved += before[i] - after[i];
    CHECK(moved / 8000 == doctest::Approx(0.1).epsilon(0.02));
    CHECK(table.row_bytes() == 16);
  }
}

TEST_CASE("one bias correction a group: steps are counted by calls that have the group, and kept in the state") {
  TableOptions options = SumOptions(1, 1000);
  options.optimizer = {};
  options.optimizer.type = RowOptimizerType::kAdam;
  options.optimizer.lr = 0.1f;
  options.optimizer.eps = 1e-8f;
  options.optimizer.bias_correction = BiasCorrection::kGroup;
  options.initializer.type = InitializerType::kZeros;
  options.group_count = 2;
  Table table(options);
  const Signs both{InGroup(0, 1), InGroup(1, 1)};
  Train(table, both);
  for (int i = 0; i < 9; ++i) table.Apply(Signs{InGroup(0, 1)}, Values{1.0f}.data(), 0);
  table.Apply(both, Values{1.0f, 1.0f}.data(), 0);
  Values row(3);
  REQUIRE(table.Read(InGroup(1, 1), row.data()));
  CHECK(row[0] == doctest::Approx(-0.1f));  // step 1 of its group: m/(1-b1) / sqrt(v/(1-b2)) = 1
  REQUIRE(table.Read(InGroup(0, 1), row.data()));
  CHECK(row[0] == doctest::Approx(-1.0f));
  Table copy(options);
  REQUIRE(copy.RestoreState(table.SaveState()));
  table.Scan([&](uint64_t sign, const float* values, RowAge age) { copy.Write(sign, values, age); });
  table.Apply(both, Values{0.5f, 0.5f}.data(), 0);
  copy.Apply(both, Values{0.5f, 0.5f}.data(), 0);
  Values again(3);
  for (const uint64_t sign : both) {
    REQUIRE((table.Read(sign, row.data()) && copy.Read(sign, again.data())));
    CHECK(row == again);
  }
}

}  // namespace
}  // namespace persia
