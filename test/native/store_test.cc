#include "store/local_store.h"

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "base/named_thread.h"

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
  const std::vector<RequestId> applied = store.AppliedRequests();
  REQUIRE(applied.size() == 2);
  CHECK(applied[0].worker == 1);
  CHECK(applied[0].sequence == 2);
  CHECK(applied[1].worker == 5);
  CHECK(applied[1].sequence == 1);

  LocalStore restored = MakeStore();
  LookupClass0(restored, LookupMode::kTrain);
  const GradientBlock nothing{0, {}, nullptr};
  REQUIRE(restored.Apply({9, 1}, {&nothing, 1}).ok());
  restored.RestoreAppliedRequests(applied);
  CHECK(restored.AppliedRequests().size() == 2);  // worker 9 is not part of the checkpoint
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
  REQUIRE(store.Scan(1, [&](uint64_t sign, std::span<const float> values) {
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
  CHECK(store.Scan(2, [](uint64_t, std::span<const float>) {}).code() == ErrorCode::kUsage);
}

}  // namespace
}  // namespace persia
