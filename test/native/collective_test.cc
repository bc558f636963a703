// What every collective promises: that of the threads of one process, and the ring over transports.
#include "collective/local_collective.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "allocation_count.h"
#include "base/rng.h"
#include "collective/ring_collective.h"
#include "net_fixtures.h"

namespace persia {
namespace {

using Collectives = std::vector<std::unique_ptr<Collective>>;

constexpr uint64_t kHourMs = 3'600'000;

// A kind of collective to run a test with.
class CollectiveKind {
 public:
  // Of a transport's name, or "local".
  explicit CollectiveKind(const std::string& name) : name_(name) {
    if (name != "local") transports_ = TransportKindNamed(name);
  }

  const std::string& name() const { return name_; }
  bool ring() const { return transports_ != nullptr; }

  Collectives Make(uint32_t ranks, const CollectiveOptions& options = {}) const {
    if (!ring()) return MakeLocalCollectives(ranks, options);
    std::vector<std::unique_ptr<RingMember>> members;
    std::vector<std::string> addresses;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      auto member = MakeRingMember(transports_->Make(), transports_->address(), "the ring's secret");
      REQUIRE_MESSAGE(member.ok(), member.status().message());
      addresses.push_back(member.value()->address());
      members.push_back(std::move(member.value()));
    }
    Collectives collectives(ranks);
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        auto joined = members[rank]->Join(rank, addresses, 30'000, {.deadline_ms = options.deadline_ms});
        if (joined.ok()) collectives[rank] = std::move(joined.value());
      });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& collective : collectives) REQUIRE(collective != nullptr);
    return collectives;
  }

 private:
  const std::string name_;
  std::unique_ptr<TransportKind> transports_;
};

// Runs the test with each kind of collective: local, and a ring over each transport that is there.
void WithEachKind(const std::function<void(const CollectiveKind&)>& test) {
  std::vector<std::string> names = {"local"};
  for (const auto& kind : TransportKinds()) names.push_back(kind->name());
  for (const std::string& name : names) {
    INFO("collective: " << name);
    test(CollectiveKind(name));
  }
}

// Runs body(collective) for each rank on a thread of its own.
void RunRanks(Collectives& collectives, const std::function<void(Collective&)>& body) {
  std::vector<std::thread> threads;
  for (auto& collective : collectives) threads.emplace_back([&body, &collective] { body(*collective); });
  for (auto& thread : threads) thread.join();
}

std::vector<float> Values(uint32_t rank, uint64_t bucket, size_t count) {
  Rng rng(RandomKey(rank, bucket));
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.Normal());
  return values;
}

