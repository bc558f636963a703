#include "batch/mask.h"

#include <algorithm>

namespace persia {

void WriteMasks(const Batch& batch, const FeatureSchema& schema, float* to, size_t stride) {
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const FeatureSpec& feature = schema.features[f];
    if (!feature.mask) continue;
    const IdColumn& column = batch.id_columns[f];
    for (uint32_t row = 0; row < batch.rows; ++row) {
      float* places = to + row * stride;
      const uint32_t filled = std::min(column.end(row) - column.begin(row), feature.sequence_length);
      std::fill_n(places, filled, 1.0f);
      std::fill_n(places + filled, feature.sequence_length - filled, 0.0f);
    }
    to += feature.sequence_length;
  }
}

}  // namespace persia
