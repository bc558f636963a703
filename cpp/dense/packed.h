// Operands of products in the order in which the product reads them.
//
// A product c = Σ over terms of left · right is computed in blocks of 32 × 32 results, 32 terms a step. An operand is
// cut into panels (32 rows of c for the left one, 32 columns of c for the right one) and each panel into steps; the
// values of one panel and step are a block, 4 KiB of float32 or 2 KiB of bf16:
//
//   float32  left   [i][term]              row i of the panel
//            right  [term][j]              column j of the panel
//   bf16     left   tile t: [i][term]      row 16t + i of the panel, i < 16; term < 32
//            right  tile t: [pair][j][0,1] column 16t + j of the panel; terms 2 · pair and 2 · pair + 1
//
// Tiles are 16 × 32 values of bf16 each, one load of AMX's tile registers. So of a matrix each 32 × 32 square is packed
// in one of four forms, by the operand that it is part of and by whether the terms run along its columns or along its
// rows. What is beyond the matrix's edge is 0.
//
// Thread-safety: values; a matrix is externally synchronised.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"

namespace persia {

using Bf16 = uint16_t;  // its bits: the upper half of a float32

constexpr uint32_t kPanel = 32;              // rows or columns of the result in a panel, and terms in a step
constexpr size_t kBlock = kPanel * kPanel;   // values in a block
constexpr uint32_t kLine = 64;               // bytes, of a cache

inline uint32_t PanelCount(uint32_t width) { return (width + kPanel - 1) / kPanel; }

// Steps of a panel that are multiplied before the next block's turn, 16 KiB: two panels' fit the nearest cache.
template <typename T>
constexpr uint32_t kRoundSteps = (16u << 10) / (kBlock * sizeof(T));

// A packed matrix in memory, of float or Bf16; block(panel, step) has kBlock values.
template <typename T>
struct PackedView {
  T* data = nullptr;
  size_t stride = 0;  // values from a panel to the next

  T* block(uint32_t panel, uint32_t step) const { return data + panel * stride + step * kBlock; }
};

// What the block of a result after this one begins with.
template <typename T>
struct NextBlock {
  const T* left;
  const float* c;
};

template <typename T>
class PackedMatrix {
 public:
  // Contents are undefined afterwards.
  void Resize(uint32_t panels, uint32_t steps) {
    stride_ = StrideSteps(steps) * kBlock;
    values_.Resize(panels * stride_);
  }

  PackedView<T> view() { return {values_.data(), stride_}; }

 private:
  // An odd multiple of 16 KiB where panels are longer than that: those of 2^n KiB would lie on the same few lines of
  // a cache, and evict each other.
  static size_t StrideSteps(uint32_t steps) {
    constexpr size_t kSpread = kRoundSteps<T>;
    if (steps <= kSpread) return steps;
    return ((steps + kSpread - 1) / kSpread | 1) * kSpread;
  }

  AlignedBuffer<T> values_;
  size_t stride_ = 0;
};

}  // namespace persia
