// The ids that a benchmark asks for: drawn before the clock starts, distinct within a call, a stream for each thread.
//
// Ids are 0 … rows-1; a table sees their signs. Under Zipf id 0 is the most frequent one. A stream is long enough for
// its rows to leave every cache before it comes round again, and is itself read in order, 8 bytes beside a row's 64 or
// more.
// Thread-safety: IdStreams is immutable but for each thread's own cursor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"

namespace persia::bench {

enum class IdDistribution { kUniform, kZipf };

inline const char* NameOf(IdDistribution ids) { return ids == IdDistribution::kUniform ? "uniform" : "zipf"; }

inline uint64_t SignOf(uint64_t id) { return Mix64(id + 1); }

// The k-th id in an order without structure that holds each of [0, rows) once; rows < 2^31.
inline uint64_t ShuffledId(uint64_t k, uint64_t rows) {
  constexpr uint64_t kPrime = 2654435761;
  return k * kPrime % rows;
}

class IdStreams {
 public:
  // A stream for each of `threads` (of calls of `batch` ids), drawn in parallel.
  IdStreams(IdDistribution ids, uint64_t rows, size_t batch, uint32_t threads);

  // The signs of the next call of a thread: (batch). Goes round for ever.
  std::span<const uint64_t> Next(uint32_t thread) {
    Stream& stream = streams_[thread];
    stream.at = stream.at + batch_ < stream.signs.size() ? stream.at + batch_ : 0;
    return {&stream.signs[stream.at], batch_};
  }

  IdDistribution ids() const { return ids_; }
  size_t batch() const { return batch_; }

  // Writes the ids behind the first thread's signs to a file, as little-endian int64 in calls of `batch`.
  void Write(const std::string& path) const;

 private:
  struct alignas(128) Stream {
    std::vector<uint64_t> signs;
    size_t at = 0;
  };

  IdDistribution ids_;
  uint64_t rows_;
  size_t batch_;
  size_t calls_;
  std::vector<Stream> streams_;
};

}  // namespace persia::bench
