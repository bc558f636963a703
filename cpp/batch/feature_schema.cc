#include "batch/feature_schema.h"

#include <algorithm>
#include <utility>

namespace persia {
namespace {

// The index of the table for rows of `dim`, a new one when no feature before had this dim.
uint32_t RowClassOf(uint32_t dim, std::vector<uint32_t>& dims) {
  const auto found = std::find(dims.begin(), dims.end(), dim);
  const auto row_class = static_cast<uint32_t>(found - dims.begin());
  if (found == dims.end()) dims.push_back(dim);
  return row_class;
}

}  // namespace

Result<FeatureSchema> BuildFeatureSchema(std::vector<FeatureSpec> features, uint32_t prefix_bits) {
  if (prefix_bits < 1 || prefix_bits > 32) {
    return Status(ErrorCode::kConfigInvalid,
                  "The prefix of a feature group takes 1 to 32 bits, not " + std::to_string(prefix_bits) + ".");
  }
  FeatureSchema schema;
  schema.prefix_bits = prefix_bits;
  // Prefix 0 belongs to no group, so that sign 0 never stands for an id.
  const uint64_t most_groups = (uint64_t{1} << prefix_bits) - 1;
  uint64_t width = 0;
  for (FeatureSpec& feature : features) {
    if (feature.dim == 0) {
      return Status(ErrorCode::kConfigInvalid, "Feature \"" + feature.name + "\" has dim 0; a row needs at least 1.")
          .With("feature", feature.name);
    }
    if (feature.group >= most_groups) {
      return Status(ErrorCode::kConfigInvalid, "Feature \"" + feature.name + "\" is in group " +
                                                   std::to_string(uint64_t{feature.group} + 1) + ", but " +
                                                   std::to_string(prefix_bits) + " prefix bits tell only " +
                                                   std::to_string(most_groups) + " groups apart. Use more prefix bits.")
          .With("feature", feature.name);
    }
    feature.row_class = RowClassOf(feature.dim, schema.row_class_dims);
    feature.offset = static_cast<uint32_t>(width);
    width += feature.dim;
    if (width > UINT32_MAX) {
      return Status(ErrorCode::kConfigInvalid, "The dims of all features together exceed 2^32 - 1.");
    }
    schema.group_count = std::max(schema.group_count, feature.group + 1);
  }
  schema.embedding_width = static_cast<uint32_t>(width);
  schema.features = std::move(features);
  return schema;
}

}  // namespace persia
