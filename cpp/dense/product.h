// Matrix products split into tiles of the result, one library call a tile, so that our own threads run a serial
// library.
//
// All matrices are row-major f32. A caller runs the tiles of a TileGrid in parallel and goes over each tile right
// after its product, while it is still in cache. A grid depends on sizes and the wanted number of tiles only,
// never on timing: results are bit-identical from run to run.
//
// Thread-safety: pure functions on the caller's memory; different tiles of one product may be computed at the same
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/cpu.h"

namespace persia {

// Part of a result matrix: rows [row, row + rows), columns [column, column + columns).
struct Tile {
  uint32_t row, rows, column, columns;
  uint32_t row_part;  // index of the tile's band of rows within the grid
};

class TileGrid {
 public:
  // Splits a (rows, columns) result whose entries are sums over `inner` terms into `tiles`; one where the work is too
  // small to pay for waking a thread.
  TileGrid(uint32_t rows, uint32_t columns, uint32_t inner, uint32_t tiles);

  uint32_t parts() const { return row_parts_ * column_parts_; }
  uint32_t row_parts() const { return row_parts_; }
  Tile operator[](uint32_t part) const;

 private:
  uint32_t rows_, columns_;
  uint32_t row_parts_ = 1, column_parts_ = 1;
};

// A matrix in memory: the entry of (row, column) is data[row · stride + column].
template <typename T>
struct Matrix {
  T* data;
  size_t stride;

  T* at(uint32_t row, uint32_t column) const { return data + row * stride + column; }
  Matrix from(uint32_t row, uint32_t column) const { return {at(row, column), stride}; }
};

// What is multiplied: c = a · bᵀ (layer forward), a · b (gradient of the input), aᵀ · b (gradient of the weights).
enum class ProductForm { kNt, kNn, kTn };

struct Product {
  ProductForm form;
  uint32_t inner;  // terms of each sum
  Matrix<const float> a;
  Matrix<const float> b;
  Matrix<float> c;
  bool adds = false;  // to what c holds, instead of replacing it
};

// Computes one tile of c.
void ComputeTile(const Product& product, const Tile& tile);

// The library's kernels that products run on here, by the CPU that they were written for: "Haswell", "Zen", …
std::string_view ProductKernels();

// Those to take in place of what the library chose for a CPU that it doesn't know; null: it chose well.
const char* KernelsInstead(std::string_view chosen, SimdLevel simd);

}  // namespace persia
