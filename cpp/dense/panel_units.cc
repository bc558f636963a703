#include "dense/panel_units.h"

namespace persia {

void TransposePortable(const void* from, void* to, size_t stride) {
  uint32_t rows[kTileWords];
  for (uint32_t row = 0; row < kTile; ++row) {
    std::memcpy(rows + row * kTile, static_cast<const uint32_t*>(from) + row * stride, kTile * sizeof(uint32_t));
  }
  auto* columns = static_cast<uint32_t*>(to);
  for (uint32_t row = 0; row < kTile; ++row) {
    for (uint32_t column = 0; column < kTile; ++column) columns[column * stride + row] = rows[row * kTile + column];
  }
}

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 means its own headers: they pass an undefined vector on
// Four rounds of swaps between registers: of words, pairs of words, quarters and halves.
__attribute__((target("avx512f"))) void TransposeAvx512(const void* from, void* to, size_t stride) {
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
#endif

}  // namespace persia
