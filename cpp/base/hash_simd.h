// Of hash.cc: XXH3 built for AVX2 (hash_avx2.cc). The state is that of xxhash.h, which is the same for all instruction sets.
//
// Thread-safety: pure functions; a state is one thread's at a time.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace persia {

uint64_t Xxh3Avx2(const void* data, size_t bytes);
void Xxh3UpdateAvx2(void* state, const void* data, size_t bytes);
uint64_t Xxh3DigestAvx2(const void* state);

}  // namespace persia
