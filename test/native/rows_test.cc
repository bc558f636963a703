#include "worker/rows.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "store/local_store.h"

namespace persia {
namespace {

// Two features that share the rows of dim 2, and one of dim 3.
FeatureSchema MakeSchema() {
  FeatureSpec first{"first", 2}, second{"second", 2}, wide{"wide", 3};
  wide.group = 1;
  return std::move(*BuildFeatureSchema({first, second, wide}, 8));
}

constexpr RowOptimizerConfig kAdagrad{.type = RowOptimizerType::kAdagrad, .lr = 1.0f, .initial_accumulator = 0.5f};

LocalStore MakeStore() {
  TableOptions options{.dim = 2, .optimizer = kAdagrad, .initializer = {}, .capacity_rows = 100};
  TableOptions wider = options;
  wider.dim = 3;
  return LocalStore({options, wider});
}

using Ids = std::vector<uint64_t>;
using Floats = std::vector<float>;

struct Found {
  Floats rows;
  std::vector<uint8_t> found;
};

Found Read(const LocalStore& store, uint32_t feature, const Ids& ids, uint32_t width) {
  Found result{Floats(ids.size() * width, 99.0f), std::vector<uint8_t>(ids.size(), 99)};
  CHECK(ReadRows(MakeSchema(), store, feature, ids, width, result.rows.data(), result.found.data()).ok());
  return result;
}

Status Write(LocalStore& store, uint32_t feature, const Ids& ids, uint32_t width, const Floats& rows) {
  return WriteRows(MakeSchema(), kAdagrad, store, feature, ids, width, rows.data());
}

TEST_CASE("embeddings that are written are read by every feature that shares them, and by no other") {
  LocalStore store = MakeStore();
  REQUIRE(Write(store, 0, {7, 8}, 2, {1, 2, 3, 4}).ok());
  const Found shared = Read(store, 1, {8, 9, 7}, 2);
  CHECK(shared.rows == Floats{3, 4, 0, 0, 1, 2});
  CHECK(shared.found == std::vector<uint8_t>{1, 0, 1});
  CHECK(Read(store, 2, {7}, 3).found == std::vector<uint8_t>{0});
  REQUIRE(Write(store, 2, {7}, 3, {5, 6, 7}).ok());
  CHECK(Read(store, 0, {7}, 2).rows == Floats{1, 2});
  CHECK(Read(store, 2, {7}, 3).rows == Floats{5, 6, 7});
}

TEST_CASE("the last row of an id that comes twice stays") {
  LocalStore store = MakeStore();
  REQUIRE(Write(store, 0, {7, 7}, 2, {1, 2, 3, 4}).ok());
  CHECK(Read(store, 0, {7, 7}, 2).rows == Floats{3, 4, 3, 4});
}

TEST_CASE("an embedding that is written gets the optimizer state of a new row, a whole row keeps its own") {
  LocalStore store = MakeStore();
  REQUIRE(Write(store, 0, {7}, 4, {1, 2, 3, 4}).ok());
  CHECK(Read(store, 0, {7}, 4).rows == Floats{1, 2, 3, 4});
  REQUIRE(Write(store, 0, {7}, 2, {8, 9}).ok());
  CHECK(Read(store, 0, {7}, 4).rows == Floats{8, 9, 0.5f, 0.5f});
}

TEST_CASE("a wrong width and values that are not finite are refused, and nothing is written") {
  LocalStore store = MakeStore();
  const Status width = Write(store, 0, {7}, 3, {1, 2, 3});
  CHECK(width.code() == ErrorCode::kUsage);
  CHECK(width.message() == "rows of first have 2 floats, or 4 with the state of their optimizer, got 3");
  const Status nan = Write(store, 0, {7, 12}, 2, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()});
  CHECK(nan.code() == ErrorCode::kUsage);
  CHECK(nan.message() == "row 1 of first (id 12) has nan at place 1; nothing was written");
  float row[3];
  uint8_t found;
  CHECK(ReadRows(MakeSchema(), store, 0, Ids{7}, 3, row, &found).code() == ErrorCode::kUsage);
  CHECK(Read(store, 0, {7}, 2).found == std::vector<uint8_t>{0});
}

TEST_CASE("reading rows doesn't count as a use of them") {
  LocalStore store = MakeStore();
  REQUIRE(Write(store, 0, {7}, 2, {1, 2}).ok());
  const uint64_t uses = store.counters(0).hits + store.counters(0).misses;
  Read(store, 0, {7, 8}, 2);
  CHECK(store.counters(0).hits + store.counters(0).misses == uses);
  CHECK(store.counters(0).rows == 1);
}

}  // namespace
}  // namespace persia
