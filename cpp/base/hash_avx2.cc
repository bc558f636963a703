// XXH3 once more, from the same header, built for AVX2: what Debian's library has is built for SSE2 and half as fast.
#if defined(__x86_64__)

// Functions of its own, so that the linker does not take these for others'.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash_simd.h"

#if !defined(__AVX2__) || XXH_VECTOR != XXH_AVX2
#error "this file is built with -mavx2"
#endif

namespace persia {

uint64_t Xxh3Avx2(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

void Xxh3UpdateAvx2(void* state, const void* data, size_t bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state), data, bytes);
}

uint64_t Xxh3DigestAvx2(const void* state) { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state)); }

}  // namespace persia

#endif
