// One body for all units, so that those of one precision pack and finish bit for bit alike (panel_units.h has what is
// written for each).
#include "dense/panel_kernels.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/status.h"
#include "dense/panel_units.h"

namespace persia {
namespace {

#if defined(__x86_64__)
template <typename Body, typename... Args>
PERSIA_TARGET_AVX512 void RunForAvx512(Args... args) {
  Body::Run(args...);
}
#endif

// Calls the always-inline Body<the unit's struct>::Run(args…); values of type T are the unit's.
template <typename T, template <typename> typename Body, typename... Args>
void RunOn(ProductUnit unit, Args... args) {
  if constexpr (std::is_same_v<T, float>) {
#if defined(__x86_64__)
    if (unit == ProductUnit::kFp32Avx512) return RunForAvx512<Body<Fp32Avx512Unit>>(args...);
#endif
    PERSIA_CHECK(unit == ProductUnit::kFp32Portable);
    Body<Fp32PortableUnit>::Run(args...);
  } else {
#if defined(__x86_64__)
    if (unit == ProductUnit::kBf16Amx) return RunForAvx512<Body<Bf16AmxUnit>>(args...);
    if (unit == ProductUnit::kBf16Avx512) return RunForAvx512<Body<Bf16Avx512Unit>>(args...);
#endif
    PERSIA_CHECK(unit == ProductUnit::kBf16Portable);
    Body<Bf16PortableUnit>::Run(args...);
  }
}

// --- Packing

template <typename Unit>
struct Pack {
  using Value = typename Unit::Value;

  static PERSIA_ALWAYS_INLINE void Run(const Packing<Value>* packing, uint32_t row_panel) {
    alignas(kLine) float edge[kBlock];
    const auto& [from, rows, columns, along_columns, along_rows, columns_for, rows_for] = *packing;
    const uint32_t row = row_panel * kPanel, height = std::min(kPanel, rows - row);
    for (uint32_t panel = 0; panel < PanelCount(columns); ++panel) {
      const uint32_t column = panel * kPanel, width = std::min(kPanel, columns - column);
      const float* square = from.at(row, column);
      size_t stride = from.stride;
      if (height < kPanel || width < kPanel) {
        std::memset(edge, 0, sizeof(edge));
        for (uint32_t r = 0; r < height; ++r) {
          std::memcpy(edge + r * kPanel, square + r * stride, width * sizeof(float));
        }
        square = edge;
        stride = kPanel;
      }
      Value *by_columns = along_columns.block(row_panel, panel), *by_rows = along_rows.block(panel, row_panel);
      Unit::PackAlongColumns(square, stride, by_columns);
      if (columns_for == Operand::kRight) Unit::Turn(by_columns);
      Unit::PackAlongRows(square, stride, by_rows);
      if (rows_for == Operand::kLeft) Unit::Turn(by_rows);
    }
  }
};

// To the second cache.
PERSIA_ALWAYS_INLINE void FetchLines(const void* from, size_t lines) {
  for (size_t line = 0; line < lines; ++line) __builtin_prefetch(static_cast<const char*>(from) + line * kLine, 0, 2);
}

// --- What follows a product, on a finished block c of panel `row` and panel `column`.

PERSIA_ALWAYS_INLINE bool IsPositive(float value) { return value > 0.0f; }
PERSIA_ALWAYS_INLINE bool IsPositive(Bf16 value) { return static_cast<int16_t>(value) > 0; }

template <typename Unit>
struct Finisher {
  using Value = typename Unit::Value;

  // Asks for the memory that Run is going to write and read, before the product that c comes from.
  static PERSIA_ALWAYS_INLINE void Fetch(const Finish<Value>& finish, uint32_t row, uint32_t column) {
    if (finish.kind == Finish<Value>::Kind::kStore) {
      const uint32_t height = std::min(kPanel, finish.rows - row * kPanel);
      constexpr size_t kLines = kPanel * sizeof(float) / kLine;
      for (uint32_t r = 0; r < height; ++r) FetchLines(finish.out.at(row * kPanel + r, column * kPanel), kLines);
      return;
    }
    constexpr size_t kLines = kBlock * sizeof(Value) / kLine;
    FetchLines(finish.along_columns.block(row, column), kLines);
    FetchLines(finish.along_rows.block(column, row), kLines);
    if (finish.kind == Finish<Value>::Kind::kMask) FetchLines(finish.activation.block(row, column), kLines);
  }

  static PERSIA_ALWAYS_INLINE void Run(const Finish<Value>& finish, uint32_t row, uint32_t column, float* c) {
    switch (finish.kind) {
      case Finish<Value>::Kind::kStore:
        return Store(finish, row, column, c);
      case Finish<Value>::Kind::kRelu:
        AddBias(finish, column, c);
        Relu(c);
        Unit::PackAlongColumns(c, kPanel, finish.along_columns.block(row, column));
        return Unit::PackAlongRows(c, kPanel, finish.along_rows.block(column, row));
      case Finish<Value>::Kind::kMask:
        Mask(finish, row, column, c);
        Unit::PackAlongColumns(c, kPanel, finish.along_columns.block(row, column));
        Unit::PackAlongRows(c, kPanel, finish.along_rows.block(column, row));
        return Unit::Turn(finish.along_rows.block(column, row));
    }
  }

