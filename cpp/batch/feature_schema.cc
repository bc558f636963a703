#include "batch/feature_schema.h"

#include <algorithm>
#include <utility>

namespace persia {
namespace {

// The index of the table for the feature's rows, a new one when none before has its dim and optimizer.
uint32_t RowClassOf(const FeatureSpec& feature, FeatureSchema& schema) {
  const auto classes = static_cast<uint32_t>(schema.row_class_dims.size());
  for (uint32_t c = 0; c < classes; ++c) {
    if (schema.row_class_dims[c] == feature.dim && schema.row_class_optimizers[c] == feature.optimizer) return c;
  }
  schema.row_class_dims.push_back(feature.dim);
  schema.row_class_optimizers.push_back(feature.optimizer);
  return classes;
}

// What is wrong with a feature by itself.
Status ValidateFeature(const FeatureSpec& feature, uint32_t prefix_bits) {
  const auto invalid = [&](const std::string& what) {
    return Status(ErrorCode::kConfigInvalid, "Feature \"" + feature.name + "\" " + what).With("feature", feature.name);
  };
  // Prefix 0 belongs to no group, so that sign 0 never stands for an id.
  const uint64_t most_groups = (uint64_t{1} << prefix_bits) - 1;
  if (feature.dim == 0) return invalid("has dim 0; a row needs at least 1.");
  if (feature.group >= most_groups) {
    return invalid("is in group " + std::to_string(uint64_t{feature.group} + 1) + ", but " +
                   std::to_string(prefix_bits) + " prefix bits tell only " + std::to_string(most_groups) +
                   " groups apart. Use more prefix bits.");
  }
  if (feature.pooling == Pooling::kNone && feature.sequence_length == 0) {
    return invalid("is not pooled, so it needs the length of its sequences.");
  }
  if (feature.mask && feature.pooling != Pooling::kNone) {
    return invalid("is pooled, so there are no places to mask.");
  }
  if ((feature.hash_rounds > 0) != (feature.hash_buckets > 0)) {
    return invalid("has a hash stack of " + std::to_string(feature.hash_rounds) + " rounds with " +
                   std::to_string(feature.hash_buckets) + " buckets; both must be above 0.");
  }
  const uint64_t ids = uint64_t{1} << (64 - prefix_bits);
  if (feature.hash_rounds > 0 && feature.hash_buckets > ids / feature.hash_rounds) {
    return invalid("has a hash stack of more rows than the " + std::to_string(ids) + " signs of a group.");
  }
  return Status::Ok();
}

}  // namespace

Result<FeatureSchema> BuildFeatureSchema(std::vector<FeatureSpec> features, uint32_t prefix_bits) {
  if (prefix_bits < 1 || prefix_bits > 32) {
    return Status(ErrorCode::kConfigInvalid,
                  "The prefix of a feature group takes 1 to 32 bits, not " + std::to_string(prefix_bits) + ".");
  }
  FeatureSchema schema;
  schema.prefix_bits = prefix_bits;
  uint64_t width = 0;
  for (FeatureSpec& feature : features) {
    PERSIA_RETURN_IF_ERROR(ValidateFeature(feature, prefix_bits));
    feature.row_class = RowClassOf(feature, schema);
    feature.offset = static_cast<uint32_t>(width);
    width += uint64_t{feature.vectors()} * feature.dim;
    if (feature.mask) schema.mask_width += feature.sequence_length;
    if (width > UINT32_MAX) {
      return Status(ErrorCode::kConfigInvalid, "The embeddings of all features together are wider than 2^32 - 1.");
    }
    schema.group_count = std::max(schema.group_count, feature.group + 1);
  }
  schema.embedding_width = static_cast<uint32_t>(width);
  schema.features = std::move(features);
  return schema;
}

}  // namespace persia
