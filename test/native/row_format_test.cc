// Row formats against conversions written out number by number, with every instruction set that this machine has.
#include "table/row_format.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "table/row_optimizer.h"
#include "simd_levels.h"

namespace persia {
namespace {

constexpr StorageType kHalves[] = {StorageType::kFp16, StorageType::kBf16};
constexpr float kInf = std::numeric_limits<float>::infinity();

// What a 16-bit type is: the number that each pattern without sign stands for, in the order of the patterns.
struct Definition {
  int exponent_bits, mantissa_bits;

  uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  uint32_t largest() const { return infinity() - 1; }

  double Value(uint32_t magnitude) const {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = static_cast<int>(magnitude >> mantissa_bits);
    const double fraction = std::ldexp(magnitude & ((1u << mantissa_bits) - 1), -mantissa_bits);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0 + fraction, exponent - bias);
  }

  // The pattern of the largest number <= `value`, which is positive and finite.
  uint32_t Below(double value) const {
    uint32_t low = 0, high = largest() + 1;
    while (high - low > 1) {
      const uint32_t middle = (low + high) / 2;
      (Value(middle) <= value ? low : high) = middle;
    }
    return low;
  }

  uint32_t Nearest(float value) const {
    const uint32_t sign = std::signbit(value) ? 0x8000u : 0u;
    if (std::isinf(value)) return sign | infinity();
    const double size = std::abs(static_cast<double>(value));
    const uint32_t below = Below(size);
    if (below == largest()) return sign | below;
    const double down = size - Value(below), up = Value(below + 1) - size;
    const bool rounds_up = up < down || (up == down && below % 2 == 1);
    return sign | (below + (rounds_up ? 1 : 0));
  }
};

Definition DefinitionOf(StorageType type) { return type == StorageType::kFp16 ? Definition{5, 10} : Definition{8, 7}; }

// A row without state of one 16-bit type.
std::vector<uint16_t> Nearest(const RowFormat& format, const std::vector<float>& row) {
  std::vector<uint16_t> stored(format.row_bytes() / 2);
  format.EncodeNearest(row.data(), stored.data());
  stored.resize(format.dim());
  return stored;
}

std::vector<uint16_t> Stochastic(const RowFormat& format, const std::vector<float>& row, uint64_t key) {
  std::vector<uint16_t> stored(format.row_bytes() / 2);
  format.EncodeStochastic(row.data(), stored.data(), key);
  stored.resize(format.dim());
  return stored;
}

// Numbers of all sizes: random bits, what is near the borders of the types, and the middles between neighbours.
std::vector<float> ManyFloats(StorageType type, size_t count) {
  const Definition definition = DefinitionOf(type);
  Rng rng(11);
  std::vector<float> values = {0.0f,         -0.0f,        kInf,      -kInf,     65504.0f,
                               65519.99f,    -65520.0f,    65536.0f,  1e30f,     3.4e38f,
                               0x1p-14f,     0x1.ffcp-15f, 0x1p-24f,  0x1p-25f,  0x1.000002p-25f,
                               0x1.ffdp-15f, 0x1p-126f,    0x1p-133f, 0x1p-134f, 0x1p-149f,
                               0x1p-26f,     std::numeric_limits<float>::max()};
  while (values.size() < count) {
    const auto pattern = static_cast<uint32_t>(rng.Next() % definition.largest());
    const double middle = (definition.Value(pattern) + definition.Value(pattern + 1)) / 2;
    for (const float near : {static_cast<float>(middle), std::nextafter(static_cast<float>(middle), kInf)}) {
      values.push_back(rng.Next() % 2 == 0 ? near : -near);
    }
    const float any = std::bit_cast<float>(static_cast<uint32_t>(rng.Next()));
    if (!std::isnan(any)) values.push_back(any);
  }
  values.resize(count);
  return values;
}

TEST_CASE("every 16-bit pattern decodes to its number and encodes back to itself") {
  for (const SimdLevel simd : LevelsHere()) {
    for (const StorageType type : kHalves) {
      const Definition definition = DefinitionOf(type);
      const RowFormat format(type, 64, 0, simd);
      for (uint32_t first = 0; first < 0x10000; first += 64) {
        std::vector<uint16_t> patterns(64);
        for (uint32_t i = 0; i < 64; ++i) patterns[i] = static_cast<uint16_t>(first + i);
        std::vector<float> row(64);
        format.Decode(patterns.data(), row.data());
        const std::vector<uint16_t> nearest = Nearest(format, row), stochastic = Stochastic(format, row, first);
        for (uint32_t i = 0; i < 64; ++i) {
          const uint32_t magnitude = patterns[i] & 0x7fffu;
          CAPTURE(patterns[i]);
          if (magnitude > definition.infinity()) {
            REQUIRE(std::isnan(row[i]));
            const uint32_t quiet = patterns[i] | (1u << (definition.mantissa_bits - 1));
            REQUIRE(nearest[i] == quiet);
            REQUIRE(stochastic[i] == quiet);
            continue;
          }
          const double size = magnitude == definition.infinity() ? kInf : definition.Value(magnitude);
          REQUIRE(row[i] == static_cast<float>(patterns[i] >= 0x8000 ? -size : size));
          REQUIRE(std::signbit(row[i]) == (patterns[i] >= 0x8000));
          REQUIRE(nearest[i] == patterns[i]);
          REQUIRE(stochastic[i] == patterns[i]);
        }
      }
    }
  }
}

TEST_CASE("rounding to nearest takes the nearer neighbour, ties to even, and never makes a finite number infinite") {
  for (const SimdLevel simd : LevelsHere()) {
    for (const StorageType type : kHalves) {
      const RowFormat format(type, 16, 0, simd);
      const std::vector<float> values = ManyFloats(type, 40000);
      for (size_t first = 0; first < values.size(); first += 16) {
        const std::vector<float> row(&values[first], &values[first] + 16);
        const std::vector<uint16_t> stored = Nearest(format, row);
        for (size_t i = 0; i < 16; ++i) {
          CAPTURE(row[i]);
          REQUIRE(stored[i] == DefinitionOf(type).Nearest(row[i]));
        }
      }
    }
  }
}

TEST_CASE("stochastic rounding gives one of the two neighbours, and what is too large the largest number") {
  for (const SimdLevel simd : LevelsHere()) {
    for (const StorageType type : kHalves) {
      const Definition definition = DefinitionOf(type);
      const RowFormat format(type, 16, 0, simd);
      const std::vector<float> values = ManyFloats(type, 40000);
      for (size_t first = 0; first < values.size(); first += 16) {
        const std::vector<float> row(&values[first], &values[first] + 16);
        const std::vector<uint16_t> stored = Stochastic(format, row, first);
        for (size_t i = 0; i < 16; ++i) {
          CAPTURE(row[i]);
          REQUIRE((stored[i] >= 0x8000) == std::signbit(row[i]));
          const uint32_t magnitude = stored[i] & 0x7fffu;
          if (std::isinf(row[i])) {
            REQUIRE(magnitude == definition.infinity());
            continue;
          }
          const double size = std::abs(static_cast<double>(row[i]));
          const uint32_t below = definition.Below(size);
          const bool moves = below < definition.largest() && definition.Value(below) < size;
          REQUIRE(magnitude >= below);
          REQUIRE(magnitude <= below + (moves ? 1 : 0));
        }
      }
    }
  }
}

TEST_CASE("the mean of stochastic roundings is the number itself") {
  constexpr uint64_t kKeys = 40000;
  const std::vector<float> row = {1.0001f, -0.3f, 0.0123f, -7.77e-5f, 3.1e-5f, -1e-6f, 5.5e-8f, 1234.567f};
  for (const SimdLevel simd : LevelsHere()) {
    for (const StorageType type : kHalves) {
      const Definition definition = DefinitionOf(type);
      const RowFormat format(type, 8, 0, simd);
      std::vector<double> sums(8);
      std::vector<float> decoded(8);
      for (uint64_t key = 0; key < kKeys; ++key) {
        format.Decode(Stochastic(format, row, key).data(), decoded.data());
        for (size_t i = 0; i < 8; ++i) sums[i] += decoded[i];
      }
      for (size_t i = 0; i < 8; ++i) {
        const double size = std::abs(static_cast<double>(row[i]));
        const uint32_t below = definition.Below(size);
        const double gap = definition.Value(below + 1) - definition.Value(below);
        const double up = (size - definition.Value(below)) / gap;
        const double deviation = gap * std::sqrt(up * (1 - up) / kKeys);
        CAPTURE(row[i]);
        CHECK(deviation > 0.0);
        CHECK(std::abs(sums[i] / kKeys - row[i]) < 4.5 * deviation);
      }
    }
  }
}

TEST_CASE("stochastic roundings of neighbours, in the row and by key, have nothing to do with each other") {
  constexpr uint32_t kDim = 64, kKeys = 2000;
  const RowFormat format(StorageType::kBf16, kDim, 0);
  const std::vector<float> row(kDim, 1.0f + 0x1p-8f);  // half way
  double same_in_row = 0, same_by_key = 0, same_by_high_bit = 0, pairs = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    const std::vector<uint16_t> here = Stochastic(format, row, key), next = Stochastic(format, row, key + 1);
    const std::vector<uint16_t> far = Stochastic(format, row, key | uint64_t{1} << 63);
    for (uint32_t i = 0; i + 1 < kDim; ++i, ++pairs) {
      same_in_row += here[i] == here[i + 1];
      same_by_key += here[i] == next[i];
      same_by_high_bit += here[i] == far[i];
    }
  }
  const double tolerance = 4.5 * 0.5 / std::sqrt(pairs);
  CHECK(std::abs(same_in_row / pairs - 0.5) < tolerance);
  CHECK(std::abs(same_by_key / pairs - 0.5) < tolerance);
  CHECK(std::abs(same_by_high_bit / pairs - 0.5) < tolerance);
}

