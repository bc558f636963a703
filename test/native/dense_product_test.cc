#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "dense/product.h"

namespace persia {
namespace {

std::vector<float> Random(size_t count, uint64_t key) {
  Rng rng(key);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.Normal());
  return values;
}

// The largest difference between c and its definition. a is (rows, inner), b is (inner, columns), each transposed in
// memory where the form says so.
double WorstError(ProductForm form, uint32_t rows, uint32_t columns, uint32_t inner, const std::vector<float>& a,
                  const std::vector<float>& b, const std::vector<float>& c) {
  double worst = 0;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      double sum = 0;
      for (size_t i = 0; i < inner; ++i) {
        const float left = form == ProductForm::kTn ? a[i * rows + row] : a[row * inner + i];
        const float right = form == ProductForm::kNt ? b[column * inner + i] : b[i * columns + column];
        sum += static_cast<double>(left) * right;
      }
      worst = std::max(worst, std::abs(sum - c[row * columns + column]));
    }
  }
  return worst;
}

TEST_CASE("Tiles cover every entry of a result exactly once") {
  for (uint32_t threads : {1u, 2u, 6u, 7u, 16u}) {
    const std::pair<uint32_t, uint32_t> sizes[] = {{1, 1}, {1, 99999}, {33, 47}, {1000, 250}, {257, 4096}, {99999, 1}};
    for (const auto& [rows, columns] : sizes) {
      const TileGrid grid(rows, columns, 1000, threads);
      std::vector<uint8_t> covered(size_t{rows} * columns, 0);
      for (uint32_t part = 0; part < grid.parts(); ++part) {
        const Tile tile = grid[part];
        CHECK(tile.row_part < grid.row_parts());
        for (uint32_t r = tile.row; r < tile.row + tile.rows; ++r) {
          for (uint32_t c = tile.column; c < tile.column + tile.columns; ++c) ++covered[size_t{r} * columns + c];
        }
      }
      CHECK(covered == std::vector<uint8_t>(covered.size(), 1));
    }
  }
}

TEST_CASE("Only products worth a second thread are split") {
  CHECK(TileGrid(32, 64, 16, 8).parts() == 1);
  CHECK(TileGrid(1024, 1024, 512, 8).parts() == 8);
  CHECK(TileGrid(1024, 1024, 512, 7).parts() == 7);
}

TEST_CASE("Tiled products of all forms equal their definition") {
  constexpr uint32_t kRows = 130, kColumns = 75, kInner = 111;
  const auto a = Random(kRows * kInner, 1), b = Random(kColumns * kInner, 2);
  ThreadPool pool(3, "test");
  for (auto form : {ProductForm::kNt, ProductForm::kNn, ProductForm::kTn}) {
    std::vector<float> c(kRows * kColumns, NAN);  // what was there must not matter
    const Product product{form, kInner, {a.data(), form == ProductForm::kTn ? kRows : kInner},
                          {b.data(), form == ProductForm::kNt ? kInner : kColumns}, {c.data(), kColumns}};
    const TileGrid grid(kRows, kColumns, kInner, pool.threads());
    REQUIRE(grid.parts() == 3);
    pool.ParallelFor(grid.parts(), [&](uint32_t part) { ComputeTile(product, grid[part]); });
    CHECK(WorstError(form, kRows, kColumns, kInner, a, b, c) < 1e-4);
  }
}

TEST_CASE("Products computed on many threads at once don't disturb each other") {
  // The library's pool of packing buffers is not safe by itself (see product.cc): small products hit it hardest.
  constexpr uint32_t kSize = 16, kThreads = 3, kRepeats = 30000;
  ThreadPool pool(kThreads, "test");
  std::vector<uint32_t> wrong(kThreads, 0);
  std::atomic<uint32_t> arrived{0};
  pool.ParallelFor(kThreads, [&](uint32_t part) {
    ++arrived;
    while (arrived < kThreads) std::this_thread::yield();  // all multiply at the same time
    const auto a = Random(kSize * kSize, 2 * part), b = Random(kSize * kSize, 2 * part + 1);
    std::vector<float> first(kSize * kSize), c(kSize * kSize);
    for (uint32_t repeat = 0; repeat < kRepeats; ++repeat) {
      const Product product{ProductForm::kNn, kSize, {a.data(), kSize}, {b.data(), kSize}, {c.data(), kSize}};
      ComputeTile(product, {0, kSize, 0, kSize, 0});
      if (repeat == 0) first = c;
      wrong[part] += c != first;
    }
    wrong[part] += WorstError(ProductForm::kNn, kSize, kSize, kSize, a, b, first) > 1e-4;
  });
  CHECK(std::accumulate(wrong.begin(), wrong.end(), 0u) == 0);
}

TEST_CASE("A CPU that OpenBLAS doesn't know gets the kernels for the vectors that it has") {
  CHECK(KernelsInstead("Prescott", SimdLevel::kAvx512) == std::string_view("SkylakeX"));
  CHECK(KernelsInstead("Prescott", SimdLevel::kAvx2) == std::string_view("Haswell"));
  CHECK(KernelsInstead("Prescott", SimdLevel::kBaseline) == nullptr);
  CHECK(KernelsInstead("Zen", SimdLevel::kAvx2) == nullptr);
  if (std::getenv("OPENBLAS_CORETYPE") == nullptr) CHECK(KernelsInstead(ProductKernels(), BestSimd()) == nullptr);
}

}  // namespace
}  // namespace persia
