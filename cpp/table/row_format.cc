// Conversions are written on the bits, without branches, so that plain loops become vectors (table/row_kernel.h) and no
// rounding mode or instruction set changes a result. fp16 goes through the F16C instructions where the CPU has them.
#include "table/row_format.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/copy.h"
#include "base/hash.h"
#include "base/status.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace persia {
namespace {

constexpr uint32_t kSign = 0x80000000u, kMagnitude = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;  // of float32

// Comparisons of numbers below 2^31, as signed ones: vectors have no others before AVX-512.
PERSIA_ALWAYS_INLINE bool Less(uint32_t a, uint32_t b) { return static_cast<int32_t>(a) < static_cast<int32_t>(b); }
PERSIA_ALWAYS_INLINE uint32_t Least(uint32_t a, uint32_t b) { return Less(a, b) ? a : b; }

// By mask, because the compiler turns a choice between float results into a branch, which does not vectorise.
PERSIA_ALWAYS_INLINE uint32_t Choose(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - static_cast<uint32_t>(first);
  return (a & mask) | (b & ~mask);
}

// A random word for the value `index` of a row: the integer hash "lowbias32" of C. Wellons over a counter, with the
// second half of the 64-bit key mixed in on the way.
struct RandomBits {
  explicit RandomBits(uint64_t key)
      : start(static_cast<uint32_t>(Mix64(key))), salt(static_cast<uint32_t>(Mix64(key) >> 32)) {}

  PERSIA_ALWAYS_INLINE uint32_t At(uint32_t index) const {
    uint32_t x = start + index * 0x9e3779b9u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = ((x ^ (x >> 15)) + salt) * 0x846ca68bu;
    return x ^ (x >> 16);
  }

  uint32_t start, salt;
};

// A 16-bit type: Widen gives the bits of a float32, Nearest and Stochastic those of the type.
struct Bf16 {
  static PERSIA_ALWAYS_INLINE uint32_t Widen(uint32_t stored) { return stored << 16; }

  static PERSIA_ALWAYS_INLINE uint32_t Nearest(uint32_t bits) { return Cut(bits, 0x7fffu + ((bits >> 16) & 1u)); }
  static PERSIA_ALWAYS_INLINE uint32_t Stochastic(uint32_t bits, uint32_t random) { return Cut(bits, random >> 16); }

 private:
  // Cuts 16 bits off after adding `up` < 2^16 to them, which carries into the number above or not.
  static PERSIA_ALWAYS_INLINE uint32_t Cut(uint32_t bits, uint32_t up) {
    const uint32_t magnitude = bits & kMagnitude;
    const uint32_t finite = Least((magnitude + up) >> 16, 0x7f7fu);
    const uint32_t nan = (magnitude >> 16) | 0x40u;
    const uint32_t special = Choose(magnitude == kInfinity, 0x7f80u, nan);
    return ((bits & kSign) >> 16) | Choose(Less(magnitude, kInfinity), finite, special);
  }
};

struct Fp16 {
  static PERSIA_ALWAYS_INLINE uint32_t Widen(uint32_t stored) {
    const uint32_t magnitude = stored & 0x7fffu;
    // The exponent moves from bias 15 to bias 127, and to all ones for what is infinite or NaN.
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    const uint32_t special = ((magnitude << 13) + (224u << 23)) | Choose(Less(0x7c00u, magnitude), 0x400000u, 0u);
    const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
    const uint32_t finite = Choose(Less(magnitude, 0x400u), subnormal, normal);
    return ((stored & 0x8000u) << 16) | Choose(Less(magnitude, 0x7c00u), finite, special);
  }

  static PERSIA_ALWAYS_INLINE uint32_t Nearest(uint32_t bits) {
    const uint32_t magnitude = bits & kMagnitude;
    // Below the normal numbers of fp16, adding 0.5 leaves exactly the multiples of 2^-24, rounded by the addition.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
    return Assemble(bits, subnormal, 0xfffu + ((magnitude >> 13) & 1u));
  }