// The sum over ranks, one rank after the other: from rank 0 on or, in a ring, from the rank whose share a value is in.
std::vector<float> Oracle(const CollectiveKind& kind, uint32_t ranks, uint64_t bucket, size_t count) {
  std::vector<std::vector<float>> values;
  for (uint32_t rank = 0; rank < ranks; ++rank) values.push_back(Values(rank, bucket, count));
  const size_t block_values = ranks * kRingShareBytes / sizeof(float);
  std::vector<float> sums(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t block = i / block_values * block_values, size = std::min(block_values, count - block);
    const size_t share = ((size + ranks - 1) / ranks + 15) / 16 * 16;
    const size_t first = kind.ring() ? (i - block) / share : 0;
    sums[i] = values[first][i];
    for (uint32_t next = 1; next < ranks; ++next) sums[i] += values[(first + next) % ranks][i];
  }
  return sums;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("An all-reduce gives all ranks the bits of adding them up one after the other, for any sizes and ranks") {
  WithEachKind([](const CollectiveKind& kind) {
    const std::vector<size_t> counts = {1000, 1, 0, 15, 16, 17, 70001, 31, 257, 600'000};
    for (uint32_t ranks = 1; ranks <= 5; ++ranks) {
      std::vector<std::vector<float>> expected;
      for (size_t bucket = 0; bucket < counts.size(); ++bucket) {
        expected.push_back(Oracle(kind, ranks, bucket, counts[bucket]));
      }
      auto collectives = kind.Make(ranks);
      std::vector<uint32_t> wrong(ranks, 0);
      RunRanks(collectives, [&](Collective& collective) {
        std::vector<std::vector<float>> buckets;
        for (size_t i = 0; i < counts.size(); ++i) buckets.push_back(Values(collective.rank(), i, counts[i]));
        uint64_t last = 0;
        for (auto& bucket : buckets) last = collective.Start(bucket);
        wrong[collective.rank()] += !collective.Wait(last).ok() || collective.size() != ranks;
        for (size_t i = 0; i < counts.size(); ++i) wrong[collective.rank()] += !SameBits(buckets[i], expected[i]);
      });
      CHECK(wrong == std::vector<uint32_t>(ranks, 0));
    }
  });
}

TEST_CASE("Sums over ranks don't depend on who comes when") {
  WithEachKind([](const CollectiveKind& kind) {
    constexpr uint32_t kRanks = 3, kSteps = 100, kBuckets = 20;  // more buckets at a time than the window first holds
    constexpr size_t kCount = 203;
    std::vector<std::vector<float>> expected;
    for (uint64_t i = 0; i < kBuckets; ++i) expected.push_back(Oracle(kind, kRanks, i, kCount));
    auto collectives = kind.Make(kRanks);
    std::vector<uint32_t> wrong(kRanks, 0);
    RunRanks(collectives, [&](Collective& collective) {
      Rng rng(collective.rank());
      for (uint32_t step = 0; step < kSteps; ++step) {
        std::vector<std::vector<float>> buckets;
        for (uint64_t i = 0; i < kBuckets; ++i) buckets.push_back(Values(collective.rank(), i, kCount));
        uint64_t waited = 0, started = 0;
        for (auto& bucket : buckets) {
          if (rng.Uniform() < 0.01) std::this_thread::sleep_for(std::chrono::microseconds(300));
          started = collective.Start(bucket);
          if (rng.Uniform() < 0.1) wrong[collective.rank()] += !collective.Wait(started).ok();  // in the middle, or
          waited = started;
        }
        wrong[collective.rank()] += !collective.Wait(waited).ok() || !collective.Wait(waited).ok();  // twice
        for (uint64_t i = 0; i < kBuckets; ++i) wrong[collective.rank()] += !SameBits(buckets[i], expected[i]);
      }
    });
    CHECK(wrong == std::vector<uint32_t>(kRanks, 0));
  });
}

TEST_CASE("Counts and losses are summed as doubles between buckets") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(4);
    std::vector<std::vector<double>> sums(4);
    RunRanks(collectives, [&](Collective& collective) {
      std::vector<float> before(100, 1.0f), after(50, 2.0f);
      std::vector<double> values = {1e15 + collective.rank(), 0.1};
      collective.Start(before);
      if (collective.Sum(values).ok()) sums[collective.rank()] = values;
      if (!collective.AllReduce(after).ok() || before[99] != 4.0f || after[0] != 8.0f) sums[collective.rank()].clear();
    });
    for (const auto& sum : sums) CHECK(sum == std::vector<double>{4e15 + 6, 0.1 + 0.1 + 0.1 + 0.1});
  });
}

std::string Detail(const Status& status, const std::string& key) {
  for (const auto& [name, value] : status.details()) {
    if (name == key) return value;
  }
  return "";
}

