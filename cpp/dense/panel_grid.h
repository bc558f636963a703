// The blocks of a result of packed operands (dense/packed.h), cut into ranges that threads compute at the same time.
// Results don't depend on the cut.
//
// Thread-safety: values.
#pragma once

#include <cstdint>

#include "dense/panel_kernels.h"

namespace persia {

class PanelGrid {
 public:
  // For a result of (rows, columns) panels whose sums run over `steps`; an empty result has no parts.
  PanelGrid(uint32_t rows, uint32_t columns, uint32_t steps, uint32_t threads);

  uint32_t parts() const { return row_parts_ * column_parts_; }
  PanelRange operator[](uint32_t part) const;

 private:
  const uint32_t rows_, columns_;
  uint32_t height_, width_;  // of a range
  uint32_t row_parts_, column_parts_;
};

}  // namespace persia