  static PERSIA_ALWAYS_INLINE uint32_t Stochastic(uint32_t bits, uint32_t random) {
    // In units of 2^-24, up by one when the fraction exceeds a random number in [0, 1) of 24 bits. Only of use below
    // the normal numbers; others are kept from overflowing the integer.
    const uint32_t magnitude = Least(bits & kMagnitude, kLeastNormal);
    const float units = std::bit_cast<float>(magnitude) * 0x1p24f;
    const auto whole = static_cast<int32_t>(units);
    const float fraction = units - static_cast<float>(whole);
    const float threshold = static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f;
    const uint32_t subnormal = static_cast<uint32_t>(whole) + static_cast<uint32_t>(fraction > threshold);
    return Assemble(bits, subnormal, random >> 19);
  }

 private:
  static constexpr uint32_t kLeastNormal = 113u << 23;  // 2^-14

  // `subnormal` where the number is below the normal ones, else cut as bf16 is, by 13 bits.
  static PERSIA_ALWAYS_INLINE uint32_t Assemble(uint32_t bits, uint32_t subnormal, uint32_t up) {
    const uint32_t magnitude = bits & kMagnitude;
    const uint32_t capped = Least(magnitude, 0x477fffffu);  // below 2^16: the exponent fits
    const uint32_t normal = Least(((capped + up) >> 13) - (112u << 10), 0x7bffu);
    const uint32_t finite = Choose(Less(magnitude, kLeastNormal), subnormal, normal);
    const uint32_t nan = ((magnitude >> 13) & 0x3ffu) | 0x7e00u;
    const uint32_t special = Choose(magnitude == kInfinity, 0x7c00u, nan);
    return ((bits & kSign) >> 16) | Choose(Less(magnitude, kInfinity), finite, special);
  }
};

// Where the state stands behind a 16-bit embedding.
PERSIA_ALWAYS_INLINE size_t StateOffset(uint32_t dim) { return (size_t{dim} * 2 + 3) / 4 * 4; }

PERSIA_ALWAYS_INLINE void DecodeState(uint32_t dim, uint32_t state_width, const void* stored, float* row) {
  const char* state = static_cast<const char*>(stored) + StateOffset(dim);
  CopyFloats(row + dim, reinterpret_cast<const float*>(state), state_width);
}

PERSIA_ALWAYS_INLINE void EncodeState(uint32_t dim, uint32_t state_width, const float* row, void* stored) {
  char* state = static_cast<char*>(stored) + StateOffset(dim);
  if (dim % 2 != 0) std::memset(static_cast<char*>(stored) + size_t{dim} * 2, 0, 2);
  CopyFloats(reinterpret_cast<float*>(state), row + dim, state_width);
}

// Stored numbers may lie at any address: rows are also written into messages.
template <typename Type>
PERSIA_ALWAYS_INLINE void Widen(uint32_t begin, uint32_t end, const char* __restrict stored, float* __restrict row) {
  for (uint32_t i = begin; i < end; ++i) {
    uint16_t half;
    std::memcpy(&half, stored + size_t{i} * 2, sizeof(half));
    row[i] = std::bit_cast<float>(Type::Widen(half));
  }
}

template <typename Type>
PERSIA_ALWAYS_INLINE void Narrow(uint32_t begin, uint32_t end, const float* __restrict row, char* __restrict stored) {
  for (uint32_t i = begin; i < end; ++i) {
    const auto half = static_cast<uint16_t>(Type::Nearest(std::bit_cast<uint32_t>(row[i])));
    std::memcpy(stored + size_t{i} * 2, &half, sizeof(half));
  }
}

template <typename Type>
struct DecodeHalf {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const void* stored, float* row) {
    Widen<Type>(0, dim, static_cast<const char*>(stored), row);
    DecodeState(dim, state_width, stored, row);
  }
};

template <typename Type>
struct EncodeHalfNearest {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const float* row, void* stored) {
    Narrow<Type>(0, dim, row, static_cast<char*>(stored));
    EncodeState(dim, state_width, row, stored);
  }
};

template <typename Type>
struct EncodeHalfStochastic {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const float* __restrict row,
                                       void* __restrict stored, uint64_t key) {
    const RandomBits random(key);
    auto* __restrict out = static_cast<uint16_t*>(stored);
    for (uint32_t i = 0; i < dim; ++i) {
      out[i] = static_cast<uint16_t>(Type::Stochastic(std::bit_cast<uint32_t>(row[i]), random.At(i)));
    }
    EncodeState(dim, state_width, row, stored);
  }
};

struct DecodeFp32 {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const void* stored, float* row) {
    CopyFloats(row, static_cast<const float*>(stored), size_t{dim} + state_width);
  }
};

