// The units of dense/product_unit.h that own kernels are written for.
//
// Of each there are the forms in which its operands are packed and the product of a block; the rest is one body for all
// (panel_kernels.cc), plain loops over 32 values, which the compiler turns into AVX-512 for the units in hardware.
//
//   PackAlongColumns, PackAlongRows   pack a square of a float32 matrix with `stride`: as left operand whose terms run
//                                     along its columns, and as right one whose terms run along its rows
//   Turn                              turns a packed square into the form for the other operand
//   Block                             adds the products of `steps` steps to c (32, 32), or sets it to them, and may
//                                     fetch what the next block begins with
//
// Thread-safety: pure functions on the caller's memory; Begin and End around the products of a thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "base/cpu.h"
#include "dense/bf16_tiles.h"
#include "dense/packed.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace persia {

constexpr uint32_t kTile = 16;                 // rows of a tile, and words in one of its rows
constexpr uint32_t kTileWords = kTile * kTile;

// --- Forms

// What squares are packed with.
//
//   Transpose    turns a tile of 16 × 16 words around its diagonal; its rows are `stride` words apart, on lines of the
//                cache. `to` may be `from`.
//   RoundRows    a square (32, 32) with `stride` to bf16, row by row
//   RoundPairs   the same, each two rows to one of pairs of neighbours in a column, in two tiles
//
// Numbers below the normal range are rounded to 0.
struct PortablePacker {
  static void Transpose(const void* from, void* to, size_t stride);
  static void RoundRows(const float* from, size_t stride, Bf16* to);
  static void RoundPairs(const float* from, size_t stride, Bf16* to);
};

#if defined(__x86_64__)
struct Avx512Packer {
  static void Transpose(const void* from, void* to, size_t stride);
  // AVX512-BF16 is where they are used.
  static void RoundRows(const float* from, size_t stride, Bf16* to);
  static void RoundPairs(const float* from, size_t stride, Bf16* to);
};
#endif

// Squares in the order of their rows: for terms along the columns of a left operand and along the rows of a right one.
template <typename Packer>
struct Fp32Forms {
  using Value = float;

  static PERSIA_ALWAYS_INLINE void PackAlongColumns(const float* from, size_t stride, float* to) {
    for (uint32_t row = 0; row < kPanel; ++row) {
      std::memcpy(to + row * kPanel, from + row * stride, kPanel * sizeof(float));
    }
  }

  static PERSIA_ALWAYS_INLINE void PackAlongRows(const float* from, size_t stride, float* to) {
    PackAlongColumns(from, stride, to);
  }

  static PERSIA_ALWAYS_INLINE void Turn(float* block) {
    constexpr size_t kLower = kTile * kPanel;  // the tiles below
    alignas(kLine) float right[kLower];        // in whose first columns the upper right tile waits
    Packer::Transpose(block, block, kPanel);
    Packer::Transpose(block + kTile, right, kPanel);
    Packer::Transpose(block + kLower, block + kTile, kPanel);
    Packer::Transpose(block + kLower + kTile, block + kLower + kTile, kPanel);
    for (uint32_t row = 0; row < kTile; ++row) {
      std::memcpy(block + kLower + row * kPanel, right + row * kPanel, kTile * sizeof(float));
    }
  }
};

template <typename Packer>
struct Bf16Forms {
  using Value = Bf16;

  // Pairs of neighbours in a row, and in a column.
  static PERSIA_ALWAYS_INLINE void PackAlongColumns(const float* from, size_t stride, Bf16* to) {
    Packer::RoundRows(from, stride, to);
  }

  static PERSIA_ALWAYS_INLINE void PackAlongRows(const float* from, size_t stride, Bf16* to) {
    Packer::RoundPairs(from, stride, to);
  }

  static PERSIA_ALWAYS_INLINE void Turn(Bf16* block) {
    for (Bf16* tile : {block, block + 2 * kTileWords}) Packer::Transpose(tile, tile, kTile);
  }
};

// --- Products

struct Fp32PortableUnit : Fp32Forms<PortablePacker> {
  static void Begin() {}
  static void End() {}
  static void Block(uint32_t steps, const float* left, const float* right, float* c, bool adds,
                    const NextBlock<float>&) {
    if (!adds) std::memset(c, 0, kBlock * sizeof(float));
    for (uint32_t step = 0; step < steps; ++step, left += kBlock, right += kBlock) {
      for (uint32_t row = 0; row < kPanel; ++row) {
        for (uint32_t term = 0; term < kPanel; ++term) {
          const float factor = left[row * kPanel + term];
          for (uint32_t j = 0; j < kPanel; ++j) c[row * kPanel + j] += factor * right[term * kPanel + j];
        }
      }
    }
  }
};

struct Bf16PortableUnit : Bf16Forms<PortablePacker> {
  static void Begin() {}
  static void End() {}
  static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds,
                    const NextBlock<Bf16>& next) {
    EmulatedTiles tiles;
    MultiplyTiles(tiles, steps, left, right, c, adds, next);
  }
};

#if defined(__x86_64__)

struct Fp32Avx512Unit : Fp32Forms<Avx512Packer> {
  static void Begin() {}
  static void End() {}

  // Eight rows and all columns at a time: 16 sums in registers, one load for 1.6 of their 16 products.
  PERSIA_TARGET_AVX512 static void Block(uint32_t steps, const float* left, const float* right, float* c, bool adds,
                                         const NextBlock<float>&) {
    constexpr uint32_t kRows = 8;
    for (uint32_t row = 0; row < kPanel; row += kRows) {
      __m512 sums[kRows][2];
      for (uint32_t r = 0; r < kRows; ++r) {
        for (uint32_t t = 0; t < 2; ++t) {
          sums[r][t] = adds ? _mm512_load_ps(c + (row + r) * kPanel + t * kTile) : _mm512_setzero_ps();
        }
      }
      for (uint32_t step = 0; step < steps; ++step) {
        const float *rows = left + step * kBlock + row * kPanel, *columns = right + step * kBlock;
        for (uint32_t term = 0; term < kPanel; ++term) {
          const __m512 factors[2] = {_mm512_load_ps(columns + term * kPanel),
                                     _mm512_load_ps(columns + term * kPanel + kTile)};
          for (uint32_t r = 0; r < kRows; ++r) {
            const __m512 factor = _mm512_set1_ps(rows[r * kPanel + term]);
            for (uint32_t t = 0; t < 2; ++t) sums[r][t] = _mm512_fmadd_ps(factor, factors[t], sums[r][t]);
          }
        }
      }
      for (uint32_t r = 0; r < kRows; ++r) {
        for (uint32_t t = 0; t < 2; ++t) _mm512_store_ps(c + (row + r) * kPanel + t * kTile, sums[r][t]);
      }
    }
  }
};

struct Bf16Avx512Unit : Bf16Forms<Avx512Packer> {
  static void Begin() {}
  static void End() {}

  // Eight rows and both tiles' columns at a time: 16 sums in registers.
  PERSIA_TARGET_AVX512BF16 static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds,
                                             const NextBlock<Bf16>&) {
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
};

struct Bf16AmxUnit : Bf16Forms<Avx512Packer> {
  static void Begin() { AmxTiles::Configure(); }
  static void End() { AmxTiles::Release(); }
  PERSIA_TARGET_AMX static void Block(uint32_t steps, const Bf16* left, const Bf16* right, float* c, bool adds,
                                      const NextBlock<Bf16>& next) {
    AmxTiles tiles;
    MultiplyTiles(tiles, steps, left, right, c, adds, next);
  }
};

#endif

}  // namespace persia
