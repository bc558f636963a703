// 128-bit products of 64-bit numbers: exact scaling of hashes to ranges.
#pragma once

#include <cstdint>

namespace persia {

__extension__ using Uint128 = unsigned __int128;

// floor(hash · count / 2^64): 0 … count - 1.
constexpr uint64_t ScaleDown(uint64_t hash, uint64_t count) {
  return static_cast<uint64_t>(static_cast<Uint128>(hash) * count >> 64);
}

// The smallest hash that ScaleDown takes to `at` (< count).
constexpr uint64_t FirstOf(uint64_t at, uint64_t count) {
  return static_cast<uint64_t>(((static_cast<Uint128>(at) << 64) + count - 1) / count);
}

}  // namespace persia
