// Masks: which places of an unpooled sequence a sample fills. A network that sees the vectors side by side can't tell
// an empty place, which is zeros, from a row that is; for a feature with `mask` it gets 0 and 1 among its dense inputs,
// which have no gradient.
//
// A function of the batch alone: whoever has the ids can write it, and an id counts whether its row is known or not.
// Places are filled from the first on, so how many of them are says all: that is what travels between processes.
//
// Thread-safety: pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "batch/batch.h"
#include "batch/feature_schema.h"

namespace persia {

uint32_t MaskedFeatures(const FeatureSchema& schema);

// How many places each sample fills, (rows, masked features), in the order of the schema. The batch was validated.
std::vector<uint32_t> FilledPlaces(const Batch& batch, const FeatureSchema& schema);

// Writes the masks of sample i to to + i·stride, (mask_width) f32: those of one feature after the other, in the order
// of the schema, 1 for each place that is filled. `filled` is (rows, masked features); more than there is room for
// counts as full.
void WriteMasks(const uint32_t* filled, uint32_t rows, const FeatureSchema& schema, float* to, size_t stride);
// Those of a batch.
void WriteMasks(const Batch& batch, const FeatureSchema& schema, float* to, size_t stride);

}  // namespace persia