struct EncodeFp32Nearest {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const float* row, void* stored) {
    CopyFloats(static_cast<float*>(stored), row, size_t{dim} + state_width);
  }
};

struct EncodeFp32Stochastic {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const float* row, void* stored, uint64_t) {
    EncodeFp32Nearest::Run(dim, state_width, row, stored);
  }
};

#if defined(__x86_64__)
struct DecodeFp16F16c {
  static PERSIA_TARGET_AVX2 PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const void* stored,
                                                          float* row) {
    const auto* half = static_cast<const uint16_t*>(stored);
    const uint32_t whole = dim / 8 * 8;
    for (uint32_t i = 0; i < whole; i += 8) {
      const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i));
      _mm256_storeu_ps(row + i, _mm256_cvtph_ps(eight));
    }
    Widen<Fp16>(whole, dim, static_cast<const char*>(stored), row);
    DecodeState(dim, state_width, stored, row);
  }
};

struct EncodeFp16NearestF16c {
  static PERSIA_TARGET_AVX2 PERSIA_ALWAYS_INLINE void Run(uint32_t dim, uint32_t state_width, const float* row,
                                                          void* stored) {
    auto* half = static_cast<uint16_t*>(stored);
    const uint32_t whole = dim / 8 * 8;
    const __m256 largest = _mm256_set1_ps(65504.0f), magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
    for (uint32_t i = 0; i < whole; i += 8) {
      const __m256 value = _mm256_loadu_ps(row + i);
      const __m256 size = _mm256_and_ps(value, magnitude);
      // The smaller of the two, or its second operand for NaN; then infinities as they were.
      const __m256 capped = _mm256_min_ps(largest, size);
      const __m256 kept = _mm256_blendv_ps(capped, size, _mm256_cmp_ps(size, infinity, _CMP_EQ_OQ));
      const __m256 signed_again = _mm256_or_ps(kept, _mm256_andnot_ps(magnitude, value));
      const __m128i eight = _mm256_cvtps_ph(signed_again, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(half + i), eight);
    }
    Narrow<Fp16>(whole, dim, row, static_cast<char*>(stored));
    EncodeState(dim, state_width, row, stored);
  }
};
#else
using DecodeFp16F16c = DecodeHalf<Fp16>;
using EncodeFp16NearestF16c = EncodeHalfNearest<Fp16>;
#endif

constexpr size_t RoundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

RowFormat::RowFormat(StorageType type, uint32_t dim, uint32_t state_width, SimdLevel simd)
    : type_(type), dim_(dim), state_width_(state_width) {
  PERSIA_CHECK(dim > 0 && simd <= BestSimd());
  switch (type) {
    case StorageType::kFp32:
      PickRowKernel<DecodeFp32>(simd, dim, &decode_);
      PickRowKernel<EncodeFp32Nearest>(simd, dim, &encode_nearest_);
      PickRowKernel<EncodeFp32Stochastic>(simd, dim, &encode_stochastic_);
      break;
    case StorageType::kFp16:
      PickRowKernel<DecodeHalf<Fp16>, DecodeFp16F16c>(simd, dim, &decode_);
      PickRowKernel<EncodeHalfNearest<Fp16>, EncodeFp16NearestF16c>(simd, dim, &encode_nearest_);
      PickRowKernel<EncodeHalfStochastic<Fp16>>(simd, dim, &encode_stochastic_);
      break;
    case StorageType::kBf16:
      PickRowKernel<DecodeHalf<Bf16>>(simd, dim, &decode_);
      PickRowKernel<EncodeHalfNearest<Bf16>>(simd, dim, &encode_nearest_);
      PickRowKernel<EncodeHalfStochastic<Bf16>>(simd, dim, &encode_stochastic_);
      break;
  }
  PERSIA_CHECK(decode_ != nullptr);
}

size_t RowFormat::stride_bytes() const {
  constexpr size_t kLine = 64;
  const size_t bytes = row_bytes();
  const size_t straight = bytes > kLine ? RoundUp(bytes, kLine) : std::max<size_t>(8, std::bit_ceil(bytes));
  // (A row of 4 bytes takes 8, the least stride, all the same.)
  return straight - bytes <= bytes / 4 ? straight : std::min(straight, RoundUp(bytes, 16));
}

}  // namespace persia
