// One body for all units: only the product of a block and the transposition of a tile are written for each. The rest is
// plain loops over 32 values, which the compiler turns into AVX-512 for the units in hardware, so that they pack and
// finish bit for bit alike.
#include "dense/bf16_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dense/bf16_tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace persia {
namespace {

constexpr uint32_t kTile = 16;                 // rows of a tile, and pairs or columns in one of its rows
constexpr uint32_t kTileWords = kTile * kTile;
// Steps that are multiplied before the next block's turn: the operands of two blocks of so many fit the nearest cache.
constexpr uint32_t kRoundSteps = 8;

PERSIA_ALWAYS_INLINE uint32_t Rounded(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = static_cast<int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  return nan ? (bits >> 16) | 0x40u : nearest;
}

// --- What is written for each unit: Block adds the products of `steps` steps to c (32, 32), or sets it to them, and may
// fetch what the next block begins with;
// Transpose turns the words of a tile around its diagonal.

struct PortableUnit {
  static void Begin() {}
  static void End() {}
  static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds, const NextBlock& next) {
    EmulatedTiles tiles;
    MultiplyTiles(tiles, steps, left, right, c, adds, next);
  }
  static void Transpose(uint32_t* tile) {
    for (uint32_t row = 0; row < kTile; ++row) {
      for (uint32_t column = 0; column < row; ++column) {
        std::swap(tile[row * kTile + column], tile[column * kTile + row]);
      }
    }
  }
};

#if defined(__x86_64__)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 means its own headers: they pass an undefined vector on
// Four rounds of swaps between registers: of words, pairs of words, quarters and halves.
__attribute__((target("avx512f"))) void TransposeAvx512(uint32_t* tile) {
  __m512i r[kTile], t[kTile];
  for (uint32_t i = 0; i < kTile; ++i) r[i] = _mm512_load_si512(tile + i * kTile);
  for (uint32_t i = 0; i < kTile; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (uint32_t i = 0; i < kTile; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4g + w] has, in quarter q, word 4q + w of rows 4g … 4g + 3.
  for (uint32_t w = 0; w < 4; ++w) {
    t[w] = _mm512_shuffle_i32x4(r[w], r[4 + w], 0x88);
    t[4 + w] = _mm512_shuffle_i32x4(r[w], r[4 + w], 0xdd);
    t[8 + w] = _mm512_shuffle_i32x4(r[8 + w], r[12 + w], 0x88);
    t[12 + w] = _mm512_shuffle_i32x4(r[8 + w], r[12 + w], 0xdd);
  }
  for (uint32_t w = 0; w < 4; ++w) {
    r[w] = _mm512_shuffle_i32x4(t[w], t[8 + w], 0x88);
    r[8 + w] = _mm512_shuffle_i32x4(t[w], t[8 + w], 0xdd);
    r[4 + w] = _mm512_shuffle_i32x4(t[4 + w], t[12 + w], 0x88);
    r[12 + w] = _mm512_shuffle_i32x4(t[4 + w], t[12 + w], 0xdd);
  }
  for (uint32_t i = 0; i < kTile; ++i) _mm512_store_si512(tile + i * kTile, r[i]);
}
#pragma GCC diagnostic pop

struct Avx512Unit {
  static void Begin() {}
  static void End() {}

  // Eight rows and both tiles' columns at a time: 16 sums in registers.
  PERSIA_TARGET_AVX512BF16 static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds,
                                             const NextBlock&) {
    constexpr uint32_t kRows = 8;
    for (uint32_t row = 0; row < kPanel; row += kRows) {
      __m512 sums[kRows][2];
      for (uint32_t r = 0; r < kRows; ++r) {
        for (uint32_t t = 0; t < 2; ++t) {
          sums[r][t] = adds ? _mm512_load_ps(c + (row + r) * kPanel + t * kTile) : _mm512_setzero_ps();
        }
      }
      for (uint32_t step = 0; step < steps; ++step) {
        const Bf16 *rows = left + step * kBlock + row * kPanel, *columns = right + step * kBlock;
        for (uint32_t pair = 0; pair < kTile; ++pair) {
          __m512bh factors[2];
          for (uint32_t t = 0; t < 2; ++t) {
            const void* words = columns + t * (kBlock / 2) + pair * kPanel;
            factors[t] = reinterpret_cast<__m512bh>(_mm512_load_si512(words));
          }
          for (uint32_t r = 0; r < kRows; ++r) {
            int word;
            std::memcpy(&word, rows + r * kPanel + 2 * pair, sizeof(word));
            const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(word));
            for (uint32_t t = 0; t < 2; ++t) sums[r][t] = _mm512_dpbf16_ps(sums[r][t], factor, factors[t]);
          }
        }
      }
      for (uint32_t r = 0; r < kRows; ++r) {
        for (uint32_t t = 0; t < 2; ++t) _mm512_store_ps(c + (row + r) * kPanel + t * kTile, sums[r][t]);
      }
    }
  }

  static void Transpose(uint32_t* tile) { TransposeAvx512(tile); }
};

