#include "store/local_store.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/named_thread.h"
#include "batch/feature_schema.h"
#include "sanitizers.h"

namespace persia {
namespace {

// Two row classes, of dim 2 and 3; rows start at zero and lose each gradient once.
LocalStore MakeStore() {
  TableOptions options{.dim = 2,
                       .optimizer = {.type = RowOptimizerType::kSgd, .lr = 1.0f},
                       .initializer = {.type = InitializerType::kZeros},
                       .capacity_rows = 100};
  TableOptions wider = options;
  wider.dim = 3;
  return LocalStore({options, wider});
}

const std::vector<uint64_t> kSigns{1, 2};

// Applies the gradient 1 to the two rows of class 0.
Status ApplyOnes(LocalStore& store, RequestId id) {
  const float ones[4] = {1, 1, 1, 1};
  const GradientBlock block{0, kSigns, ones};
  return store.Apply(id, {&block, 1});
}

std::vector<float> LookupClass0(LocalStore& store, LookupMode mode) {
  std::vector<float> out(4, 99.0f);
  const LookupBlock block{0, kSigns, out.data()};
  CHECK(store.Lookup({1, 1}, mode, {&block, 1}).ok());
  return out;
}

bool Contains(const Status& status, const std::string& part) {
  return status.message().find(part) != std::string::npos;
}

TEST_CASE("a lookup fills the blocks of all row classes, a request of gradients changes them all") {
  LocalStore store = MakeStore();
  std::vector<float> two(4, 99.0f), three(6, 99.0f);
  const LookupBlock lookups[] = {{0, kSigns, two.data()}, {1, kSigns, three.data()}};
  REQUIRE(store.Lookup({1, 1}, LookupMode::kTrain, lookups).ok());
  CHECK(two == std::vector<float>(4, 0.0f));
  CHECK(three == std::vector<float>(6, 0.0f));

  const float gradients[] = {1, 2, 3, 4, 5, 6};
  const GradientBlock updates[] = {{0, kSigns, gradients}, {1, kSigns, gradients}};
  REQUIRE(store.Apply({1, 1}, updates).ok());
  REQUIRE(store.Lookup({1, 2}, LookupMode::kReadOnly, lookups).ok());
  CHECK(two == std::vector<float>{-1, -2, -3, -4});
  CHECK(three == std::vector<float>{-1, -2, -3, -4, -5, -6});
}

TEST_CASE("a retried request is acknowledged and applied once") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  REQUIRE(ApplyOnes(store, {1, 1}).ok());
  REQUIRE(ApplyOnes(store, {1, 1}).ok());
  REQUIRE(ApplyOnes(store, {1, 2}).ok());
  REQUIRE(ApplyOnes(store, {1, 1}).ok());
  CHECK(LookupClass0(store, LookupMode::kReadOnly) == std::vector<float>(4, -2.0f));
}

TEST_CASE("each worker has its own sequence") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  REQUIRE(ApplyOnes(store, {1, 1}).ok());
  REQUIRE(ApplyOnes(store, {2, 1}).ok());
  CHECK(LookupClass0(store, LookupMode::kReadOnly) == std::vector<float>(4, -2.0f));
}

TEST_CASE("a gap in the sequence is refused with both numbers and changes nothing") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  REQUIRE(ApplyOnes(store, {7, 1}).ok());
  const Status status = ApplyOnes(store, {7, 4});
  CHECK(status.code() == ErrorCode::kInternal);
  CHECK(Contains(status, "Worker 7 sent request 4, but the last one applied is 1"));
  CHECK(ApplyOnes(store, {7, 0}).code() == ErrorCode::kInternal);
  CHECK(LookupClass0(store, LookupMode::kReadOnly) == std::vector<float>(4, -1.0f));
  CHECK(ApplyOnes(store, {7, 2}).ok());
}