TEST_CASE("all instruction sets store and read the same bits, and stay within the row") {
  Rng rng(5);
  constexpr size_t kGuard = 8;
  for (const SimdLevel simd : LevelsHere()) {
    for (const StorageType type : {StorageType::kFp32, StorageType::kFp16, StorageType::kBf16}) {
      for (const uint32_t dim : {1u, 2u, 5u, 8u, 16u, 19u, 32u, 64u, 100u}) {
        for (const uint32_t state : {0u, 1u, 16u, 33u}) {
          const RowFormat format(type, dim, state, simd), baseline(type, dim, state, SimdLevel::kBaseline);
          std::vector<float> row(dim + state);
          for (float& value : row) value = std::bit_cast<float>(static_cast<uint32_t>(rng.Next()));  // NaN too
          CAPTURE(dim);
          CAPTURE(state);
          const uint64_t key = rng.Next();
          std::vector<uint8_t> stored(format.row_bytes() + kGuard, 0xab), expected = stored;
          format.EncodeNearest(row.data(), stored.data());
          baseline.EncodeNearest(row.data(), expected.data());
          REQUIRE(stored == expected);
          format.EncodeStochastic(row.data(), stored.data(), key);
          baseline.EncodeStochastic(row.data(), expected.data(), key);
          REQUIRE(stored == expected);
          REQUIRE(std::all_of(stored.end() - kGuard, stored.end(), [](uint8_t byte) { return byte == 0xab; }));

          std::vector<float> read(dim + state + 1, 55.0f), expected_read = read, embedding = read;
          format.Decode(stored.data(), read.data());
          baseline.Decode(stored.data(), expected_read.data());
          format.DecodeEmbedding(stored.data(), embedding.data());
          REQUIRE(std::memcmp(read.data(), expected_read.data(), read.size() * sizeof(float)) == 0);
          REQUIRE(std::memcmp(read.data(), embedding.data(), dim * sizeof(float)) == 0);
          REQUIRE(embedding[dim] == 55.0f);
          REQUIRE(read[dim + state] == 55.0f);
          REQUIRE(std::memcmp(&read[dim], &row[dim], state * sizeof(float)) == 0);  // the state is exact
        }
      }
    }
  }
}

