// Whether floats are finite, without a branch a value: the common case, all of them, runs at memory speed. Always
// inline, so that it is compiled for the instruction set of its caller.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/cpu.h"

namespace persia {

PERSIA_ALWAYS_INLINE bool AllFinite(std::span<const float> values) {
  // Adding 1 to an exponent of all ones carries into the sign's place, whatever its kind: of words and of vectors.
  const auto carries = [](auto bits) __attribute__((always_inline)) { return (bits & 0x7fffffffu) + 0x00800000u; };
  // A vector type, because the compiler keeps an array of partial results in memory; as wide as all targets have.
  using Block = uint32_t __attribute__((vector_size(16)));
  constexpr size_t kLanes = sizeof(Block) / sizeof(float);
  const float* next = values.data();
  size_t left = values.size();
  Block found = {};
  for (; left >= kLanes; left -= kLanes, next += kLanes) {
    Block block;
    std::memcpy(&block, next, sizeof(block));
    found |= carries(block);
  }
  uint32_t any = found[0] | found[1] | found[2] | found[3];
  for (size_t i = 0; i < left; ++i) any |= carries(std::bit_cast<uint32_t>(next[i]));
  return any < 0x80000000u;
}

}  // namespace persia