TEST_CASE("retries that race with the request are applied once in all") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  std::vector<std::thread> threads;
  bool ok[4] = {};
  for (bool& result : ok) {
    threads.push_back(StartThread("retry", [&store, &result] {
      result = true;
      for (uint64_t sequence = 1; sequence <= 200; ++sequence) result = ApplyOnes(store, {1, sequence}).ok() && result;
    }));
  }
  for (std::thread& thread : threads) thread.join();
  for (const bool result : ok) CHECK(result);
  CHECK(LookupClass0(store, LookupMode::kReadOnly) == std::vector<float>(4, -200.0f));
}

TEST_CASE("applied sequences survive a checkpoint: old requests are recognised, the next ones go on") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  REQUIRE(ApplyOnes(store, {1, 1}).ok());
  REQUIRE(ApplyOnes(store, {1, 2}).ok());
  REQUIRE(ApplyOnes(store, {5, 1}).ok());
  const std::vector<RequestId> applied = store.AppliedRequests().value();
  REQUIRE(applied.size() == 2);
  CHECK(applied[0].worker == 1);
  CHECK(applied[0].sequence == 2);
  CHECK(applied[1].worker == 5);
  CHECK(applied[1].sequence == 1);

  LocalStore restored = MakeStore();
  LookupClass0(restored, LookupMode::kTrain);
  const GradientBlock nothing{0, {}, nullptr};
  REQUIRE(restored.Apply({9, 1}, {&nothing, 1}).ok());
  REQUIRE(restored.RestoreAppliedRequests(applied).ok());
  CHECK(restored.AppliedRequests()->size() == 2);  // worker 9 is not part of the checkpoint
  CHECK(ApplyOnes(restored, {1, 2}).ok());
  CHECK(LookupClass0(restored, LookupMode::kReadOnly) == std::vector<float>(4, 0.0f));
  CHECK(ApplyOnes(restored, {1, 3}).ok());
  CHECK(LookupClass0(restored, LookupMode::kReadOnly) == std::vector<float>(4, -1.0f));
}

TEST_CASE("a request with a bad block is refused before any block is applied") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  const float ones[4] = {1, 1, 1, 1};
  const GradientBlock bad_class[] = {{0, kSigns, ones}, {2, kSigns, ones}};
  const Status status = store.Apply({1, 1}, bad_class);
  CHECK(status.code() == ErrorCode::kInternal);
  CHECK(Contains(status, "row class 2 of 2"));
  const GradientBlock no_buffer[] = {{0, kSigns, ones}, {1, kSigns, nullptr}};
  CHECK(store.Apply({1, 1}, no_buffer).code() == ErrorCode::kInternal);
  CHECK(LookupClass0(store, LookupMode::kReadOnly) == std::vector<float>(4, 0.0f));
  CHECK(ApplyOnes(store, {1, 1}).ok());  // the refused requests did not use the number up

  const LookupBlock lookup{2, kSigns, nullptr};
  CHECK(store.Lookup({1, 1}, LookupMode::kTrain, {&lookup, 1}).code() == ErrorCode::kInternal);
}

TEST_CASE("rows can be read, written, scanned and cleared by class") {
  LocalStore store = MakeStore();
  REQUIRE(store.row_class_count() == 2);
  REQUIRE(store.row_width(1) == 3);
  const std::vector<float> row{1, 2, 3};
  std::vector<float> read(3);
  REQUIRE(store.Write(1, 42, row).ok());
  CHECK(store.Read(1, 42, read).value());
  CHECK(read == row);
  CHECK(!store.Read(1, 43, read).value());
  std::vector<uint64_t> seen;
  REQUIRE(store.Scan(1, [&](uint64_t sign, std::span<const float> values, RowAge) {
    seen.push_back(sign);
    CHECK(std::vector<float>(values.begin(), values.end()) == row);
  }).ok());
  CHECK(seen == std::vector<uint64_t>{42});
  CHECK(store.counters(1).rows == 1);
  CHECK(store.counters(0).rows == 0);
  REQUIRE(store.Clear().ok());
  CHECK(store.counters(1).rows == 0);
}

