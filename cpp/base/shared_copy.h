// Copies of memory that another thread may write at the same time: the caller finds out afterwards (by a version or a
// word that changed) and throws the copy away. Each aligned 4-byte value is whole; the copy as a whole may be a
// mixture.
//
// ThreadSanitizer sees relaxed atomic accesses; otherwise these are vector moves between compiler barriers, which is
// what a relaxed loop would be if compilers vectorised it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/cpu.h"

namespace persia {

using CopyBlock = float __attribute__((vector_size(32), aligned(4), may_alias));

// `bytes` is a multiple of 4; both sides are aligned to 4.
PERSIA_ALWAYS_INLINE void CopyFromShared(void* out, const void* shared, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  for (size_t i = 0; i < bytes / 4; ++i) {
    static_cast<uint32_t*>(out)[i] = __atomic_load_n(static_cast<const uint32_t*>(shared) + i, __ATOMIC_RELAXED);
  }
#else
  // Blocks of a vector type, as wide as the caller's target has: one memcpy of it all would be `rep movsb`, which is
  // slow on some CPUs, and small ones are moved by 16 bytes whatever the target.
  auto* to = static_cast<char*>(out);
  const auto* from = static_cast<const char*>(shared);
  size_t i = 0;
  for (; i + sizeof(CopyBlock) <= bytes; i += sizeof(CopyBlock)) {
    *reinterpret_cast<CopyBlock*>(to + i) = *reinterpret_cast<const CopyBlock*>(from + i);
  }
  for (; i < bytes; i += 4) std::memcpy(to + i, from + i, 4);
  asm volatile("" ::: "memory");
#endif
}

PERSIA_ALWAYS_INLINE void CopyToShared(void* shared, const void* in, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  for (size_t i = 0; i < bytes / 4; ++i) {
    __atomic_store_n(static_cast<uint32_t*>(shared) + i, static_cast<const uint32_t*>(in)[i], __ATOMIC_RELAXED);
  }
#else
  asm volatile("" ::: "memory");
  CopyFromShared(shared, in, bytes);
#endif
}

}  // namespace persia
