#include "dense/panel_grid.h"

#include <algorithm>

namespace persia {

// Takes the range that is done first: on each thread so many rounds of its blocks' products, and the operands that they
// fetch from a cache which all share.
PanelGrid::PanelGrid(uint32_t rows, uint32_t columns, uint32_t steps, uint32_t threads)
    : rows_(rows), columns_(columns), height_(1), width_(1) {
  constexpr uint32_t kEdges[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
  // Below this many steps of blocks (a few microseconds) a second thread costs more than it saves.
  constexpr uint64_t kSmallestSplit = 64;
  if (uint64_t{rows} * columns * steps < kSmallestSplit) threads = 1;
  uint64_t least = UINT64_MAX;
  for (const uint32_t tall : kEdges) {
    for (const uint32_t wide : kEdges) {
      const uint32_t height = std::clamp(rows, 1u, tall), width = std::clamp(columns, 1u, wide);
      if (height * width > kMostBlocks) continue;
      const uint64_t parts = uint64_t{(rows + height - 1) / height} * ((columns + width - 1) / width);
      const uint64_t cost = (parts + threads - 1) / threads * (height * width + height + width);
      if (cost >= least) continue;
      least = cost;
      height_ = height;
      width_ = width;
    }
  }
  row_parts_ = (rows + height_ - 1) / height_;
  column_parts_ = (columns + width_ - 1) / width_;
}

PanelRange PanelGrid::operator[](uint32_t part) const {
  const uint32_t row = part % row_parts_ * height_, column = part / row_parts_ * width_;
  return {row, std::min(height_, rows_ - row), column, std::min(width_, columns_ - column)};
}

}  // namespace persia
