// How a row lies in a slab: the embedding in its storage type, then the optimizer state as float32.
//
//   fp32:        [ embedding: dim · 4 bytes                  | state: state_width · 4 bytes ]
//   fp16, bf16:  [ embedding: dim · 2 bytes | 0 or 2 zeros   | state: state_width · 4 bytes ]
//
// A half-precision embedding learns only if small updates survive rounding: an update below half the distance between
// neighbouring numbers is lost every time by rounding to nearest. Stochastic rounding goes to the upper or the lower
// neighbour with a probability by distance, so that the expected value is exact and many small updates add up (Gupta et
// al. 2015, "Deep Learning with Limited Numerical Precision").
//
// Conversions give the same bits with every instruction set. Finite numbers beyond the largest finite one of the type
// become that one (65504 for fp16), not infinite, so that a weight can't be lost by overflow; infinities and NaN stay
// what they are, with signalling NaN becoming quiet. Subnormal numbers are converted, not flushed to zero.
//
// Thread-safety: immutable; methods are pure functions of what they are given and write only their output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "table/row_kernel.h"

namespace persia {

enum class StorageType { kFp32, kFp16, kBf16 };

class RowFormat {
 public:
  // A `simd` below the best is for tests; the results are the same.
  RowFormat(StorageType type, uint32_t dim, uint32_t state_width, SimdLevel simd = BestSimd());

  StorageType type() const { return type_; }
  uint32_t dim() const { return dim_; }
  uint32_t row_width() const { return dim_ + state_width_; }  // floats of a decoded row

  // Of the embedding alone.
  size_t embedding_bytes() const { return size_t{dim_} * (type_ == StorageType::kFp32 ? 4 : 2); }
  // Of a row, with the padding before its state.
  size_t row_bytes() const { return state_offset() + size_t{state_width_} * 4; }
  // From row to row in a slab that starts on a cache line: the next power of two from 8 to 64, above 64 the next whole
  // number of lines, so that no row lies in more lines than it fills. Where that would pad a row by more than a quarter
  // of its size, the next multiple of 16: some rows then lie in a line more.
  size_t stride_bytes() const;

  // `stored` is a row of row_bytes(), aligned to 4 bytes. `embedding` is (dim) f32, `row` (dim + state_width) f32.
  void DecodeEmbedding(const void* stored, float* embedding) const { decode_(dim_, 0, stored, embedding); }
  void Decode(const void* stored, float* row) const { decode_(dim_, state_width_, stored, row); }

  // Rounds the embedding to nearest, ties to even: exact for what Decode gave.
  void EncodeNearest(const float* row, void* stored) const { encode_nearest_(dim_, state_width_, row, stored); }

  // Rounds the embedding up or down with probability by distance; what the type has exactly doesn't move. The random
  // bits follow from `key` and the place in the row: equal keys round alike, so give each row and update its own.
  void EncodeStochastic(const float* row, void* stored, uint64_t key) const {
    encode_stochastic_(dim_, state_width_, row, stored, key);
  }

 private:
  size_t state_offset() const { return (embedding_bytes() + 3) / 4 * 4; }

  StorageType type_;
  uint32_t dim_;
  uint32_t state_width_;
  RowKernel<uint32_t, const void*, float*> decode_ = nullptr;
  RowKernel<uint32_t, const float*, void*> encode_nearest_ = nullptr;
  RowKernel<uint32_t, const float*, void*, uint64_t> encode_stochastic_ = nullptr;
};

}  // namespace persia
