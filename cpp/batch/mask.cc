#include "batch/mask.h"

#include <algorithm>

namespace persia {
namespace {

void WriteMask(uint32_t filled, uint32_t length, float* places) {
  filled = std::min(filled, length);
  std::fill_n(places, filled, 1.0f);
  std::fill_n(places + filled, length - filled, 0.0f);
}

}  // namespace

uint32_t MaskedFeatures(const FeatureSchema& schema) {
  return static_cast<uint32_t>(std::ranges::count(schema.features, true, &FeatureSpec::mask));
}

std::vector<uint32_t> FilledPlaces(const Batch& batch, const FeatureSchema& schema) {
  const uint32_t masked = MaskedFeatures(schema);
  std::vector<uint32_t> filled(size_t{batch.rows} * masked);
  for (size_t f = 0, at = 0; f < schema.features.size(); ++f) {
    if (!schema.features[f].mask) continue;
    const IdColumn& column = batch.id_columns[f];
    for (uint32_t row = 0; row < batch.rows; ++row) filled[row * masked + at] = column.end(row) - column.begin(row);
    ++at;
  }
  return filled;
}

void WriteMasks(const uint32_t* filled, uint32_t rows, const FeatureSchema& schema, float* to, size_t stride) {
  for (uint32_t row = 0; row < rows; ++row, to += stride) {
    float* places = to;
    for (const FeatureSpec& feature : schema.features) {
      if (!feature.mask) continue;
      WriteMask(*filled++, feature.sequence_length, places);
      places += feature.sequence_length;
    }
  }
}

void WriteMasks(const Batch& batch, const FeatureSchema& schema, float* to, size_t stride) {
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const FeatureSpec& feature = schema.features[f];
    if (!feature.mask) continue;
    const IdColumn& column = batch.id_columns[f];
    for (uint32_t row = 0; row < batch.rows; ++row) {
      WriteMask(column.end(row) - column.begin(row), feature.sequence_length, to + row * stride);
    }
    to += feature.sequence_length;
  }
}

}  // namespace persia
