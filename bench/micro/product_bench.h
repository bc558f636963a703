// Products of single layers of the reference network, for micro benchmarks.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>

#include "base/aligned_buffer.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "dense/panel_grid.h"
#include "dense/panel_kernels.h"
#include "reference_ffnn.h"

namespace persia {

// A (height, width) result whose sums run over `terms`.
struct LayerProduct {
  uint32_t rows, in, out;
  size_t layer;
  ProductForm form;
  uint32_t height, width, terms;

  double flops() const { return 2.0 * height * width * terms; }
  std::string name() const {
    return std::to_string(in) + " -> " + std::to_string(out) +
           (form == ProductForm::kNt ? " forward" : form == ProductForm::kTn ? " weights" : " input");
  }
};

// state.range(0) rows, range(1) which layer, range(2) which form.
inline LayerProduct LayerProductOf(const benchmark::State& state) {
  const auto rows = static_cast<uint32_t>(state.range(0));
  const auto layer = static_cast<size_t>(state.range(1));
  const auto form = static_cast<ProductForm>(state.range(2));
  const uint32_t in = layer == 0 ? kEmbeddingWidth + kDenseCount : kHidden[layer - 1], out = kHidden[layer];
  LayerProduct product{rows, in, out, layer, form, rows, out, in};
  if (form == ProductForm::kTn) product.height = out, product.width = in, product.terms = rows;
  if (form == ProductForm::kNn) product.width = layer == 0 ? kEmbeddingWidth : in, product.terms = out;
  return product;
}

// Times compute(), with its share of what peak(), FLOP/s, gives around it.
template <typename Compute, typename Peak>
void TimeProduct(benchmark::State& state, const LayerProduct& product, const Compute& compute, const Peak& peak) {
  double share = 0;
  for (auto _ : state) {
    const double before = peak(), start = NowSeconds();
    compute();
    const double seconds = NowSeconds() - start;
    state.SetIterationTime(seconds);
    share += product.flops() / seconds / std::max(before, peak());
  }
  state.counters["FLOP/s"] = benchmark::Counter(product.flops(), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of peak"] = share / static_cast<double>(state.iterations());
}

template <typename T>
PackedMatrix<T> Filled(uint32_t panels, uint32_t steps, T value) {
  PackedMatrix<T> matrix;
  matrix.Resize(panels, steps);
  for (uint32_t panel = 0; panel < panels; ++panel) std::fill_n(matrix.view().block(panel, 0), steps * kBlock, value);
  return matrix;
}

// A product of packed operands, stored in float32. `one` is 1; peak(pool) gives FLOP/s of a team's threads.
template <typename T, typename Peak>
void TimePanelProduct(benchmark::State& state, ProductUnit unit, T one, const Peak& peak) {
  const LayerProduct layer = LayerProductOf(state);
  const uint32_t height = PanelCount(layer.height), width = PanelCount(layer.width), terms = PanelCount(layer.terms);
  PackedMatrix<T> left = Filled(height, terms, one), right = Filled(width, terms, one);
  AlignedBuffer<float> result(size_t{layer.height} * layer.width);
  const PanelProduct<T> product{left.view(), right.view(), terms,
                                {.kind = Finish<T>::Kind::kStore, .columns = layer.width,
                                 .out = {result.data(), layer.width}, .rows = layer.height}};
  ThreadPool pool(Threads(), "bench");
  const PanelGrid grid(height, width, terms, pool.threads());
  const auto compute = [&] {
    pool.ParallelFor(grid.parts(), [&](uint32_t part) { MultiplyPanels(unit, product, grid[part]); });
  };
  compute();
  if (result[0] != static_cast<float>(terms * kPanel)) return state.SkipWithError("the product is wrong");
  TimeProduct(state, layer, compute, [&] { return peak(pool); });
  state.SetLabel(layer.name() + ", " + ProductUnitName(unit));
}

#define PERSIA_PRODUCTS_OF_LAYERS                           \
  ArgNames({"rows", "layer", "form"})                       \
      ->ArgsProduct({{1024}, {0, 1, 2, 3, 4}, {0, 1, 2}})   \
      ->UseManualTime()                                     \
      ->Unit(benchmark::kMillisecond)

}  // namespace persia
