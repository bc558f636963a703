#include "table/table.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/named_thread.h"
#include "base/rng.h"
#include "sanitizers.h"
#include "table_fixtures.h"
#include "table_model.h"

namespace persia {
namespace {

Values Gather(Table& table, const Signs& signs, LookupMode mode = LookupMode::kTrain, uint64_t request = 1) {
  Values out(signs.size() * table.dim(), 99.0f);
  table.Gather(signs, mode, request, out.data());
  return out;
}

Rows ScanAll(const Table& table) {
  Rows rows;
  table.Scan([&](uint64_t sign, const float* row, RowAge) {
    rows.emplace_back(sign, Values(row, row + table.row_width()));
  });
  std::sort(rows.begin(), rows.end());
  return rows;
}

Signs DistinctSigns(Rng& rng, size_t count, uint64_t range) {
  Signs signs(count);
  for (uint64_t& sign : signs) sign = rng.Next() % range;
  std::sort(signs.begin(), signs.end(), [](uint64_t a, uint64_t b) { return Mix64(~a) < Mix64(~b); });
  signs.erase(std::unique(signs.begin(), signs.end()), signs.end());
  return signs;
}

void CheckSame(const Table& table, const TableModel& model) {
  REQUIRE(ScanAll(table) == model.Scan());
  const TableCounters a = table.counters();
  const TableCounters& b = model.counters();
  CHECK(a.rows == model.Scan().size());
  CHECK(a.hits == b.hits);
  CHECK(a.misses == b.misses);
  CHECK(a.inserts == b.inserts);
  CHECK(a.evictions == b.evictions);
  CHECK(a.refused == b.refused);
  CHECK(a.missed_updates == b.missed_updates);
  CHECK(a.non_finite_skipped == b.non_finite_skipped);
}

// `steps` random operations on up to `most_signs` of `range` signs, on table and model.
void RunAgainstModel(const TableOptions& options, int steps, size_t most_signs, uint64_t range) {
  Table table(options);
  TableModel model(options);
  Rng rng(options.seed);
  for (int step = 0; step < steps; ++step) {
    const Signs signs = DistinctSigns(rng, rng.Next() % (most_signs + 1), range);
    const uint64_t dice = rng.Next() % 100, sign = rng.Next() % range;
    if (dice < 50) {
      const auto mode = dice < 40 ? LookupMode::kTrain : LookupMode::kReadOnly;
      const uint64_t request = rng.Next() % 4;
      REQUIRE(Gather(table, signs, mode, request) == model.Gather(signs, mode, request));
    } else if (dice < 80) {
      Values gradients(signs.size() * options.dim);
      for (float& g : gradients) g = static_cast<float>(rng.Uniform(-1, 1));
      if (dice < 55 && !gradients.empty()) gradients[rng.Next() % gradients.size()] = INFINITY;
      table.Apply(signs, gradients.data(), 1);
      model.Apply(signs, gradients);
    } else if (dice < 88) {
      const Values row(table.row_width(), static_cast<float>(step));
      table.Write(sign, row.data());
      model.Write(sign, row);
    } else if (dice < 98 || step % 16 != 0) {
      REQUIRE(table.Erase(sign) == model.Erase(sign));
    } else {
      table.Clear();
      model.Clear();
    }
    if (step % 50 == 0) CheckSame(table, model);
  }
  CheckSame(table, model);
}

TEST_CASE("a table does what a map with a recency list does, under random operations" * OneThread()) {
  for (const auto type : {RowOptimizerType::kSgd, RowOptimizerType::kRowwiseAdagrad, RowOptimizerType::kAdam}) {
    for (const double admit_probability : {1.0, 0.5}) {
      for (const uint64_t capacity_rows : {1u, 5u, 300u, 1024u}) {
        const TableOptions options{.dim = 5,
                                   .optimizer = {.type = type, .initial_accumulator = 0.1f},
                                   .initializer = {},
                                   .seed = capacity_rows,
                                   .capacity_rows = capacity_rows,
                                   .admit_probability = admit_probability};
        CAPTURE(capacity_rows);
        RunAgainstModel(options, 600, 40, capacity_rows * 2);
      }
    }
  }
}

// The signs of `rows` that the table has no more.
Signs Vanished(const Table& table, const std::map<uint64_t, Values>& rows) {
  Signs gone;
  for (const auto& [sign, row] : rows) {
    if (!Holds(table, sign)) gone.push_back(sign);
  }
  return gone;
}

// A larger table chooses for itself what it evicts. Everything else must be as in a map that follows its choice.
TEST_CASE("a table of several shards does what a map does that forgets what the table evicts" * OneThread()) {
  TableOptions options = SumOptions(2, 2 * Table::kMinShardRows + 1);
  options.initializer = {};
  options.seed = 9;
  Table table(options);
  std::map<uint64_t, Values> rows;
  Rng rng(5);
  uint64_t evictions = 0;
  for (uint64_t step = 0; step < 60; ++step) {
    const Signs signs = DistinctSigns(rng, 1500, 20000);
    const Values out = Gather(table, signs, LookupMode::kTrain, step);
    for (size_t i = 0; i < signs.size(); ++i) {
      Values fresh(2);
      InitializeRow(options.initializer, options.seed, signs[i], fresh.data(), 2);
      const Values got(&out[2 * i], &out[2 * i] + 2);
      const auto known = rows.find(signs[i]);
      // A sign of this call may have been evicted by an earlier one of the same call.
      const bool right = known == rows.end() ? got == fresh : got == known->second || got == fresh;
      REQUIRE(right);
      rows[signs[i]] = got;
    }
    for (const uint64_t sign : Vanished(table, rows)) rows.erase(sign);
    evictions = table.counters().evictions;
    REQUIRE(table.counters().inserts - evictions == rows.size());

    const Values gradients(2 * signs.size(), static_cast<float>(step % 5));
    table.Apply(signs, gradients.data(), step);
    for (const uint64_t sign : signs) {
      const auto known = rows.find(sign);
      if (known == rows.end()) continue;
      for (float& w : known->second) w -= static_cast<float>(step % 5);
    }
    if (step % 10 == 9) REQUIRE(ScanAll(table) == Rows(rows.begin(), rows.end()));
  }
  CHECK(evictions > 10000);
}

TEST_CASE("with capacity 5 the oldest of ten rows are gone, and a touched row outlives the next insert") {
  Table table(SumOptions(4, 5));
  Gather(table, {0, 1, 2, 3, 4});
  Gather(table, {5, 6, 7, 8, 9});
  CHECK(!Holds(table, 4));
  CHECK(Holds(table, 5));
  Gather(table, {5});
  Gather(table, {10});
  CHECK(Holds(table, 5));
  CHECK(!Holds(table, 6));
  CHECK(table.size() == 5);
  CHECK(table.counters().evictions == 6);
}

TEST_CASE("a table never holds more rows than its capacity, however that divides into shards" * OneThread()) {
  for (const uint64_t capacity : {1u, 3u, 8191u, 8193u, 70001u}) {
    Table table(SumOptions(1, capacity));
    Signs signs(capacity * 2);
    std::iota(signs.begin(), signs.end(), 0);
    Gather(table, signs);
    CHECK(table.size() == capacity);
    CHECK(table.counters().inserts - table.counters().evictions == capacity);
  }
}

TEST_CASE("a row that is missing at update time doesn't shift the gradients behind it") {
  Table table(SumOptions(2, 5));
  Gather(table, {1, 3, 5});
  const Values gradients{1, 1, 2, 2, 3, 3, 4, 4, 5, 5};
  table.Apply(Signs{1, 2, 3, 4, 5}, gradients.data(), 1);
  CHECK(Gather(table, {1, 2, 3, 4, 5}, LookupMode::kReadOnly) == Values{-1, -1, 0, 0, -3, -3, 0, 0, -5, -5});
  CHECK(table.counters().missed_updates == 2);
}

TEST_CASE("a gradient that is not finite is skipped and counted, its neighbours are applied") {
  Table table(SumOptions(2, 5));
  Gather(table, {1, 2, 3});
  const Values gradients{1, 1, 2, std::numeric_limits<float>::quiet_NaN(), 3, 3};
  table.Apply(Signs{1, 2, 3}, gradients.data(), 1);
  CHECK(Gather(table, {1, 2, 3}, LookupMode::kReadOnly) == Values{-1, -1, 0, 0, -3, -3});
  CHECK(table.counters().non_finite_skipped == 1);
}

TEST_CASE("every unit of gradient is found again in a row, in an evicted row or among the missed updates") {
  TableOptions options = SumOptions(3, 400);
  options.admit_probability = 0.7;
  Table table(options);
  Rng rng(11);
  const auto total_of = [&] {
    double total = 0;
    for (const auto& [sign, row] : ScanAll(table)) total -= std::accumulate(row.begin(), row.end(), 0.0);
    return total;
  };
  double sent = 0, evicted = 0, missed = 0;
  uint64_t missed_rows = 0;
  for (uint64_t step = 0; step < 200; ++step) {
    const Signs signs = DistinctSigns(rng, 100, 1500);
    const double before = total_of();
    Gather(table, signs, LookupMode::kTrain, step);
    evicted += before - total_of();  // new rows are zeros: only evictions take something away
    const Signs updated = DistinctSigns(rng, 100, 1500);
    Values gradients;
    for (const uint64_t sign : updated) {
      const auto g = static_cast<float>(static_cast<int>(rng.Next() % 21) - 10);
      gradients.insert(gradients.end(), 3, g);
      sent += 3 * g;
      if (Holds(table, sign)) continue;
      missed += 3 * g;
      ++missed_rows;
    }
    table.Apply(updated, gradients.data(), step);
  }
  CHECK(total_of() + evicted + missed == sent);
  CHECK(table.counters().missed_updates == missed_rows);
  CHECK(table.counters().evictions > 0);
  CHECK(table.counters().refused > 0);
}

TEST_CASE("read-only lookups insert nothing and don't change what is evicted next") {
  Table table(SumOptions(1, 2));
  Gather(table, {1, 2});
  CHECK(Gather(table, {1, 7}, LookupMode::kReadOnly) == Values{0, 0});
  Gather(table, {3});
  CHECK(!Holds(table, 1));
  CHECK(Holds(table, 2));
  CHECK(!Holds(table, 7));
}

TEST_CASE("the share of admitted signs is the admission probability, and a request decides the same again"
          * OneThread()) {
  TableOptions options = SumOptions(1, 200000);
  options.admit_probability = 0.25;
  Table table(options), again(options);
  Signs signs(100000);
  std::iota(signs.begin(), signs.end(), 0);
  Gather(table, signs, LookupMode::kTrain, 5);
  Gather(again, signs, LookupMode::kTrain, 5);
  CHECK(static_cast<double>(table.size()) == doctest::Approx(25000).epsilon(0.02));
  CHECK(ScanAll(table) == ScanAll(again));
  Gather(again, signs, LookupMode::kTrain, 6);  // another request draws anew
  CHECK(static_cast<double>(again.size()) == doctest::Approx(43750).epsilon(0.02));
}

TEST_CASE("memory grows with the rows, not with the capacity, and is given back by Clear" * OneThread()) {
  Table table(SumOptions(16, uint64_t{1} << 40));
  const uint64_t empty = table.counters().bytes;
  CHECK(empty < 1000000);
  Signs signs(50000);
  std::iota(signs.begin(), signs.end(), 0);
  Gather(table, signs);
  const uint64_t bytes = table.counters().bytes;
  CHECK(bytes > 50000 * 64);
  CHECK(bytes < 50000 * (64 + 40) + empty);
  table.Clear();
  CHECK(table.size() == 0);
  CHECK(table.counters().bytes == empty);
}

TEST_CASE("rows, ages and state moved into another table restore it, what it evicts next included" * OneThread()) {
  for (const uint64_t capacity : {50u, 10000u, 40000u}) {
    TableOptions options = SumOptions(3, capacity);
    options.optimizer = {.type = RowOptimizerType::kAdam};
    options.initializer = {};
    Table table(options), copy(options);
    Rng rng(3);
    const auto train = [&](Table& target, const Signs& signs) {
      Values values = Gather(target, signs);
      target.Apply(signs, values.data(), 1);
    };
    for (int step = 0; step < 16; ++step) train(table, DistinctSigns(rng, capacity / 4, capacity * 2));
    table.Erase(ScanAll(table)[5].first);
    REQUIRE(copy.RestoreState(table.SaveState()));
    table.Scan([&](uint64_t sign, const float* row, RowAge age) { REQUIRE(copy.Write(sign, row, age)); });
    CHECK(ScanAll(copy) == ScanAll(table));
    for (int step = 0; step < 16; ++step) {
      const Signs signs = DistinctSigns(rng, capacity / 4, capacity * 2);
      train(table, signs);
      train(copy, signs);
    }
    CHECK(ScanAll(copy) == ScanAll(table));
  }
}

TEST_CASE("the state of a table of another shape is refused") {
  Table table(SumOptions(3, 50)), larger(SumOptions(3, 51));
  const std::vector<uint64_t> state = table.SaveState();
  CHECK(!larger.RestoreState(state));
  CHECK(!table.RestoreState(std::span(state).first(state.size() - 1)));
  CHECK(!table.RestoreState({}));
  CHECK(table.RestoreState(state));
}

// Every thread keeps rows uniform (all values equal), so that a torn row shows.
void Disturb(Table& table, uint64_t key, bool& torn) {
  Rng rng(key);
  const uint32_t dim = table.dim();
  const auto is_torn = [&](const float* row) {
    return std::any_of(row, row + dim, [&](float value) { return value != row[0]; });
  };
  for (uint64_t step = 0; step < 150; ++step) {
    const Signs signs = DistinctSigns(rng, 200, 12000);
    const Values out = Gather(table, signs, step % 3 == 0 ? LookupMode::kReadOnly : LookupMode::kTrain, step);
    for (size_t i = 0; i < signs.size(); ++i) torn = torn || is_torn(&out[i * dim]);
    const Values gradients(out.size(), static_cast<float>(step));
    table.Apply(signs, gradients.data(), step);
    Values row(dim, static_cast<float>(step));
    table.Write(signs[0], row.data());
    torn = torn || (table.Read(signs[1], row.data()) && is_torn(row.data()));
    table.Erase(signs[2]);
    if (step % 50 == 10) table.Scan([&](uint64_t, const float* seen, RowAge) { torn = torn || is_torn(seen); });
    if (step % 50 == 20 && table.size() > 9001) torn = true;
    if (step == 70 && key == 1) table.Clear();
  }
}

TEST_CASE("threads that look up, update, write, erase and scan at once see whole rows and leave a sound table") {
  Table table(SumOptions(7, 9001));  // 2 shards, fewer rows than signs: all threads meet in both
  bool torn[4] = {};
  std::vector<std::thread> threads;
  for (uint64_t key = 0; key < 4; ++key) {
    threads.push_back(StartThread("disturb", [&table, &torn, key] { Disturb(table, key, torn[key]); }));
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(std::none_of(std::begin(torn), std::end(torn), [](bool t) { return t; }));

  std::map<uint64_t, Values> rows;
  for (auto& [sign, row] : ScanAll(table)) CHECK(rows.emplace(sign, row).second);
  CHECK(table.size() == rows.size());
  for (const auto& [sign, expected] : rows) {
    Values row(table.row_width());
    REQUIRE(table.Read(sign, row.data()));
    CHECK(row == expected);
  }
}

TEST_CASE("no update is lost when threads train the same rows") {
  Table table(SumOptions(4, 100));
  Signs signs(100);
  std::iota(signs.begin(), signs.end(), 0);
  Gather(table, signs);
  const Values ones(400, 1.0f);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.push_back(StartThread("train", [&] {
      for (uint64_t step = 0; step < 200; ++step) table.Apply(signs, ones.data(), step);
    }));
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(Gather(table, signs, LookupMode::kReadOnly) == Values(400, -800.0f));
}

}  // namespace
}  // namespace persia
