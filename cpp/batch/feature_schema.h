// What the model knows of its id features: their row classes, groups and places in the pooled embedding matrix.
//
// A *feature group* shares one index space: the same id in two features of a group is the same sign. A *row class* is
// one table: all rows of equal dim. The pooled embeddings of a sample are the features' vectors side by side, in the
// order of the schema: feature f is columns [offset, offset + dim).
//
// Thread-safety: immutable once built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace persia {

enum class Pooling { kSum, kMean, kSqrt };  // kSqrt: sum / sqrt(number of ids)

struct FeatureSpec {
  std::string name;
  uint32_t dim = 0;
  Pooling pooling = Pooling::kSum;
  uint32_t group = 0;      // 0-based; its prefix is group + 1
  uint32_t row_class = 0;  // index into FeatureSchema::row_class_dims
  uint32_t offset = 0;     // first column in the pooled embedding matrix
};

struct FeatureSchema {
  std::vector<FeatureSpec> features;
  std::vector<uint32_t> row_class_dims;  // dim of each row class, in order of first use
  uint32_t prefix_bits = 8;
  uint32_t group_count = 0;
  uint32_t embedding_width = 0;  // sum of all dims
};

// Fills row_class, offset, row_class_dims, group_count and embedding_width from name, dim, pooling and group.
// kConfigInvalid: a dim of 0, prefix_bits outside 1..32, or more groups than prefix_bits can tell apart.
Result<FeatureSchema> BuildFeatureSchema(std::vector<FeatureSpec> features, uint32_t prefix_bits);

// The sign of an id: the group's prefix (group + 1) in the top `prefix_bits`, the id's low bits below. Ids that
// differ only in their top `prefix_bits` share a sign; hashed ids lose nothing that matters, integer ids must be
// below 2^(64 - prefix_bits) to stay apart.
constexpr uint64_t MakeSign(uint64_t id, uint32_t group, uint32_t prefix_bits) {
  const uint32_t id_bits = 64 - prefix_bits;
  return (static_cast<uint64_t>(group + 1) << id_bits) | (id & ((uint64_t{1} << id_bits) - 1));
}

}  // namespace persia
