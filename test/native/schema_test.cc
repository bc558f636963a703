#include "batch/feature_schema.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace persia {
namespace {

FeatureSpec Feature(const std::string& name, uint32_t dim, uint32_t group) {
  return {.name = name, .dim = dim, .group = group};
}

TEST_CASE("features of equal dim share a row class, and columns follow the order of the features") {
  auto built = BuildFeatureSchema({Feature("a", 8, 0), Feature("b", 16, 1), Feature("c", 8, 2)}, 8);
  REQUIRE(built.ok());
  const FeatureSchema& schema = built.value();
  CHECK(schema.row_class_dims == std::vector<uint32_t>{8, 16});
  CHECK(schema.features[0].row_class == 0);
  CHECK(schema.features[1].row_class == 1);
  CHECK(schema.features[2].row_class == 0);
  CHECK(schema.features[0].offset == 0);
  CHECK(schema.features[1].offset == 8);
  CHECK(schema.features[2].offset == 24);
  CHECK(schema.embedding_width == 32);
  CHECK(schema.group_count == 3);
  CHECK(schema.prefix_bits == 8);
}

TEST_CASE("a model without id features has an empty schema") {
  auto built = BuildFeatureSchema({}, 8);
  REQUIRE(built.ok());
  CHECK(built.value().embedding_width == 0);
  CHECK(built.value().group_count == 0);
}

TEST_CASE("a feature of dim 0 is refused by name") {
  const auto built = BuildFeatureSchema({Feature("ok", 8, 0), Feature("bad", 0, 1)}, 8);
  REQUIRE(!built.ok());
  CHECK(built.status().code() == ErrorCode::kConfigInvalid);
  CHECK(built.status().message().find("\"bad\"") != std::string::npos);
}

TEST_CASE("prefix bits outside 1 to 32 are refused") {
  CHECK(BuildFeatureSchema({}, 0).status().code() == ErrorCode::kConfigInvalid);
  CHECK(BuildFeatureSchema({}, 33).status().code() == ErrorCode::kConfigInvalid);
  CHECK(BuildFeatureSchema({}, 1).ok());
  CHECK(BuildFeatureSchema({}, 32).ok());
}

TEST_CASE("more groups than the prefix can tell apart are refused, the last one that fits is taken") {
  CHECK(BuildFeatureSchema({Feature("a", 8, 254)}, 8).ok());
  const auto built = BuildFeatureSchema({Feature("a", 8, 255)}, 8);
  REQUIRE(!built.ok());
  CHECK(built.status().message().find("group 256") != std::string::npos);
  CHECK(built.status().message().find("255 groups") != std::string::npos);
  CHECK(BuildFeatureSchema({Feature("a", 8, UINT32_MAX)}, 32).status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("dims that overflow the width of the embedding matrix are refused") {
  const auto built = BuildFeatureSchema({Feature("a", UINT32_MAX, 0), Feature("b", 1, 0)}, 8);
  CHECK(built.status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("an unpooled feature has as many columns as its sequences have floats") {
  FeatureSpec sequence = Feature("visited", 8, 0);
  sequence.pooling = Pooling::kNone;
  CHECK(BuildFeatureSchema({sequence}, 8).status().message().find("\"visited\" is not pooled") != std::string::npos);
  sequence.sequence_length = 5;
  const auto built = BuildFeatureSchema({sequence, Feature("user", 8, 1)}, 8);
  REQUIRE(built.ok());
  CHECK(built.value().features[1].offset == 40);
  CHECK(built.value().embedding_width == 48);
  sequence.sequence_length = sequence.dim = 1u << 16;
  CHECK(BuildFeatureSchema({sequence}, 8).status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("a hash stack needs rounds and buckets, and no more rows than a group has signs") {
  FeatureSpec stacked = Feature("user", 8, 0);
  stacked.hash_rounds = 3;
  CHECK(BuildFeatureSchema({stacked}, 8).status().message().find("3 rounds with 0 buckets") != std::string::npos);
  stacked.hash_buckets = uint64_t{1} << 54;
  CHECK(BuildFeatureSchema({stacked}, 8).ok());
  stacked.hash_buckets = uint64_t{1} << 55;
  CHECK(BuildFeatureSchema({stacked}, 8).status().message().find("signs of a group") != std::string::npos);
}

TEST_CASE("the buckets of a hash stack are spread over each round, apart from the other rounds'") {
  std::vector<uint32_t> ids(12);
  for (uint64_t id = 0; id < 4000; ++id) {
    for (uint32_t round = 0; round < 3; ++round) {
      const uint64_t bucket = HashStackBucket(id, round, 4);
      REQUIRE(bucket / 4 == round);
      ++ids[bucket];
    }
  }
  for (const uint32_t count : ids) CHECK((count > 850 && count < 1150));  // 1000 expected, 5 standard deviations
}

TEST_CASE("a sign is the group's prefix above the id's low bits") {
  CHECK(MakeSign(0x1234, 0, 8) == 0x0100000000001234u);
  CHECK(MakeSign(0x1234, 254, 8) == 0xff00000000001234u);
  CHECK(MakeSign(UINT64_MAX, 1, 8) == 0x02ffffffffffffffu);
  CHECK(MakeSign(7, 0, 1) == 0x8000000000000007u);
  CHECK(MakeSign(UINT64_MAX, 0, 32) == 0x00000001ffffffffu);
}

TEST_CASE("ids that differ only in the prefix bits share a sign, and groups never do") {
  CHECK(MakeSign(5, 3, 8) == MakeSign(5 | (uint64_t{9} << 56), 3, 8));
  CHECK(MakeSign(5, 3, 8) != MakeSign(5, 4, 8));
  CHECK(MakeSign(0, 0, 8) != MakeSign((uint64_t{1} << 56) - 1, 0, 8));  // the ends of the id range stay apart
}

}  // namespace
}  // namespace persia