TEST_CASE("a row has the documented layout") {
  const RowFormat format(StorageType::kBf16, 5, 2);
  CHECK(format.row_width() == 7);
  CHECK(format.embedding_bytes() == 10);
  CHECK(format.row_bytes() == 20);
  const float row[] = {1.0f, -2.0f, 0.5f, 0.0f, 3.0f, 7.25f, -0.1f};
  const float state[] = {7.25f, -0.1f};
  std::vector<uint16_t> stored(10, 0xffff);
  format.EncodeNearest(row, stored.data());
  CHECK(std::vector<uint16_t>(stored.begin(), stored.begin() + 6) ==
        std::vector<uint16_t>{0x3f80, 0xc000, 0x3f00, 0x0000, 0x4040, 0x0000});
  CHECK(std::memcmp(&stored[6], state, sizeof(state)) == 0);

  CHECK(RowFormat(StorageType::kFp32, 16, 16).row_bytes() == 128);
  CHECK(RowFormat(StorageType::kFp16, 16, 16).row_bytes() == 96);
  CHECK(RowFormat(StorageType::kFp16, 16, 0).embedding_bytes() == 32);
}

TEST_CASE("rows are padded to lie in no more cache lines than they fill, by a quarter of their size at most") {
  const auto stride = [](uint32_t floats) { return RowFormat(StorageType::kFp32, floats, 0).stride_bytes(); };
  const std::vector<std::vector<size_t>> expected = {  // bytes, stride
      {4, 8},     {8, 8},     {12, 16},   {16, 16},   {20, 32},   {28, 32},   {32, 32},   {36, 48},   {48, 48},
      {52, 64},   {64, 64},   {68, 80},   {80, 80},   {96, 96},   {104, 128}, {128, 128}, {132, 144}, {192, 192},
      {260, 320}, {256, 256}, {388, 448}, {1028, 1088}};
  for (const std::vector<size_t>& pair : expected) {
    CAPTURE(pair[0]);
    CHECK(stride(static_cast<uint32_t>(pair[0] / 4)) == pair[1]);
  }
  for (uint32_t floats = 1; floats < 600; ++floats) {
    const size_t bytes = size_t{floats} * 4, step = stride(floats);
    CAPTURE(bytes);
    REQUIRE(step >= bytes);
    REQUIRE((step - bytes <= bytes / 4 || step - bytes < 16));
    const bool straight = step % 64 == 0 || 64 % step == 0;
    REQUIRE((straight || step % 16 == 0));
  }
}

