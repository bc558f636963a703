// What holds of a table when threads use it at once: no gradient is lost, no row torn or doubled, whatever is evicted,
// refused or moved by growth meanwhile.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/named_thread.h"
#include "base/rng.h"
#include "sanitizers.h"
#include "table_fixtures.h"

namespace persia {
namespace {

constexpr uint64_t kSteps = kSanitized ? 60 : 400;

template <typename Work>
void RunThreads(int count, Work work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.push_back(StartThread("test", [&work, i] { work(i); }));
  for (std::thread& thread : threads) thread.join();
}

Signs RandomSigns(Rng& rng, size_t count, uint64_t range) {
  std::set<uint64_t> signs;
  while (signs.size() < count) signs.insert(rng.Next() % range);
  Signs result(signs.begin(), signs.end());
  for (size_t i = result.size() - 1; i > 0; --i) std::swap(result[i], result[rng.Next() % (i + 1)]);
  return result;
}

TEST_CASE("the weights are the exact sum of all acknowledged gradients, while the table grows and refuses rows") {
  for (const double admit : {1.0, 0.4}) {
    constexpr uint64_t kRange = 60000;  // the indexes double eight times and more
    TableOptions options = SumOptions(4, 4 * kRange);
    options.admit_probability = admit;
    Table table(options);
    std::atomic<int64_t> sent{0};
    RunThreads(4, [&](int thread) {
      Rng rng(static_cast<uint64_t>(thread) + 1);
      Values out(300 * 4);
      for (uint64_t step = 0; step < kSteps; ++step) {
        const uint64_t range = 400 + kRange * (step + 1) / kSteps;
        const Signs signs = RandomSigns(rng, 300, range);
        table.Gather(signs, LookupMode::kTrain, step * 4 + static_cast<uint64_t>(thread), out.data());
        const auto gradient = static_cast<float>(1 + step % 3);
        table.Apply(signs, Values(out.size(), gradient).data(), step);
        sent += 300 * static_cast<int64_t>(gradient);
        // What is missed is counted in rows: one gradient value a step can't tell which. Send those again as zero.
      }
    });
    // Each thread's gradients are known by step; what was missed is known in number only, so it is bounded by both ends
    // unless nothing was missed.
    double total = 0;
    table.Scan([&](uint64_t, const float* row, RowAge) {
      for (int d = 0; d < 4; ++d) REQUIRE(row[d] == row[0]);
      total -= row[0];
    });
    const auto missed = static_cast<double>(table.counters().missed_updates);
    if (admit == 1.0) {
      CHECK(missed == 0);
      CHECK(total == static_cast<double>(sent));
    } else {
      CHECK(missed > 0);
      CHECK(static_cast<double>(sent) - total >= missed);
      CHECK(static_cast<double>(sent) - total <= 3 * missed);
    }
    CHECK(table.counters().evictions == 0);
    CHECK(table.counters().rows == table.counters().inserts);
  }
}

TEST_CASE("with gradients of one, sent = in the rows + missed, exactly, under admission and growth") {
  TableOptions options = SumOptions(1, 200000);
  options.admit_probability = 0.4;
  Table table(options);
  std::atomic<int64_t> sent{0};
  RunThreads(4, [&](int thread) {
    Rng rng(static_cast<uint64_t>(thread) + 10);
    Values out(300);
    for (uint64_t step = 0; step < kSteps; ++step) {
      const Signs signs = RandomSigns(rng, 300, 50000);
      table.Gather(signs, LookupMode::kTrain, step * 4 + static_cast<uint64_t>(thread), out.data());
      table.Apply(signs, Values(300, 1.0f).data(), step);
      sent += 300;
    }
  });
  int64_t total = 0;
  table.Scan([&](uint64_t, const float* row, RowAge) { total -= static_cast<int64_t>(row[0]); });
  CHECK(total + static_cast<int64_t>(table.counters().missed_updates) == sent);
}

// Each thread has signs of its own, so that it knows what each of its rows must hold as long as it stays; the threads
// evict each other's rows all the time.
TEST_CASE("under eviction a row holds the sum of the gradients since it was inserted, or is gone") {
  for (const uint64_t capacity : {700u, 20000u}) {
    Table table(SumOptions(3, capacity));
    std::atomic<uint64_t> wrong{0}, evicted{0};
    RunThreads(4, [&](int thread) {
      Rng rng(static_cast<uint64_t>(thread) + 20);
      std::map<uint64_t, float> expected;
      Values out(100 * 3), row(3);
      for (uint64_t step = 0; step < kSteps; ++step) {
        Signs signs = RandomSigns(rng, 100, capacity);
        for (uint64_t& sign : signs) sign = sign * 4 + static_cast<uint64_t>(thread);
        table.Gather(signs, LookupMode::kTrain, step, out.data());
        for (size_t i = 0; i < signs.size(); ++i) {
          const auto known = expected.find(signs[i]);
          const float was = known == expected.end() ? 0.0f : known->second;
          if (out[3 * i] != was && out[3 * i] != 0.0f) ++wrong;
          if (out[3 * i] != out[3 * i + 2]) ++wrong;
          expected[signs[i]] = out[3 * i];
        }
        table.Apply(signs, Values(300, -2.0f).data(), step);
        for (const uint64_t sign : signs) {
          if (table.Read(sign, row.data())) {
            if (row[0] != expected[sign] + 2.0f || row[2] != row[0]) ++wrong;
            expected[sign] += 2.0f;
          } else {
            ++evicted;
            expected.erase(sign);
          }
        }
      }
    });
    CHECK(wrong == 0);
    CHECK(table.size() == std::min<uint64_t>(capacity, table.size()));
    CHECK(table.counters().inserts - table.counters().evictions == table.size());
    CHECK(table.counters().evictions > 0);
    CHECK(table.counters().refused == 0);
    CHECK(evicted.load() <= table.counters().evictions);
  }
}

TEST_CASE("lookups beside updates of the same few rows see whole rows that never go back") {
  Table table(SumOptions(24, 100));
  const Signs signs{1, 2, 3, 4, 5, 6, 7, 8};
  Values first(8 * 24);
  table.Gather(signs, LookupMode::kTrain, 0, first.data());
  std::atomic<uint64_t> wrong{0};
  std::atomic<int> writers{2};
  RunThreads(4, [&](int thread) {
    if (thread < 2) {
      const Values gradients(8 * 24, -1.0f);
      for (uint64_t step = 0; step < 100 * kSteps; ++step) table.Apply(signs, gradients.data(), step);
      --writers;
      return;
    }
    Values out(8 * 24), seen(8, 0.0f), row(24);
    while (writers > 0) {
      table.Gather(signs, thread == 2 ? LookupMode::kTrain : LookupMode::kReadOnly, 1, out.data());
      if (!table.Read(signs[3], row.data()) || row[0] != row[23]) ++wrong;
      for (size_t i = 0; i < 8; ++i) {
        const float* at = &out[24 * i];
        if (std::any_of(at, at + 24, [&](float w) { return w != at[0]; }) || at[0] < seen[i]) ++wrong;
        seen[i] = at[0];
      }
    }
  });
  CHECK(wrong == 0);
  Values out(8 * 24);
  table.Gather(signs, LookupMode::kReadOnly, 1, out.data());
  CHECK(out == Values(8 * 24, 200.0f * static_cast<float>(kSteps)));
}

TEST_CASE("a scan beside inserts, evictions and growth visits every row that stays, once") {
  TableOptions options = SumOptions(2, 60000);
  Table table(options);
  Signs staying(2000);
  std::iota(staying.begin(), staying.end(), uint64_t{1} << 40);
  Values out(2000 * 2);
  table.Gather(staying, LookupMode::kTrain, 0, out.data());
  std::atomic<bool> scanning{true};
  std::atomic<uint64_t> wrong{0};
  RunThreads(3, [&](int thread) {
    if (thread == 0) {
      for (int round = 0; round < 8; ++round) {
        std::set<uint64_t> seen;
        table.Scan([&](uint64_t sign, const float* row, RowAge) {
          if (!seen.insert(sign).second || row[0] != row[1]) ++wrong;
        });
        for (const uint64_t sign : staying) wrong += !seen.contains(sign);
      }
      scanning = false;
      return;
    }
    Rng rng(static_cast<uint64_t>(thread));
    Values values(200 * 2);
    for (uint64_t step = 0; scanning && step < 20 * kSteps; ++step) {
      const Signs signs = RandomSigns(rng, 200, 40000);
      table.Gather(signs, LookupMode::kTrain, step, values.data());
      table.Apply(signs, Values(400, 1.0f).data(), step);
      for (size_t i = 0; i < 20; ++i) table.Erase(signs[i]);
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads that insert the same new signs make one row of each") {
  for (uint64_t round = 0; round < 5; ++round) {
    Table table(SumOptions(2, 100000));
    Signs signs(20000);
    std::iota(signs.begin(), signs.end(), round << 32);
    RunThreads(4, [&](int) {
      Values out(signs.size() * 2);
      table.Gather(signs, LookupMode::kTrain, 0, out.data());
      table.Apply(signs, Values(out.size(), 1.0f).data(), 0);
    });
    CHECK(table.counters().inserts == signs.size());
    CHECK(table.counters().missed_updates == 0);
    uint64_t rows = 0;
    table.Scan([&](uint64_t, const float* row, RowAge) { rows += row[0] == -4.0f && row[1] == -4.0f; });
    CHECK(rows == signs.size());
  }
}

TEST_CASE("what a scan calls may scan, write and clear the table, and the scan goes on") {
  constexpr uint64_t kRows = 10000;
  Table table(SumOptions(1, 2 * kRows));
  const Values row(table.row_width(), 3.0f);
  for (uint64_t sign = 1; sign <= kRows; ++sign) REQUIRE(table.Write(sign, row.data()));
  uint64_t seen = 0, inner = 0;
  table.Scan([&](uint64_t, const float* values, RowAge) {
    CHECK(values[0] == 3.0f);
    if (++seen == 1) table.Scan([&](uint64_t, const float*, RowAge) { ++inner; });
    if (seen == kRows / 2) table.Clear();
    if (seen == kRows / 2 + 1) REQUIRE(table.Write(kRows + 1, row.data()));
  });
  CHECK(inner == kRows);
  CHECK(seen == kRows);
  CHECK(table.size() == 1);
}

TEST_CASE("Clear beside all other calls leaves a sound, usable table") {
  Table table(SumOptions(2, 30000));
  RunThreads(4, [&](int thread) {
    Rng rng(static_cast<uint64_t>(thread) + 50);
    Values values(200 * 2);
    for (uint64_t step = 0; step < kSteps; ++step) {
      const Signs signs = RandomSigns(rng, 200, 50000);
      table.Gather(signs, LookupMode::kTrain, step, values.data());
      table.Apply(signs, values.data(), step);
      if (thread == 0 && step % 20 == 0) table.Clear();
      if (thread == 1 && step % 30 == 0) table.Scan([](uint64_t, const float*, RowAge) {});
    }
  });
  table.Clear();
  CHECK(table.size() == 0);
  Signs signs(30000);
  std::iota(signs.begin(), signs.end(), 1);
  Values values(signs.size() * 2);
  table.Gather(signs, LookupMode::kTrain, 0, values.data());
  CHECK(table.size() == 30000);
}

}  // namespace
}  // namespace persia
