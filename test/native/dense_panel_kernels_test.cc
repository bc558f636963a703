// The kernels of own products on every unit that runs here. Factors and sums are small whole numbers, which bf16 and
// float32 hold exactly: whatever the order of a sum, its bits are known.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "dense/panel_kernels.h"
#include "product_units.h"

namespace persia {
namespace {

float Widened(Bf16 value) { return std::bit_cast<float>(uint32_t{value} << 16); }

struct Values {
  uint32_t rows, columns;
  std::vector<float> data;

  float at(uint32_t row, uint32_t column) const { return data[size_t{row} * columns + column]; }
  Matrix<const float> matrix() const { return {data.data(), columns}; }
};

Values WholeNumbers(uint32_t rows, uint32_t columns, uint64_t key) {
  Values values{rows, columns, {}};
  Rng rng(key);
  for (uint32_t i = 0; i < rows * columns; ++i) {
    values.data.push_back(std::floor(static_cast<float>(rng.Uniform(-8, 8))));
  }
  return values;
}

// Both forms of a packed matrix.
template <typename T>
struct Packed {
  PackedMatrix<T> along_columns, along_rows;

  Packed(ProductUnit unit, const Values& values, Operand columns_for, Operand rows_for) {
    along_columns.Resize(PanelCount(values.rows), PanelCount(values.columns));
    along_rows.Resize(PanelCount(values.columns), PanelCount(values.rows));
    const Packing<T> packing{values.matrix(), values.rows, values.columns, along_columns.view(), along_rows.view(),
                          columns_for, rows_for};
    for (uint32_t panel = 0; panel < PanelCount(values.rows); ++panel) PackRowPanel(unit, packing, panel);
  }
};

// What a packed left operand holds at (row, term), by the picture in packed.h.
float LeftAt(const PackedView<float>& view, uint32_t row, uint32_t term) {
  return view.block(row / kPanel, term / kPanel)[row % kPanel * kPanel + term % kPanel];
}

float LeftAt(const PackedView<Bf16>& view, uint32_t row, uint32_t term) {
  const uint32_t tile = row % kPanel / 16, i = row % 16;
  return Widened(view.block(row / kPanel, term / kPanel)[tile * 512 + i * 32 + term % kPanel]);
}

float RightAt(const PackedView<float>& view, uint32_t column, uint32_t term) {
  return view.block(column / kPanel, term / kPanel)[term % kPanel * kPanel + column % kPanel];
}

float RightAt(const PackedView<Bf16>& view, uint32_t column, uint32_t term) {
  const uint32_t tile = column % kPanel / 16, j = column % 16, pair = term % kPanel / 2;
  return Widened(view.block(column / kPanel, term / kPanel)[tile * 512 + pair * 32 + 2 * j + term % 2]);
}

template <typename T>
float At(Operand operand, const PackedView<T>& view, uint32_t index, uint32_t term) {
  return operand == Operand::kLeft ? LeftAt(view, index, term) : RightAt(view, index, term);
}

// Of a packed result, relative to it.
template <typename T>
constexpr float kRounding = std::is_same_v<T, Bf16> ? 1.0f / 256 : 0.0f;

template <typename T>
void MultiplyAll(ProductUnit unit, const PanelProduct<T>& product, uint32_t row_panels, uint32_t column_panels) {
  for (uint32_t column = 0; column < column_panels; ++column) {
    for (uint32_t row = 0; row < row_panels; row += 3) {
      MultiplyPanels(unit, product, {row, std::min(3u, row_panels - row), column, 1});
    }
  }
}

TEST_CASE_TEMPLATE("own products: every form of a packed matrix has its values in place and zeros beyond the edge",
                   T, float, Bf16) {
  const Values values = WholeNumbers(45, 70, 1);
  for (const ProductUnit unit : UnitsHere<T>()) {
    for (const Operand columns_for : {Operand::kLeft, Operand::kRight}) {
      for (const Operand rows_for : {Operand::kLeft, Operand::kRight}) {
        Packed<T> packed(unit, values, columns_for, rows_for);
        uint32_t wrong = 0;
        for (uint32_t row = 0; row < 64; ++row) {
          for (uint32_t column = 0; column < 96; ++column) {
            const float expected = row < values.rows && column < values.columns ? values.at(row, column) : 0.0f;
            wrong += At(columns_for, packed.along_columns.view(), row, column) != expected;
            wrong += At(rows_for, packed.along_rows.view(), column, row) != expected;
          }
        }
        CAPTURE(ProductUnitName(unit));
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("bf16: numbers are rounded to nearest, ties to even, infinities and NaN stay, the smallest become 0") {
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  const std::vector<std::pair<float, float>> cases = {
      {1.0f, 1.0f},           {0x1.01p0f, 0x1.00p0f}, {0x1.03p0f, 0x1.04p0f}, {0x1.010002p0f, 0x1.02p0f},
      {-0x1.03p0f, -0x1.04p0f}, {-0.0f, -0.0f},       {infinity, infinity},   {-infinity, -infinity},
      {largest, infinity},    {0x1.fep127f, 0x1.fep127f},
      {0x1p-126f, 0x1p-126f}, {0x1.fcp-127f, 0.0f},     {-0x1p-130f, -0.0f}};
  Values values{1, static_cast<uint32_t>(cases.size()) + 1, {}};
  for (const auto& [from, to] : cases) values.data.push_back(from);
  values.data.push_back(std::numeric_limits<float>::quiet_NaN());
  for (const ProductUnit unit : UnitsHere<Bf16>()) {
    Packed<Bf16> packed(unit, values, Operand::kLeft, Operand::kRight);
    for (uint32_t i = 0; i < cases.size(); ++i) {
      const float expected = cases[i].second;
      CHECK(std::bit_cast<uint32_t>(LeftAt(packed.along_columns.view(), 0, i)) == std::bit_cast<uint32_t>(expected));
      CHECK(std::bit_cast<uint32_t>(RightAt(packed.along_rows.view(), i, 0)) == std::bit_cast<uint32_t>(expected));
    }
    CHECK(std::isnan(LeftAt(packed.along_columns.view(), 0, static_cast<uint32_t>(cases.size()))));
    CHECK(std::isnan(RightAt(packed.along_rows.view(), static_cast<uint32_t>(cases.size()), 0)));
  }
}

// Terms beyond one round of the kernels, ragged edges on all sides.
TEST_CASE_TEMPLATE("own products: a stored product is exact, with and without bias and ReLU, and ends at its edge",
                   T, float, Bf16) {
  constexpr uint32_t kRows = 45, kColumns = 75, kTerms = 700;
  const Values left = WholeNumbers(kRows, kTerms, 2), right = WholeNumbers(kColumns, kTerms, 3);
  const Values bias = WholeNumbers(1, kColumns, 4);
  constexpr float kUntouched = 12345.5f;
  for (const ProductUnit unit : UnitsHere<T>()) {
    Packed<T> a(unit, left, Operand::kLeft, Operand::kLeft), b(unit, right, Operand::kRight, Operand::kRight);
    for (const bool relu : {false, true}) {
      std::vector<float> out(kRows * (kColumns + 1), kUntouched);
      const Finish<T> finish{.kind = Finish<T>::Kind::kStore, .bias = relu ? bias.data.data() : nullptr,
                          .columns = kColumns, .out = {out.data(), kColumns + 1}, .rows = kRows, .relu = relu};
      MultiplyAll<T>(unit, {a.along_columns.view(), b.along_columns.view(), PanelCount(kTerms), finish},
                  PanelCount(kRows), PanelCount(kColumns));
      uint32_t wrong = 0;
      for (uint32_t row = 0; row < kRows; ++row) {
        for (uint32_t column = 0; column < kColumns; ++column) {
          float sum = relu ? bias.data[column] : 0.0f;
          for (uint32_t term = 0; term < kTerms; ++term) sum += left.at(row, term) * right.at(column, term);
          wrong += out[row * (kColumns + 1) + column] != (relu ? std::max(sum, 0.0f) : sum);
        }
        wrong += out[row * (kColumns + 1) + kColumns] != kUntouched;
      }
      CAPTURE(ProductUnitName(unit));
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE_TEMPLATE("own products: operands packed along their rows give the product of the transposed matrices",
                   T, float, Bf16) {
  constexpr uint32_t kRows = 40, kColumns = 33, kTerms = 100;
  const Values left = WholeNumbers(kTerms, kRows, 5), right = WholeNumbers(kTerms, kColumns, 6);
  for (const ProductUnit unit : UnitsHere<T>()) {
    Packed<T> a(unit, left, Operand::kLeft, Operand::kLeft), b(unit, right, Operand::kRight, Operand::kRight);
    std::vector<float> out(kRows * kColumns);
    const Finish<T> finish{.kind = Finish<T>::Kind::kStore, .columns = kColumns, .out = {out.data(), kColumns},
                        .rows = kRows};
    MultiplyAll<T>(unit, {a.along_rows.view(), b.along_rows.view(), PanelCount(kTerms), finish}, PanelCount(kRows),
                PanelCount(kColumns));
    uint32_t wrong = 0;
    for (uint32_t row = 0; row < kRows; ++row) {
      for (uint32_t column = 0; column < kColumns; ++column) {
        float sum = 0;
        for (uint32_t term = 0; term < kTerms; ++term) sum += left.at(term, row) * right.at(term, column);
        wrong += out[row * kColumns + column] != sum;
      }
    }
    CAPTURE(ProductUnitName(unit));
    CHECK(wrong == 0);
  }
}

TEST_CASE_TEMPLATE("own products: a layer's result is biased, rectified and packed for both uses", T, float, Bf16) {
  constexpr uint32_t kRows = 50, kColumns = 40, kTerms = 64;
  const Values left = WholeNumbers(kRows, kTerms, 7), right = WholeNumbers(kColumns, kTerms, 8);
  const Values bias = WholeNumbers(1, kColumns, 9);
  for (const ProductUnit unit : UnitsHere<T>()) {
    Packed<T> a(unit, left, Operand::kLeft, Operand::kLeft), b(unit, right, Operand::kRight, Operand::kRight);
    PackedMatrix<T> along_columns, along_rows;
    along_columns.Resize(PanelCount(kRows), PanelCount(kColumns));
    along_rows.Resize(PanelCount(kColumns), PanelCount(kRows));
    const Finish<T> finish{.kind = Finish<T>::Kind::kRelu, .bias = bias.data.data(), .columns = kColumns,
                        .along_columns = along_columns.view(), .along_rows = along_rows.view()};
    MultiplyAll<T>(unit, {a.along_columns.view(), b.along_columns.view(), PanelCount(kTerms), finish},
                PanelCount(kRows), PanelCount(kColumns));
    uint32_t wrong = 0, positive = 0;
    for (uint32_t row = 0; row < kRows; ++row) {
      for (uint32_t column = 0; column < 2 * kPanel; ++column) {
        float sum = 0;
        for (uint32_t term = 0; column < kColumns && term < kTerms; ++term) {
          sum += left.at(row, term) * right.at(column, term);
        }
        sum = column < kColumns ? std::max(sum + bias.data[column], 0.0f) : 0.0f;
        positive += sum > 0;
        const float seen = LeftAt(along_columns.view(), row, column);
        wrong += std::abs(seen - sum) > std::abs(sum) * kRounding<T>;
        wrong += RightAt(along_rows.view(), column, row) != seen;
      }
    }
    CAPTURE(ProductUnitName(unit));
    CHECK(wrong == 0);
    CHECK(positive > kRows * kColumns / 4);
  }
}

TEST_CASE_TEMPLATE("own products: a gradient is masked by the activation, summed by column and packed for both uses",
                   T, float, Bf16) {
  constexpr uint32_t kRows = 50, kColumns = 40, kTerms = 32;
  const Values left = WholeNumbers(kRows, kTerms, 10), right = WholeNumbers(kColumns, kTerms, 11);
  const Values activation = WholeNumbers(kRows, kColumns, 12);
  for (const ProductUnit unit : UnitsHere<T>()) {
    Packed<T> a(unit, left, Operand::kLeft, Operand::kLeft), b(unit, right, Operand::kRight, Operand::kRight);
    Packed<T> active(unit, activation, Operand::kLeft, Operand::kLeft);
    PackedMatrix<T> along_columns, along_rows;
    along_columns.Resize(PanelCount(kRows), PanelCount(kColumns));
    along_rows.Resize(PanelCount(kColumns), PanelCount(kRows));
    std::vector<float> sums(2 * 2 * kPanel);
    const Finish<T> finish{.kind = Finish<T>::Kind::kMask, .columns = kColumns, .along_columns = along_columns.view(),
                        .along_rows = along_rows.view(), .activation = active.along_columns.view(),
                        .column_sums = sums.data(), .sums_stride = 2 * kPanel};
    MultiplyAll<T>(unit, {a.along_columns.view(), b.along_columns.view(), PanelCount(kTerms), finish},
                PanelCount(kRows), PanelCount(kColumns));
    uint32_t wrong = 0;
    std::vector<float> expected_sums(2 * kPanel);
    for (uint32_t row = 0; row < kRows; ++row) {
      for (uint32_t column = 0; column < kColumns; ++column) {
        float sum = 0;
        for (uint32_t term = 0; term < kTerms; ++term) sum += left.at(row, term) * right.at(column, term);
        if (!(activation.at(row, column) > 0)) sum = 0;
        expected_sums[column] += sum;
        const float seen = LeftAt(along_columns.view(), row, column);
        wrong += std::abs(seen - sum) > std::abs(sum) * kRounding<T>;
        wrong += LeftAt(along_rows.view(), column, row) != seen;
      }
    }
    for (uint32_t column = 0; column < 2 * kPanel; ++column) {
      wrong += sums[column] + sums[2 * kPanel + column] != expected_sums[column];
    }
    CAPTURE(ProductUnitName(unit));
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace persia
