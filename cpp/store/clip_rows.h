// Clipping of row gradients.
#pragma once

#include <cstdint>

namespace persia {

// Scales each of (count, dim) rows down to the L2 norm where it is longer; 0: none is.
void ClipRows(uint32_t count, uint32_t dim, float norm, float* rows);

}  // namespace persia