TEST_CASE("a row class or a row width that doesn't exist is refused with the numbers") {
  LocalStore store = MakeStore();
  std::vector<float> row(2);
  CHECK(store.Write(1, 42, row).code() == ErrorCode::kUsage);
  CHECK(Contains(store.Write(1, 42, row), "is 3 floats, got 2"));
  CHECK(store.Read(1, 42, row).status().code() == ErrorCode::kUsage);
  CHECK(Contains(store.Write(2, 42, row), "2 row classes, got number 2"));
  CHECK(store.Scan(2, [](uint64_t, std::span<const float>, RowAge) {}).code() == ErrorCode::kUsage);
  CHECK(store.SaveState(2).status().code() == ErrorCode::kUsage);
  CHECK(store.RestoreState(2, {}).status().code() == ErrorCode::kUsage);
}

// All that a checkpoint keeps of a row class.
struct ClassContent {
  struct Row {
    std::vector<float> values;
    RowAge age;
  };
  std::map<uint64_t, Row> rows;
  std::vector<uint64_t> state;

  ClassContent(const LocalStore& store, uint32_t row_class) : state(store.SaveState(row_class).value()) {
    REQUIRE(store.Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge age) {
      rows[sign] = {{row.begin(), row.end()}, age};
    }).ok());
  }
  void WriteTo(LocalStore& store, uint32_t row_class) const {
    for (const auto& [sign, row] : rows) REQUIRE(store.Write(row_class, sign, row.values, row.age).ok());
  }
};

TEST_CASE("rows with their ages and the state of a row class make another store go on like the first" * OneThread()) {
  // Shards with an exact order of use, with a clock, and several of them; each fills up and evicts.
  for (const uint64_t capacity : {100, 3'000, 20'000}) {
    CAPTURE(capacity);
    for (const EvictionPolicy eviction : {EvictionPolicy::kLru, EvictionPolicy::kLfu}) {
      TableOptions options;
      options.dim = 2;
      options.capacity_rows = capacity;
      options.admit_frequency = eviction == EvictionPolicy::kLru ? 2 : 1;
      options.eviction = eviction;
      const uint64_t batch = capacity / 10;
      std::vector<float> out(batch * 2);
      const auto look_up = [&](LocalStore& store, uint64_t step) {
        std::vector<uint64_t> signs(batch);
        // New ones, and some again.
        for (uint64_t i = 0; i < batch; ++i) signs[i] = (step / (1 + i % 4)) * batch + i + 1;
        const LookupBlock block{0, signs, out.data()};
        REQUIRE(store.Lookup({1, step}, LookupMode::kTrain, {&block, 1}).ok());
      };
      LocalStore store({options}), other({options});
      for (uint64_t step = 1; step <= 40; ++step) look_up(store, step);
      const ClassContent saved(store, 0);
      REQUIRE(other.RestoreState(0, saved.state).value());
      saved.WriteTo(other, 0);
      for (uint64_t step = 41; step <= 80; ++step) {
        look_up(store, step);
        look_up(other, step);
      }
      const ClassContent expected(store, 0), found(other, 0);
      CHECK(found.state == expected.state);
      CHECK(std::equal(found.rows.begin(), found.rows.end(), expected.rows.begin(), expected.rows.end(),
                       [](const auto& a, const auto& b) {
                         return a.first == b.first && a.second.values == b.second.values &&
                                a.second.age.ticks == b.second.age.ticks;
                       }));
      CHECK(other.counters(0).evictions > capacity / 10);
      CHECK(store.counters(0).rows <= capacity);
    }
  }
}

