#include "base/hash.h"

#include <xxhash.h>

#include "base/cpu.h"
#include "base/hash_simd.h"
#include "base/status.h"

namespace persia {

uint64_t Xxh64(const void* data, size_t bytes, uint64_t seed) { return XXH64(data, bytes, seed); }

Xxh64Stream::Xxh64Stream() : state_(XXH64_createState()) {
  PERSIA_CHECK(state_ != nullptr);
  XXH64_reset(static_cast<XXH64_state_t*>(state_), 0);
}

Xxh64Stream::~Xxh64Stream() { XXH64_freeState(static_cast<XXH64_state_t*>(state_)); }

void Xxh64Stream::Update(const void* data, size_t bytes) {
  XXH64_update(static_cast<XXH64_state_t*>(state_), data, bytes);
}

uint64_t Xxh64Stream::Digest() const { return XXH64_digest(static_cast<XXH64_state_t*>(state_)); }

#if defined(__x86_64__)
uint64_t Xxh3(const void* data, size_t bytes) { return HasAvx2() ? Xxh3Avx2(data, bytes) : XXH3_64bits(data, bytes); }
#else
uint64_t Xxh3(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }
#endif

Xxh3Stream::Xxh3Stream() : state_(XXH3_createState()) {
  PERSIA_CHECK(state_ != nullptr);
  Reset();
}

Xxh3Stream::~Xxh3Stream() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void Xxh3Stream::Reset() { XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_)); }

void Xxh3Stream::Update(const void* data, size_t bytes) {
#if defined(__x86_64__)
  if (HasAvx2()) return Xxh3UpdateAvx2(state_, data, bytes);
#endif
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
}

uint64_t Xxh3Stream::Digest() const {
#if defined(__x86_64__)
  if (HasAvx2()) return Xxh3DigestAvx2(state_);
#endif
  return XXH3_64bits_digest(static_cast<XXH3_state_t*>(state_));
}

}  // namespace persia