struct AmxUnit {
  static void Begin() { AmxTiles::Configure(); }
  static void End() { AmxTiles::Release(); }
  PERSIA_TARGET_AMX static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds,
                                      const NextBlock& next) {
    AmxTiles tiles;
    MultiplyTiles(tiles, steps, left, right, c, adds, next);
  }
  static void Transpose(uint32_t* tile) { TransposeAvx512(tile); }
};

template <typename Body, typename... Args>
PERSIA_TARGET_AVX512 void RunForAvx512(Args... args) {
  Body::Run(args...);
}

#endif

template <template <typename> typename Body, typename... Args>
void RunOn(Bf16Unit unit, Args... args) {
#if defined(__x86_64__)
  if (unit == Bf16Unit::kAmx) return RunForAvx512<Body<AmxUnit>>(args...);
  if (unit == Bf16Unit::kAvx512) return RunForAvx512<Body<Avx512Unit>>(args...);
#endif
  PERSIA_CHECK(unit == Bf16Unit::kPortable);
  Body<PortableUnit>::Run(args...);
}

// --- Packing of a block of 32 × 32 numbers, row-major with `stride`.

// Pairs of neighbours in a row: the left operand's form for terms along the columns.
PERSIA_ALWAYS_INLINE void PairColumns(const float* from, size_t stride, Bf16* to) {
  for (uint32_t row = 0; row < kPanel; ++row) {
    for (uint32_t column = 0; column < kPanel; ++column) {
      to[row * kPanel + column] = static_cast<Bf16>(Rounded(from[row * stride + column]));
    }
  }
}

// Pairs of neighbours in a column: the right operand's form for terms along the rows.
PERSIA_ALWAYS_INLINE void PairRows(const float* from, size_t stride, Bf16* to) {
  alignas(64) uint32_t words[2 * kTileWords];
  for (uint32_t pair = 0; pair < kTile; ++pair) {
    const float *even = from + 2 * pair * stride, *odd = even + stride;
    for (uint32_t column = 0; column < kPanel; ++column) {
      const uint32_t word = Rounded(even[column]) | Rounded(odd[column]) << 16;
      words[column / kTile * kTileWords + pair * kTile + column % kTile] = word;
    }
  }
  std::memcpy(to, words, sizeof(words));
}

// Turns a block from one operand's form into the other's.
template <typename Unit>
PERSIA_ALWAYS_INLINE void TransposeBlock(Bf16* block) {
  for (uint32_t tile = 0; tile < 2; ++tile) {
    Unit::Transpose(reinterpret_cast<uint32_t*>(block) + tile * kTileWords);
  }
}

template <typename Unit>
struct Pack {
  static PERSIA_ALWAYS_INLINE void Run(const Packing* packing, uint32_t row_panel) {
    using For = Packing::For;
    alignas(64) float edge[kBlock];
    const auto& [from, rows, columns, along_columns, along_rows, columns_for, rows_for] = *packing;
    const uint32_t row = row_panel * kPanel, height = std::min(kPanel, rows - row);
    for (uint32_t panel = 0; panel < PanelCount(columns); ++panel) {
      const uint32_t column = panel * kPanel, width = std::min(kPanel, columns - column);
      const float* block = from.at(row, column);
      size_t stride = from.stride;
      if (height < kPanel || width < kPanel) {
        std::memset(edge, 0, sizeof(edge));
        for (uint32_t r = 0; r < height; ++r) std::memcpy(edge + r * kPanel, block + r * stride, width * sizeof(float));
        block = edge;
        stride = kPanel;
      }
      Bf16 *by_columns = along_columns.block(row_panel, panel), *by_rows = along_rows.block(panel, row_panel);
      PairColumns(block, stride, by_columns);
      if (columns_for == For::kRight) TransposeBlock<Unit>(by_columns);
      PairRows(block, stride, by_rows);
      if (rows_for == For::kLeft) TransposeBlock<Unit>(by_rows);
    }
  }
};