// The mean weight after many steps of 1e-4 down from 1, of SGD on rows that are stored in between.
double Trained(StorageType type, bool stochastic) {
  constexpr uint32_t kDim = 64;
  const RowOptimizer optimizer({.type = RowOptimizerType::kSgd, .lr = 1e-4f}, kDim);
  const RowFormat format(type, kDim, 0);
  std::vector<float> row(kDim, 1.0f);
  const std::vector<float> gradient(kDim, 1.0f);
  std::vector<uint8_t> stored(format.row_bytes());
  format.EncodeNearest(row.data(), stored.data());
  for (uint64_t step = 0; step < 2000; ++step) {
    format.Decode(stored.data(), row.data());
    optimizer.Apply(row.data(), gradient.data());
    if (stochastic) {
      format.EncodeStochastic(row.data(), stored.data(), step);
    } else {
      format.EncodeNearest(row.data(), stored.data());
    }
  }
  format.Decode(stored.data(), row.data());
  double sum = 0;
  for (const float weight : row) sum += weight;
  return sum / kDim;
}

TEST_CASE("small updates of half-precision rows add up with stochastic rounding and are all lost without") {
  CHECK(Trained(StorageType::kFp32, false) == doctest::Approx(0.8).epsilon(1e-3));
  for (const StorageType type : kHalves) {
    CHECK(Trained(type, false) == 1.0);
    CHECK(Trained(type, true) == doctest::Approx(0.8).epsilon(0.03));
  }
}

}  // namespace
}  // namespace persia
