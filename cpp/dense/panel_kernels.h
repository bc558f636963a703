// Kernels of the networks on packed matrices: packing of float32 matrices, and products with everything that follows
// them done block by block while a block is in cache. All of them for values of float32 and of bf16 (float, Bf16).
//
// Sums are of float32; each result's sum runs over its terms in order, whatever part of the result is computed at once.
// Rounding to bf16 is to nearest, ties to even; numbers below the normal range become 0.
//
// Thread-safety: pure functions on the caller's memory.
#pragma once

#include <cstdint>

#include "dense/packed.h"
#include "dense/product.h"
#include "dense/product_unit.h"

namespace persia {

enum class Operand { kLeft, kRight };

// A float32 matrix and the packed copies that are made of it: for products whose terms run along its columns and along
// its rows, each as one of their operands.
template <typename T>
struct Packing {
  Matrix<const float> from;
  uint32_t rows, columns;
  PackedView<T> along_columns;  // panels of rows, steps of columns
  PackedView<T> along_rows;     // panels of columns, steps of rows
  Operand columns_for, rows_for;
};

// Packs rows [32 · row_panel, 32 · row_panel + 32) of all columns.
template <typename T>
void PackRowPanel(ProductUnit unit, const Packing<T>& packing, uint32_t row_panel);

// What becomes of a block of the result.
template <typename T>
struct Finish {
  enum class Kind {
    kStore,  // to `out`, after `bias`, if there is one, and then max(·, 0), if `relu`
    kRelu,   // relu(· + bias), packed for the layer above: as left operand, and as right one of its weight gradient
    kMask,   // · where `activation` > 0, packed as left operand of both products of the layer below; sums of columns
  } kind;

  const float* bias = nullptr;  // (columns)
  uint32_t columns = 0;         // of the result; bias and out end there

  // kStore
  Matrix<float> out{nullptr, 0};
  uint32_t rows = 0;
  bool relu = false;

  // kRelu, kMask
  PackedView<T> along_columns{}, along_rows{};
  PackedView<T> activation{};    // kMask: of the result's shape, terms along its columns, left
  float* column_sums = nullptr;  // kMask: (panels of rows, sums_stride)
  size_t sums_stride = 0;
};

template <typename T>
struct PanelProduct {
  PackedView<T> left, right;
  uint32_t steps;  // of terms
  Finish<T> finish;
};

// A rectangle of the result's blocks, in panels.
struct PanelRange {
  uint32_t row, rows, column, columns;
};

// As many blocks of a range have room in its scratch memory: 512 KiB of the thread's stack, which no thread has to
// allocate when its first part comes, be it after a thousand steps.
constexpr uint32_t kMostBlocks = 128;

// Computes and finishes the blocks of `range`, kMostBlocks at most.
template <typename T>
void MultiplyPanels(ProductUnit unit, const PanelProduct<T>& product, const PanelRange& range);

}  // namespace persia