// --- What follows a product, on a finished block c of panel `row` and panel `column`.

template <typename Unit>
struct Finisher {
  static PERSIA_ALWAYS_INLINE void Run(const Finish& finish, uint32_t row, uint32_t column, float* c) {
    switch (finish.kind) {
      case Finish::Kind::kStore:
        return Store(finish, row, column, c);
      case Finish::Kind::kRelu:
        AddBias(finish, column, c);
        Relu(c);
        PairColumns(c, kPanel, finish.along_columns.block(row, column));
        return PairRows(c, kPanel, finish.along_rows.block(column, row));
      case Finish::Kind::kMask:
        Mask(finish, row, column, c);
        PairColumns(c, kPanel, finish.along_columns.block(row, column));
        PairRows(c, kPanel, finish.along_rows.block(column, row));
        return TransposeBlock<Unit>(finish.along_rows.block(column, row));
    }
  }

 private:
  static PERSIA_ALWAYS_INLINE void AddBias(const Finish& finish, uint32_t panel, float* c) {
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

  static PERSIA_ALWAYS_INLINE void Mask(const Finish& finish, uint32_t row_panel, uint32_t panel, float* c) {
    const auto* active = reinterpret_cast<const int16_t*>(finish.activation.block(row_panel, panel));
    float* sums = finish.column_sums + row_panel * finish.sums_stride + panel * kPanel;
    alignas(64) float sum[kPanel] = {};
    for (uint32_t row = 0; row < kPanel; ++row) {
      for (uint32_t column = 0; column < kPanel; ++column) {
        const uint32_t i = row * kPanel + column;
        c[i] = active[i] > 0 ? c[i] : 0.0f;
        sum[column] += c[i];
      }
    }
    std::memcpy(sums, sum, sizeof(sum));
  }

  static PERSIA_ALWAYS_INLINE void Store(const Finish& finish, uint32_t row_panel, uint32_t panel, float* c) {
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
// pass by. Sums wait for their next round in scratch memory. Meanwhile the operands of the next round, which come from far
// away, are asked for, a piece with each block: into the second cache, which has room for both rounds'.

// Part `part` of `parts` of the `steps` blocks from `from`.
PERSIA_ALWAYS_INLINE void FetchPart(const Bf16* from, uint32_t steps, uint32_t part, uint32_t parts) {
  const uint32_t lines = steps * static_cast<uint32_t>(kBlock * sizeof(Bf16) / kLine);
  const auto* bytes = reinterpret_cast<const char*>(from);
  for (uint32_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line) {
    __builtin_prefetch(bytes + line * kLine, 0, 2);
  }
}

template <typename Unit>
struct Multiply {
  static PERSIA_ALWAYS_INLINE void Run(const Bf16Product* product, const PanelRange* range, float* scratch) {
    const auto& [left, right, steps, finish] = *product;
    const auto [first_row, rows, first_column, columns] = *range;
    const size_t c_stride = steps > kRoundSteps ? kBlock : 0;
    Unit::Begin();
    for (uint32_t begin = 0; begin < steps; begin += kRoundSteps) {
      const uint32_t count = std::min(kRoundSteps, steps - begin), end = begin + count;
      const uint32_t next_count = std::min(kRoundSteps, steps - end);
      float* c = scratch;
      for (uint32_t k = 0; k < columns; ++k) {
        for (uint32_t r = 0; r < rows; ++r, c += c_stride) {
          const uint32_t row = first_row + r, column = first_column + k;
          const bool last = r + 1 == rows && k + 1 == columns;
          const NextBlock next{left.block(r + 1 < rows ? row + 1 : first_row, begin), last ? scratch : c + c_stride};
          FetchPart(left.block(row, end), next_count, k, columns);
          FetchPart(right.block(column, end), next_count, r, rows);
          Unit::Block(count, left.block(row, begin), right.block(column, begin), c, begin > 0, next);
          if (end == steps) Finisher<Unit>::Run(finish, row, column, c);
        }
      }
    }
    Unit::End();
  }
};

}  // namespace

void PackRowPanel(Bf16Unit unit, const Packing& packing, uint32_t row_panel) { RunOn<Pack>(unit, &packing, row_panel); }

void MultiplyPanels(Bf16Unit unit, const Bf16Product& product, const PanelRange& range) {
  PERSIA_CHECK(range.rows * range.columns <= kMostBlocks);
  alignas(kLine) float scratch[kMostBlocks * kBlock];
  RunOn<Multiply>(unit, &product, &range, scratch);
}

}  // namespace persia
