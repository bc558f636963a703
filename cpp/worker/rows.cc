#include "worker/rows.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace persia {
namespace {

Status CheckWidth(const FeatureSpec& feature, uint32_t row_width, uint32_t width) {
  if (width == feature.dim || width == row_width) return Status::Ok();
  return Status(ErrorCode::kUsage, "rows of " + feature.name + " have " + std::to_string(feature.dim) +
                                       " floats, or " + std::to_string(row_width) +
                                       " with the state of their optimizer, got " + std::to_string(width))
      .With("feature", feature.name);
}

Status CheckFinite(const FeatureSpec& feature, std::span<const uint64_t> ids, uint32_t width, const float* rows) {
  for (size_t i = 0; i < ids.size() * width; ++i) {
    if (std::isfinite(rows[i])) continue;
    const size_t row = i / width;
    return Status(ErrorCode::kUsage, "row " + std::to_string(row) + " of " + feature.name + " (id " +
                                         std::to_string(ids[row]) + ") has " + std::to_string(rows[i]) +
                                         " at place " + std::to_string(i % width) + "; nothing was written")
        .With("feature", feature.name)
        .With("row", std::to_string(row));
  }
  return Status::Ok();
}

}  // namespace

Status ReadRows(const FeatureSchema& schema, const ParameterStore& store, uint32_t feature,
                std::span<const uint64_t> ids, uint32_t width, float* rows, uint8_t* found) {
  const FeatureSpec& spec = schema.features[feature];
  const uint32_t row_width = store.row_width(spec.row_class);
  PERSIA_RETURN_IF_ERROR(CheckWidth(spec, row_width, width));
  std::vector<float> row(row_width);
  for (size_t i = 0; i < ids.size(); ++i, rows += width) {
    Result<bool> read = store.Read(spec.row_class, MakeSign(ids[i], spec.group, schema.prefix_bits), row);
    if (!read.ok()) return read.status();
    found[i] = *read ? 1 : 0;
    if (!*read) std::fill(row.begin(), row.end(), 0.0f);
    std::copy_n(row.begin(), width, rows);
  }
  return Status::Ok();
}

Status WriteRows(const FeatureSchema& schema, const RowOptimizerConfig& optimizer, ParameterStore& store,
                 uint32_t feature, std::span<const uint64_t> ids, uint32_t width, const float* rows) {
  const FeatureSpec& spec = schema.features[feature];
  const uint32_t row_width = store.row_width(spec.row_class);
  PERSIA_RETURN_IF_ERROR(CheckWidth(spec, row_width, width));
  PERSIA_RETURN_IF_ERROR(CheckFinite(spec, ids, width, rows));
  const RowOptimizer states(optimizer, spec.dim);
  std::vector<float> row(row_width);
  for (size_t i = 0; i < ids.size(); ++i, rows += width) {
    std::copy_n(rows, width, row.begin());
    if (width < row_width) states.InitState(row.data());
    PERSIA_RETURN_IF_ERROR(store.Write(spec.row_class, MakeSign(ids[i], spec.group, schema.prefix_bits), row));
  }
  return Status::Ok();
}

}  // namespace persia
