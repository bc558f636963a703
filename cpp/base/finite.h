// Whether floats are finite, without a branch a value: the common case, all of them, runs at memory speed.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace persia {

inline bool AllFinite(std::span<const float> values) {
  uint32_t found = 0;
  for (const float value : values) {
    const uint32_t exponent = std::bit_cast<uint32_t>(value) & 0x7f800000u;
    found |= static_cast<uint32_t>(exponent == 0x7f800000u);
  }
  return found == 0;
}

}  // namespace persia
