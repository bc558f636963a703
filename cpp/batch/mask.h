// Masks: which places of an unpooled sequence a sample fills. A network that sees the vectors side by side can't tell
// an empty place, which is zeros, from a row that is; for a feature with `mask` it gets 0 and 1 among its dense inputs,
// which have no gradient.
//
// A function of the batch alone: whoever has the ids can write it, and an id counts whether its row is known or not.
//
// Thread-safety: pure.
#pragma once

#include <cstddef>

#include "batch/batch.h"
#include "batch/feature_schema.h"

namespace persia {

// Writes the masks of sample i to to + i·stride, (mask_width) f32: those of one feature after the other, in the order
// of the schema, 1 for each place that has an id. The batch was validated.
void WriteMasks(const Batch& batch, const FeatureSchema& schema, float* to, size_t stride);

}  // namespace persia
