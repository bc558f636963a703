// Which of n parameter servers holds a sign: jump consistent hashing (Lamping & Veach 2014, "A Fast, Minimal Memory,
// Consistent Hash Algorithm"). Servers get equal shares to within chance, and when one is added, only the 1 / (n + 1) of
// the signs move that it gets: what a checkpoint's rows do that is loaded onto another number of servers.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>

#include "base/hash.h"

namespace persia {

// 0 … servers - 1. The key is mixed differently from the tables' shards, which go by the top bits of Mix64(sign).
inline uint32_t ServerOf(uint64_t sign, uint32_t servers) {
  uint64_t key = Mix64(sign + 0x9e3779b97f4a7c15);
  int64_t server = -1, next = 0;
  while (next < int64_t{servers}) {
    server = next;
    key = key * 2862933555777941757ULL + 1;
    next = static_cast<int64_t>(static_cast<double>(server + 1) *
                                (static_cast<double>(int64_t{1} << 31) / static_cast<double>((key >> 33) + 1)));
  }
  return static_cast<uint32_t>(server);
}

}  // namespace persia
