// The hashes of the project, all stable by definition on every platform and version.
//
// - Xxh64: XXH64 of its public specification. HashId (text ids to uint64) and all file checksums are XXH64 with seed 0.
// - Xxh3: the 64-bit XXH3 of the same project, two to three times as fast: checksums of messages between processes.
// - Mix64: the finalizer of SplitMix64 (Steele, Lea, Flood 2014), a bijection on 64 bits. Spreads signs over slots and
//   shards and derives random streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace persia {

uint64_t Xxh64(const void* data, size_t bytes, uint64_t seed = 0);

uint64_t Xxh3(const void* data, size_t bytes);

// XXH3 over data that comes in pieces: the same number as over all of it at once.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(const Xxh3Stream&) = delete;
  Xxh3Stream& operator=(const Xxh3Stream&) = delete;

  void Reset();  // begins anew
  void Update(const void* data, size_t bytes);
  uint64_t Digest() const;

 private:
  void* state_;
};

// The id of a text value: XXH64 of its bytes as they stand (UTF-8, no trimming, no case folding), seed 0.
inline uint64_t HashId(std::string_view text) { return Xxh64(text.data(), text.size()); }

// XXH64 (seed 0) over data that comes in pieces.
class Xxh64Stream {
 public:
  Xxh64Stream();
  ~Xxh64Stream();
  Xxh64Stream(const Xxh64Stream&) = delete;
  Xxh64Stream& operator=(const Xxh64Stream&) = delete;

  void Update(const void* data, size_t bytes);
  uint64_t Digest() const;

 private:
  void* state_;
};

constexpr uint64_t Mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  x ^= x >> 31;
  return x;
}

}  // namespace persia
