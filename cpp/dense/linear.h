// A linear layer's products on a team of threads, the one place where layers meet TileGrid; and passes over a batch's
// samples split the same way.
//
//   forward:   y = x · Wᵀ
//   backward:  dW = dyᵀ · x and dx = dy · W, in one parallel loop
//
// Whatever else is to be done with a result (bias, ReLU, mask, …) is done tile by tile in their wake, while it is in
// cache.
//
// Thread-safety: externally synchronised, as the team is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "dense/product_unit.h"
#include "dense/layout.h"
#include "dense/product.h"

namespace persia {

// What the parts of a network work with: the team, and the flat arrays that their layers' offsets point into.
struct Team {
  ThreadPool& pool;
  uint32_t tiles;  // that a product is cut into at most
  const float* parameters;
  float* gradients;
  ProductUnit unit;                 // multiplies what the config's precision is about; the rest is the library's
  const uint64_t* weights_version;  // counts the changes of parameters: copies of an older version are stale

  const float* weight(const Layer& layer) const { return parameters + layer.weight; }
  const float* bias(const Layer& layer) const { return parameters + layer.bias; }
  float* weight_gradient(const Layer& layer) const { return gradients + layer.weight; }
  float* bias_gradient(const Layer& layer) const { return gradients + layer.bias; }
};

// Computes y (rows, out) from x (rows, in) and calls finish(tile) after each tile of it.
template <typename Finish>
void LinearForward(const Team& team, const Layer& layer, uint32_t rows, Matrix<const float> x, float* y,
                   const Finish& finish) {
  const Product product{ProductForm::kNt, layer.in, x, {team.weight(layer), layer.in}, {y, layer.out}};
  const TileGrid grid(rows, layer.out, layer.in, team.tiles);
  team.pool.ParallelFor(grid.parts(), [&](uint32_t part) {
    const Tile tile = grid[part];
    ComputeTile(product, tile);
    finish(tile);
  });
}

// Computes the weight gradient from x (rows, in) and dy (rows, out); the gradient of the first dx_width columns of x
// goes to dx (rows, dx_width), or is added to it. Calls finish(tile) after each tile of dx and returns their bands.
template <typename Finish>
uint32_t LinearBackward(const Team& team, const Layer& layer, uint32_t rows, Matrix<const float> x,
                        Matrix<const float> dy, Matrix<float> dx, uint32_t dx_width, bool adds, const Finish& finish) {
  const Matrix<const float> weight{team.weight(layer), layer.in};
  const Product weights{ProductForm::kTn, rows, dy, x, {team.weight_gradient(layer), layer.in}};
  const Product inputs{ProductForm::kNn, layer.out, dy, weight, dx, adds};
  const TileGrid weights_grid(layer.out, layer.in, rows, team.tiles);
  const TileGrid inputs_grid(rows, dx_width, layer.out, team.tiles);
  const uint32_t inputs_parts = dx_width > 0 ? inputs_grid.parts() : 0;

  team.pool.ParallelFor(weights_grid.parts() + inputs_parts, [&](uint32_t part) {
    if (part < weights_grid.parts()) return ComputeTile(weights, weights_grid[part]);
    const Tile tile = inputs_grid[part - weights_grid.parts()];
    ComputeTile(inputs, tile);
    finish(tile);
  });
  return inputs_grid.row_parts();
}

inline constexpr auto kNothingMore = [](const Tile&) {};

// Bands of samples have a fixed height: what a pass adds up over samples it adds up by band, so that results don't
// depend on the number of threads.
constexpr uint32_t kBandRows = 128;

inline uint32_t BandCount(uint32_t rows) { return (rows + kBandRows - 1) / kBandRows; }

// Calls body(band, first row, rows) for each band of a batch, in parallel.
template <typename Body>
void ForEachBand(ThreadPool& pool, uint32_t rows, const Body& body) {
  pool.ParallelFor(BandCount(rows), [&](uint32_t band) {
    const uint32_t begin = band * kBandRows;
    body(band, begin, std::min(kBandRows, rows - begin));
  });
}

// sum[i] = the sum of parts[part][i] over all parts, always in the same order; `parts` is (count, width).
inline void SumParts(const float* parts, uint32_t count, uint32_t width, float* sum) {
  std::copy_n(parts, width, sum);
  for (uint32_t part = 1; part < count; ++part) {
    const float* more = parts + size_t{part} * width;
    for (uint32_t i = 0; i < width; ++i) sum[i] += more[i];
  }
}

}  // namespace persia
