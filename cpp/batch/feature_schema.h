// What the model knows of its id features: their row classes, groups and places in the pooled embedding matrix.
//
// A *feature group* shares one index space: the same id in two features of a group is the same sign. A *row class* is
// one table: all rows of equal dim and optimizer. The pooled embeddings of a sample are the features' vectors side by
// side, in the order of the schema: feature f is columns [offset, offset + width()).
//
// Thread-safety: immutable once built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/status.h"

namespace persia {

// kSqrt: sum / sqrt(number of ids). kMax: float by float the largest. kLast: the last id's vector. kNone: vectors of
// sequence_length ids side by side; places that a sample does not fill are masked: zeros, whose gradient goes nowhere.
enum class Pooling { kSum, kMean, kSqrt, kMax, kLast, kNone };

struct FeatureSpec {
  std::string name;
  uint32_t dim = 0;
  Pooling pooling = Pooling::kSum;
  uint32_t group = 0;            // 0-based; its prefix is group + 1
  uint32_t sequence_length = 0;  // of a sample's ids only so many count, the last ones; 0: all
  uint32_t hash_rounds = 0;      // above 0: an id's vector is the sum of so many rows (HashStackBucket)
  uint64_t hash_buckets = 0;     // of each round
  bool frozen = false;           // its gradients are not applied
  bool mask = false;             // kNone: the network learns which places are filled (batch/mask.h)
  uint32_t optimizer = 0;        // which of the model's row optimizers
  uint32_t row_class = 0;        // index into FeatureSchema::row_class_dims
  uint32_t offset = 0;           // first column in the pooled embedding matrix

  uint32_t most_ids() const { return pooling == Pooling::kLast ? 1 : sequence_length; }  // 0: any number
  uint32_t rows_per_id() const { return hash_rounds > 0 ? hash_rounds : 1; }
  uint32_t vectors() const { return pooling == Pooling::kNone ? sequence_length : 1; }
  uint32_t width() const { return vectors() * dim; }
};

struct FeatureSchema {
  std::vector<FeatureSpec> features;
  std::vector<uint32_t> row_class_dims;        // dim of each row class, in order of first use
  std::vector<uint32_t> row_class_optimizers;  // and which row optimizer
  uint32_t prefix_bits = 8;
  uint32_t group_count = 0;
  uint32_t embedding_width = 0;  // sum of all widths
  uint32_t mask_width = 0;       // sum of the sequence lengths of features with a mask
  float clip_norm = 0.0f;        // largest L2 norm of a row's gradient from one batch; 0: any
};

// Fills row_class, offset, row_class_dims, group_count, embedding_width and mask_width from the rest.
// kConfigInvalid: a dim of 0, prefix_bits outside 1..32, more groups than prefix_bits can tell apart, kNone without
// sequence_length, a mask of what is pooled, or a hash stack of rounds without buckets or of more rows than a group has
// signs.
Result<FeatureSchema> BuildFeatureSchema(std::vector<FeatureSpec> features, uint32_t prefix_bits);

// The sign of an id: the group's prefix (group + 1) in the top `prefix_bits`, the id's low bits below. Ids that
// differ only in their top `prefix_bits` share a sign; hashed ids lose nothing that matters, integer ids must be
// below 2^(64 - prefix_bits) to stay apart.
constexpr uint64_t MakeSign(uint64_t id, uint32_t group, uint32_t prefix_bits) {
  const uint32_t id_bits = 64 - prefix_bits;
  return (static_cast<uint64_t>(group + 1) << id_bits) | (id & ((uint64_t{1} << id_bits) - 1));
}

// Which of rounds · buckets rows an id has in a round of its hash stack: ids share rows, but hardly ever all of them,
// so that few rows serve any number of ids (compositional embeddings; PERSIA's hash stack). Takes the id's place in
// MakeSign.
inline uint64_t HashStackBucket(uint64_t id, uint32_t round, uint64_t buckets) {
  return round * buckets + Mix64(id + (round + 1) * 0x9e3779b97f4a7c15) % buckets;
}

}  // namespace persia
