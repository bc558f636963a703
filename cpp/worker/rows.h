// Rows by feature and id, for `table.get` and `table.set`: reads and writes many in one call.
//
// Rows are (n, width) f32. With width = dim they are embeddings alone: a row that is written so gets the optimizer
// state of a new row with these weights. With width = row_width they are whole rows, the state behind the embedding
// (table/row_optimizer.h), and come back as they were.
//
// Thread-safety: as the store's, internally synchronised: calls may run beside training. A row is read and written
// whole; the rows of a call are not one unit.
#pragma once

#include <cstdint>
#include <span>

#include "batch/feature_schema.h"
#include "store/parameter_store.h"

namespace persia {

// Reads without an effect on recency. `found` is (n): whether there is such a row; where there is none, it reads as
// zeros. kUsage: `width` is neither of the two.
Status ReadRows(const FeatureSchema& schema, const ParameterStore& store, uint32_t feature,
                std::span<const uint64_t> ids, uint32_t width, float* rows, uint8_t* found);

// Inserts or replaces rows as the most recent ones, whatever admission says; at capacity others are evicted. Of an id
// that comes twice the last row stays. kUsage, with nothing written: `width` is neither of the two, or a value is not
// finite.
Status WriteRows(const FeatureSchema& schema, const RowOptimizerConfig& optimizer, ParameterStore& store,
                 uint32_t feature, std::span<const uint64_t> ids, uint32_t width, const float* rows);

}  // namespace persia
