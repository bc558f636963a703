// Permutation: an order of the numbers 0 … size - 1 drawn from a key, of which any place can be asked for by itself.
//
// A Feistel network of four rounds permutes the numbers of as many bits as `size` needs; one that leads outside is
// permuted again until it is inside (cycle walking; Black and Rogaway 2002), two times at most on average.
//
// Thread-safety: immutable.
#pragma once

#include <bit>
#include <cstdint>

#include "base/rng.h"

namespace persia {

class Permutation {
 public:
  Permutation(uint64_t key, uint64_t size)
      : key_(key), size_(size), low_bits_(static_cast<uint32_t>(std::bit_width(size > 1 ? size - 1 : 1)) / 2),
        high_bits_(static_cast<uint32_t>(std::bit_width(size > 1 ? size - 1 : 1)) - low_bits_) {}

  // The number at place i < size.
  uint64_t At(uint64_t i) const {
    if (size_ <= 1) return i;
    do {
      i = Round(Round(Round(Round(i, 0, high_bits_, low_bits_), 1, low_bits_, high_bits_), 2, high_bits_, low_bits_), 3,
                low_bits_, high_bits_);
    } while (i >= size_);
    return i;
  }

 private:
  // (high, low) becomes (low, high ^ f(low)); the halves change places, and so their widths.
  uint64_t Round(uint64_t x, uint64_t round, uint32_t high_bits, uint32_t low_bits) const {
    const uint64_t low = x & Mask(low_bits), high = x >> low_bits;
    return low << high_bits | (high ^ (Mix64(key_ + round * 0x9e3779b97f4a7c15ULL + low) & Mask(high_bits)));
  }
  static uint64_t Mask(uint32_t bits) { return (uint64_t{1} << bits) - 1; }

  uint64_t key_;
  uint64_t size_;
  uint32_t low_bits_;
  uint32_t high_bits_;
};

}  // namespace persia