TEST_CASE("A rank that never comes is named to the others at the deadline, and the group stays failed") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(3, {.deadline_ms = 100});
    std::vector<Status> results(3);
    std::barrier all(3), others(2);  // nobody but rank 1 is late, however busy the machine is
    RunRanks(collectives, [&](Collective& collective) {
      std::vector<float> values(100, 1.0f);
      const uint64_t first = collective.Start(values);
      all.arrive_and_wait();
      CHECK(collective.Wait(first).ok());
      if (collective.rank() == 1) return;
      const uint64_t second = collective.Start(values);
      others.arrive_and_wait();
      results[collective.rank()] = collective.Wait(second);
    });
    for (const uint32_t rank : {0u, 2u}) {
      CHECK(results[rank].code() == ErrorCode::kPeerLost);
      CHECK(results[rank].message().find("NN worker 1 did not start bucket 1 within 100 ms") == 0);
      CHECK(Detail(results[rank], "rank") == "1");
      CHECK(Detail(results[rank], "bucket") == "1");
    }
    std::vector<float> values(100);
    std::vector<double> numbers(1);
    CHECK(collectives[1]->AllReduce(values).code() == ErrorCode::kPeerLost);  // too late
    CHECK(collectives[0]->Sum(numbers).code() == ErrorCode::kPeerLost);
    CHECK(collectives[2]->status().code() == ErrorCode::kPeerLost);
  });
}

TEST_CASE("All ranks that are missing are named") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(4, {.deadline_ms = 1});
    std::vector<float> values(10);
    CHECK(Detail(collectives[2]->AllReduce(values), "rank") == "0, 1, 3");
  });
}

TEST_CASE("A rank that leaves wakes those that wait for it") {
  WithEachKind([](const CollectiveKind& kind) {
    for (const bool before_they_wait : {false, true}) {
      auto collectives = kind.Make(3, {.deadline_ms = kHourMs});
      if (before_they_wait) collectives[2].reset();
      std::vector<Status> results(2);
      std::thread leaver([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        collectives[2].reset();
      });
      std::vector<std::thread> others;
      for (uint32_t rank = 0; rank < 2; ++rank) {
        others.emplace_back([&, rank] {
          std::vector<float> values(100);
          results[rank] = collectives[rank]->AllReduce(values);
        });
      }
      leaver.join();
      for (auto& other : others) other.join();
      for (const Status& result : results) {
        CHECK(result.code() == ErrorCode::kPeerLost);
        CHECK(result.message().find("NN worker 2 left before bucket 0") == 0);
      }
    }
  });
}

TEST_CASE("A rank that leaves with its last sum waited for harms nobody") {
  WithEachKind([](const CollectiveKind& kind) {
    for (uint32_t repeat = 0; repeat < (kind.ring() ? 5 : 200); ++repeat) {
      auto collectives = kind.Make(3, {.deadline_ms = kHourMs});
      std::vector<uint8_t> good(3, false);
      std::vector<std::thread> threads;
      for (uint32_t rank = 0; rank < 3; ++rank) {
        threads.emplace_back([&, rank] {
          std::vector<float> values(40, 1.0f);
          good[rank] = collectives[rank]->AllReduce(values).ok() && values[39] == 3.0f;
          collectives[rank].reset();
        });
      }
      for (auto& thread : threads) thread.join();
      CHECK(good == std::vector<uint8_t>(3, true));
    }
  });
}

TEST_CASE("A sum that was complete before the group failed counts for every rank, also for one that asks later") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(2);
    std::vector<float> a(100, 1.0f), b(100, 2.0f), never(100);
    collectives[0]->Start(a);
    const uint64_t last = collectives[1]->Start(b);
    REQUIRE(collectives[1]->Wait(last).ok());
    collectives[1]->Abort(Status(ErrorCode::kIo, "the disk is on fire"));
    CHECK(collectives[0]->Wait(0).ok());
    CHECK(a[99] == 3.0f);
    for (int later = 0; later < 20; ++later) CHECK(collectives[0]->AllReduce(never).code() == ErrorCode::kIo);
  });
}