 private:
  static PERSIA_ALWAYS_INLINE void AddBias(const Finish<Value>& finish, uint32_t panel, float* c) {
    alignas(64) float bias[kPanel] = {};
    const uint32_t width = std::min(kPanel, finish.columns - panel * kPanel);
    std::memcpy(bias, finish.bias + panel * kPanel, width * sizeof(float));
    for (uint32_t row = 0; row < kPanel; ++row) {
      for (uint32_t column = 0; column < kPanel; ++column) c[row * kPanel + column] += bias[column];
    }
  }

  static PERSIA_ALWAYS_INLINE void Relu(float* c) {
    for (uint32_t i = 0; i < kBlock; ++i) c[i] = c[i] < 0.0f ? 0.0f : c[i];  // a NaN stays, so that the loss shows it
  }

  static PERSIA_ALWAYS_INLINE void Mask(const Finish<Value>& finish, uint32_t row_panel, uint32_t panel, float* c) {
    const Value* active = finish.activation.block(row_panel, panel);
    float* sums = finish.column_sums + row_panel * finish.sums_stride + panel * kPanel;
    alignas(64) float sum[kPanel] = {};
    for (uint32_t row = 0; row < kPanel; ++row) {
      for (uint32_t column = 0; column < kPanel; ++column) {
        const uint32_t i = row * kPanel + column;
        c[i] = IsPositive(active[i]) ? c[i] : 0.0f;
        sum[column] += c[i];
      }
    }
    std::memcpy(sums, sum, sizeof(sum));
  }

  static PERSIA_ALWAYS_INLINE void Store(const Finish<Value>& finish, uint32_t row_panel, uint32_t panel, float* c) {
    if (finish.bias != nullptr) AddBias(finish, panel, c);
    if (finish.relu) Relu(c);
    const uint32_t row = row_panel * kPanel, column = panel * kPanel;
    const uint32_t height = std::min(kPanel, finish.rows - row), width = std::min(kPanel, finish.columns - column);
    for (uint32_t r = 0; r < height; ++r) {
      float* to = finish.out.at(row + r, column);
      if (width == kPanel) {
        std::memcpy(to, c + r * kPanel, kPanel * sizeof(float));
      } else {
        std::memcpy(to, c + r * kPanel, width * sizeof(float));
      }
    }
  }
};

// --- The product: rounds of kRoundSteps steps; in a round a right panel stays in the nearest cache while left panels
// pass by. Sums wait for their next round in scratch memory. Meanwhile the operands of the next round, which come from
// far away, are asked for, a piece with each block: into the second cache, which has room for both rounds'.

// Part `part` of `parts` of the `steps` blocks from `from`.
template <typename T>
PERSIA_ALWAYS_INLINE void FetchPart(const T* from, uint32_t steps, uint32_t part, uint32_t parts) {
  const uint32_t lines = steps * static_cast<uint32_t>(kBlock * sizeof(T) / kLine);
  const uint32_t begin = lines * part / parts, end = lines * (part + 1) / parts;
  FetchLines(reinterpret_cast<const char*>(from) + begin * kLine, end - begin);
}

template <typename Unit>
struct Multiply {
  using Value = typename Unit::Value;

  static PERSIA_ALWAYS_INLINE void Run(const PanelProduct<Value>* product, const PanelRange* range, float* scratch) {
    const auto& [left, right, steps, finish] = *product;
    constexpr uint32_t kRound = kRoundSteps<Value>;
    const auto [first_row, rows, first_column, columns] = *range;
    const size_t c_stride = steps > kRound ? kBlock : 0;
    Unit::Begin();
    for (uint32_t begin = 0; begin < steps; begin += kRound) {
      const uint32_t count = std::min(kRound, steps - begin), end = begin + count;
      const uint32_t next_count = std::min(kRound, steps - end);
      float* c = scratch;
      for (uint32_t k = 0; k < columns; ++k) {
        for (uint32_t r = 0; r < rows; ++r, c += c_stride) {
          const uint32_t row = first_row + r, column = first_column + k;
          const bool last = r + 1 == rows && k + 1 == columns;
          const NextBlock<Value> next{left.block(r + 1 < rows ? row + 1 : first_row, begin),
                                      last ? scratch : c + c_stride};
          FetchPart(left.block(row, end), next_count, k, columns);
          FetchPart(right.block(column, end), next_count, r, rows);
          if (end == steps) Finisher<Unit>::Fetch(finish, row, column);
          Unit::Block(count, left.block(row, begin), right.block(column, begin), c, begin > 0, next);
          if (end == steps) Finisher<Unit>::Run(finish, row, column, c);
        }
      }
    }
    Unit::End();
  }
};

}  // namespace

template <typename T>
void PackRowPanel(ProductUnit unit, const Packing<T>& packing, uint32_t row_panel) {
  RunOn<T, Pack>(unit, &packing, row_panel);
}

template <typename T>
void MultiplyPanels(ProductUnit unit, const PanelProduct<T>& product, const PanelRange& range) {
  PERSIA_CHECK(range.rows * range.columns <= kMostBlocks);
  alignas(kLine) float scratch[kMostBlocks * kBlock];
  RunOn<T, Multiply>(unit, &product, &range, scratch);
}

template void PackRowPanel(ProductUnit, const Packing<float>&, uint32_t);
template void PackRowPanel(ProductUnit, const Packing<Bf16>&, uint32_t);
template void MultiplyPanels(ProductUnit, const PanelProduct<float>&, const PanelRange&);
template void MultiplyPanels(ProductUnit, const PanelProduct<Bf16>&, const PanelRange&);

}  // namespace persia
