// The tile registers of AMX, and the product of a block on them.
//
// There are eight registers of 16 rows of 64 bytes: 16 × 32 bf16 numbers or 16 × 16 float32. EmulatedTiles computes the
// same in plain C++, so that all index arithmetic is tested on every machine.
//
// Thread-safety: tile registers belong to the thread; Configure before use, Release after it.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "base/cpu.h"
#include "dense/packed.h"

namespace persia {

class EmulatedTiles {
 public:
  template <int kTo>
  void Zero() {
    std::memset(bytes_[kTo], 0, sizeof(bytes_[kTo]));
  }

  // 16 rows of 64 bytes, `stride` bytes apart.
  template <int kTo>
  void Load(const void* from, size_t stride) {
    for (size_t row = 0; row < 16; ++row) {
      std::memcpy(bytes_[kTo] + row * 64, static_cast<const char*>(from) + row * stride, 64);
    }
  }

  template <int kFrom>
  void Store(void* to, size_t stride) const {
    for (size_t row = 0; row < 16; ++row) {
      std::memcpy(static_cast<char*>(to) + row * stride, bytes_[kFrom] + row * 64, 64);
    }
  }

  void Prefetch(const char*) {}

  // sums[i][j] += Σ over pairs p and e in {0, 1} of left[i][2p + e] · right[p][2j + e].
  template <int kSums, int kLeft, int kRight>
  void Dot() {
    float sums[16][16], left[16][32], right[16][32];
    std::memcpy(sums, bytes_[kSums], sizeof(sums));
    Widen<kLeft>(left);
    Widen<kRight>(right);
    for (uint32_t i = 0; i < 16; ++i) {
      for (uint32_t p = 0; p < 16; ++p) {
        for (uint32_t j = 0; j < 16; ++j) {
          sums[i][j] += left[i][2 * p] * right[p][2 * j] + left[i][2 * p + 1] * right[p][2 * j + 1];
        }
      }
    }
    std::memcpy(bytes_[kSums], sums, sizeof(sums));
  }

 private:
  template <int kFrom>
  void Widen(float (&to)[16][32]) const {
    for (uint32_t row = 0; row < 16; ++row) {
      for (uint32_t i = 0; i < 32; ++i) {
        Bf16 upper;
        std::memcpy(&upper, bytes_[kFrom] + row * 64 + i * sizeof(Bf16), sizeof(Bf16));
        const uint32_t bits = uint32_t{upper} << 16;
        std::memcpy(&to[row][i], &bits, sizeof(bits));
      }
    }
  }

  alignas(64) unsigned char bytes_[8][1024];
};

#if defined(__x86_64__)

// The instructions as assembly: compilers' intrinsics for them differ, and some let memory accesses move across.
class AmxTiles {
 public:
  PERSIA_TARGET_AMX static void Configure() {
    alignas(64) struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }

  PERSIA_TARGET_AMX static void Release() { asm volatile("tilerelease" ::: "memory"); }

  template <int kTo>
  PERSIA_ALWAYS_INLINE void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTo));
  }

  template <int kTo>
  PERSIA_ALWAYS_INLINE void Load(const void* from, size_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTo), "r"(from), "r"(stride) : "memory");
  }

  template <int kFrom>
  PERSIA_ALWAYS_INLINE void Store(void* to, size_t stride) const {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kFrom), "r"(to), "r"(stride) : "memory");
  }

  // Of a line, to the nearest cache.
  PERSIA_ALWAYS_INLINE void Prefetch(const char* line) { asm volatile("prefetcht0 %0" ::"m"(*line)); }

  template <int kSums, int kLeft, int kRight>
  PERSIA_ALWAYS_INLINE void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
  }
};

#endif

template <uint32_t kLines, typename Tiles>
PERSIA_ALWAYS_INLINE void PrefetchLines(Tiles& tiles, const void* from) {
  [&]<uint32_t... kAt>(std::integer_sequence<uint32_t, kAt...>) {
    (tiles.Prefetch(static_cast<const char*>(from) + kAt * kLine), ...);
  }(std::make_integer_sequence<uint32_t, kLines>());
}

// c (32, 32) = or += the product of `steps` blocks of a left and a right panel. Registers 0 to 3 hold c, two tiles by
// two, so that each tile that is loaded is used twice.
//
// A step's four dot products take 64 cycles and its four loads 32 from the nearest cache, but several times that from
// the next one, more than instructions can be reordered over. The right panel is near; left panel and c pass by, so they
// are asked for ahead, a few lines after each dot product: the left panel kAhead steps, beyond its end that of `next`; c
// of `next` over the first eight steps, and a round has no more.
template <typename Tiles>
PERSIA_ALWAYS_INLINE void MultiplyTiles(Tiles& tiles, uint32_t steps, const Bf16* left, const Bf16* right, float* c,
                                        bool adds, const NextBlock<Bf16>& next) {
  constexpr size_t kTileRow = 64, kRowBytes = kPanel * sizeof(float), kHalf = kBlock / 2;
  constexpr uint32_t kAhead = 2, kFourth = kBlock * sizeof(Bf16) / 4;
  constexpr uint32_t kStepOfC = kBlock * sizeof(float) / 8;
  float* const lower = c + 16 * kPanel;
  if (adds) {
    tiles.template Load<0>(c, kRowBytes);
    tiles.template Load<1>(c + 16, kRowBytes);
    tiles.template Load<2>(lower, kRowBytes);
    tiles.template Load<3>(lower + 16, kRowBytes);
  } else {
    tiles.template Zero<0>();
    tiles.template Zero<1>();
    tiles.template Zero<2>();
    tiles.template Zero<3>();
  }
  for (uint32_t step = 0; step < steps; ++step, left += kBlock, right += kBlock) {
    const bool within = step + kAhead < steps;
    const auto* ahead = reinterpret_cast<const char*>(within ? left + kAhead * kBlock
                                                             : next.left + (step + kAhead - steps) * kBlock);
    tiles.template Load<4>(left, kTileRow);
    tiles.template Load<6>(right, kTileRow);
    tiles.template Dot<0, 4, 6>();
    PrefetchLines<kFourth / kLine>(tiles, ahead);
    tiles.template Load<7>(right + kHalf, kTileRow);
    tiles.template Dot<1, 4, 7>();
    PrefetchLines<kFourth / kLine>(tiles, ahead + kFourth);
    tiles.template Load<5>(left + kHalf, kTileRow);
    tiles.template Dot<2, 5, 6>();
    PrefetchLines<kFourth / kLine>(tiles, ahead + 2 * kFourth);
    tiles.template Dot<3, 5, 7>();
    PrefetchLines<kFourth / kLine>(tiles, ahead + 3 * kFourth);
    if (step < 8) PrefetchLines<kStepOfC / kLine>(tiles, reinterpret_cast<const char*>(next.c) + step * kStepOfC);
  }
  tiles.template Store<0>(c, kRowBytes);
  tiles.template Store<1>(c + 16, kRowBytes);
  tiles.template Store<2>(lower, kRowBytes);
  tiles.template Store<3>(lower + 16, kRowBytes);
}

}  // namespace persia