TEST_CASE("A rank that leaves while its bucket is summed fails the group, and nobody touches its memory") {
  WithEachKind([](const CollectiveKind& kind) {
    for (uint32_t repeat = 0; repeat < (kind.ring() ? 5 : 100); ++repeat) {
      auto collectives = kind.Make(2, {.deadline_ms = kHourMs});
      Status result;
      std::thread leaver([&] {
        std::vector<float> values(5000, 1.0f);
        collectives[1]->Start(values);
        collectives[1].reset();
      });
      std::vector<float> values(5000, 1.0f);
      collectives[0]->Start(values);
      result = collectives[0]->AllReduce(values);
      leaver.join();
      CHECK(result.code() == ErrorCode::kPeerLost);
    }
  });
}

TEST_CASE("A rank that aborts gives its reason to all, at once") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(3, {.deadline_ms = kHourMs});
    std::vector<Status> results(3);
    RunRanks(collectives, [&](Collective& collective) {
      std::vector<float> values(1000);
      collective.Start(values);
      if (collective.rank() == 0) collective.Abort(Status(ErrorCode::kNonFiniteLoss, "the loss is inf"));
      results[collective.rank()] = collective.AllReduce(values);
    });
    for (const Status& result : results) {
      CHECK(result.code() == ErrorCode::kNonFiniteLoss);
      CHECK(result.message() == "NN worker 0 stopped: the loss is inf");
      CHECK(Detail(result, "rank") == "0");
    }
  });
}

TEST_CASE("Buckets of different sizes or types are an error on all ranks") {
  WithEachKind([](const CollectiveKind& kind) {
    for (const bool same_size : {false, true}) {
      auto collectives = kind.Make(3, {.deadline_ms = kHourMs});
      std::vector<Status> results(3);
      RunRanks(collectives, [&](Collective& collective) {
        std::vector<float> values(100);
        std::vector<double> numbers(100);
        const size_t count = collective.rank() == 1 && !same_size ? 99 : 100;
        results[collective.rank()] = collective.rank() == 1 && same_size
                                         ? collective.Sum(numbers)
                                         : collective.AllReduce(std::span(values).first(count));
      });
      for (const Status& result : results) {
        CHECK(result.code() == ErrorCode::kConfigInvalid);
        CHECK(Detail(result, "bucket") == "0");
      }
    }
  });
}

TEST_CASE("A group of one rank sums nothing and waits for nobody") {
  WithEachKind([](const CollectiveKind& kind) {
    auto collectives = kind.Make(1, {.deadline_ms = 0});
    std::vector<float> values = Values(0, 0, 1000);
    CHECK(collectives[0]->AllReduce(values).ok());
    CHECK(SameBits(values, Values(0, 0, 1000)));
  });
}

TEST_CASE("All-reduces allocate nothing in steady state" * doctest::skip(!kCountsAllocations)) {
  constexpr uint32_t kBuckets = 40;
  constexpr uint64_t kFailed = ~uint64_t{0};
  auto collectives = MakeLocalCollectives(2);
  std::vector<uint64_t> allocations(2);
  RunRanks(collectives, [&](Collective& collective) {
    std::vector<float> values(kBuckets * 64);
    bool good = true;
    const auto step = [&](uint32_t buckets) {
      uint64_t last = 0;
      for (uint32_t i = 0; i < buckets; ++i) last = collective.Start(std::span(values).subspan(i % kBuckets * 64, 64));
      good = good && collective.Wait(last).ok();
    };
    step(2 * kBuckets);  // the most that can be open: one rank's next step, while the other still ends this one
    const uint64_t before = AllocationCount();
    for (uint32_t i = 0; i < 50; ++i) step(kBuckets);
    allocations[collective.rank()] = AllocationCount() - before;
    double both_counted[] = {0};
    if (!good || !collective.Sum(both_counted).ok()) allocations[collective.rank()] = kFailed;
  });
  CHECK(allocations == std::vector<uint64_t>{0, 0});
}

}  // namespace
}  // namespace persia
