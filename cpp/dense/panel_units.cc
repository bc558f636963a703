#include "dense/panel_units.h"

#include <bit>

namespace persia {
namespace {

uint32_t Rounded(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0) return (bits & 0x80000000u) >> 16;
  const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = static_cast<int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  return nan ? (bits >> 16) | 0x40u : nearest;
}

}  // namespace

void PortablePacker::Transpose(const void* from, void* to, size_t stride) {
  uint32_t rows[kTileWords];
  for (uint32_t row = 0; row < kTile; ++row) {
    std::memcpy(rows + row * kTile, static_cast<const uint32_t*>(from) + row * stride, kTile * sizeof(uint32_t));
  }
  auto* columns = static_cast<uint32_t*>(to);
  for (uint32_t row = 0; row < kTile; ++row) {
    for (uint32_t column = 0; column < kTile; ++column) columns[column * stride + row] = rows[row * kTile + column];
  }
}

void PortablePacker::RoundRows(const float* from, size_t stride, Bf16* to) {
  for (uint32_t row = 0; row < kPanel; ++row) {
    for (uint32_t column = 0; column < kPanel; ++column) {
      to[row * kPanel + column] = static_cast<Bf16>(Rounded(from[row * stride + column]));
    }
  }
}

void PortablePacker::RoundPairs(const float* from, size_t stride, Bf16* to) {
  uint32_t words[2 * kTileWords];
  for (uint32_t pair = 0; pair < kTile; ++pair) {
    const float *even = from + 2 * pair * stride, *odd = even + stride;
    for (uint32_t column = 0; column < kPanel; ++column) {
      const uint32_t word = Rounded(even[column]) | Rounded(odd[column]) << 16;
      words[column / kTile * kTileWords + pair * kTile + column % kTile] = word;
    }
  }
  std::memcpy(to, words, sizeof(words));
}

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 means its own headers: they pass an undefined vector on
// Four rounds of swaps between registers: of words, pairs of words, quarters and halves.
__attribute__((target("avx512f"))) void Avx512Packer::Transpose(const void* from, void* to, size_t stride) {
  const auto* rows = static_cast<const uint32_t*>(from);
  auto* columns = static_cast<uint32_t*>(to);
  __m512i r[kTile], t[kTile];
  for (uint32_t i = 0; i < kTile; ++i) r[i] = _mm512_load_si512(rows + i * stride);
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
  for (uint32_t i = 0; i < kTile; ++i) _mm512_store_si512(columns + i * stride, r[i]);
}
#pragma GCC diagnostic pop

PERSIA_TARGET_AVX512BF16 void Avx512Packer::RoundRows(const float* from, size_t stride, Bf16* to) {
  for (uint32_t row = 0; row < kPanel; ++row) {
    const float* values = from + row * stride;
    const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + kTile), _mm512_loadu_ps(values));
    _mm512_store_si512(to + row * kPanel, reinterpret_cast<__m512i>(rounded));
  }
}

PERSIA_TARGET_AVX512BF16 void Avx512Packer::RoundPairs(const float* from, size_t stride, Bf16* to) {
  alignas(kLine) uint16_t in_turns[kPanel];  // of 32 values: 0, 16, 1, 17, …
  for (uint16_t i = 0; i < kPanel; ++i) in_turns[i] = static_cast<uint16_t>(i / 2 + i % 2 * kTile);
  const __m512i order = _mm512_load_si512(in_turns);
  for (uint32_t pair = 0; pair < kTile; ++pair) {
    for (uint32_t tile = 0; tile < 2; ++tile) {
      const float* even = from + 2 * pair * stride + tile * kTile;
      const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(even + stride), _mm512_loadu_ps(even));
      const __m512i pairs = _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(rounded));
      _mm512_store_si512(to + 2 * (tile * kTileWords + pair * kTile), pairs);
    }
  }
}
#endif

}  // namespace persia