TEST_CASE("rows with a time to live keep the age that they had in another process") {
  uint64_t now = 10'000, now_there = 7'000'000;
  TableOptions options;
  options.dim = 2;
  options.capacity_rows = 5'000;
  options.time_to_live_ms = 1'000;
  options.now_ms = [&now] { return now; };
  LocalStore store({options});
  options.now_ms = [&now_there] { return now_there; };
  LocalStore other({options});
  const std::vector<uint64_t> time_passes{77};
  std::vector<float> out(4);
  const auto look_up = [&](LocalStore& each, const std::vector<uint64_t>& signs, LookupMode mode) {
    const LookupBlock block{0, signs, out.data()};
    REQUIRE(each.Lookup({1, 1}, mode, {&block, 1}).ok());
  };
  const auto pass = [&](LocalStore& each, uint64_t& clock, uint64_t ms) {  // training goes on, with other signs
    for (const uint64_t end = clock + ms; clock < end; clock += 20) look_up(each, time_passes, LookupMode::kTrain);
  };
  look_up(store, kSigns, LookupMode::kTrain);
  pass(store, now, 600);
  const ClassContent saved(store, 0);
  const uint64_t idle_ms = saved.rows.at(kSigns[0]).age.idle_ms;
  CHECK(idle_ms >= 500);
  CHECK(idle_ms <= 600);

  REQUIRE(other.RestoreState(0, saved.state).value());
  saved.WriteTo(other, 0);
  const auto hits_after = [&](uint64_t ms) {
    pass(other, now_there, ms);
    const uint64_t before = other.counters(0).hits;
    look_up(other, kSigns, LookupMode::kReadOnly);
    return other.counters(0).hits - before;
  };
  CHECK(hits_after(300) == kSigns.size());
  CHECK(hits_after(300) == 0);
  CHECK(hits_after(0) == 0);
}

TEST_CASE("a state of another shape is left out") {
  LocalStore store = MakeStore();
  LookupClass0(store, LookupMode::kTrain);
  const std::vector<uint64_t> before = store.SaveState(0).value();
  CHECK(!store.RestoreState(0, {}).value());
  CHECK(!store.RestoreState(0, std::vector<uint64_t>(before.size() + 1, 7)).value());
  CHECK(store.SaveState(0).value() == before);
  CHECK(store.counters(0).rows == kSigns.size());
}

TEST_CASE("counters are kept by feature group, signs of no group last") {
  TableOptions options;
  options.dim = 2;
  options.capacity_rows = 100;
  options.group_count = 2;
  LocalStore store({options});
  std::vector<uint64_t> signs;
  for (uint64_t id = 0; id < 6; ++id) signs.push_back(MakeSign(id, id < 2 ? 0 : 1, 8));
  signs.push_back(5);  // prefix 0
  std::vector<float> out(signs.size() * 2);
  const LookupBlock block{0, signs, out.data()};
  for (uint64_t step : {1, 2}) REQUIRE(store.Lookup({1, step}, LookupMode::kTrain, {&block, 1}).ok());
  const std::vector<TableCounters> groups = store.group_counters(0);
  REQUIRE(groups.size() == 3);
  const uint64_t rows[] = {2, 4, 1};
  for (size_t i = 0; i < groups.size(); ++i) {
    CHECK(groups[i].rows == rows[i]);
    CHECK(groups[i].inserts == rows[i]);
    CHECK(groups[i].misses == rows[i]);
    CHECK(groups[i].hits == rows[i]);
  }
  CHECK(store.counters(0).rows == 7);
}

TEST_CASE("the random draws of an update follow from worker and sequence") {
  TableOptions options{.dim = 2,
                       .storage = StorageType::kBf16,
                       .optimizer = {.type = RowOptimizerType::kSgd, .lr = 1.0f},
                       .initializer = {.type = InitializerType::kZeros},
                       .capacity_rows = 1'000};
  std::vector<uint64_t> signs(500);
  for (size_t i = 0; i < signs.size(); ++i) signs[i] = i + 1;
  const auto trained = [&](RequestId id) {
    LocalStore store({options});
    std::vector<float> rows(1'000), gradients(1'000, 0.123456f);
    const LookupBlock lookup{0, signs, rows.data()};
    const GradientBlock update{0, signs, gradients.data()};
    REQUIRE(store.Lookup({1, 1}, LookupMode::kTrain, {&lookup, 1}).ok());
    REQUIRE(store.Apply(id, {&update, 1}).ok());
    REQUIRE(store.Lookup({1, 1}, LookupMode::kReadOnly, {&lookup, 1}).ok());
    return rows;
  };
  CHECK(trained({1, 1}) == trained({1, 1}));
  CHECK(trained({1, 1}) != trained({2, 1}));
}

}  // namespace
}  // namespace persia
