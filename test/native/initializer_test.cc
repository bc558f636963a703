#include "table/initializer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace persia {
namespace {

std::vector<float> Row(const InitializerConfig& config, uint64_t seed, uint64_t sign, uint32_t dim) {
  std::vector<float> row(dim, 99.0f);
  InitializeRow(config, seed, sign, row.data(), dim);
  return row;
}

struct Moments {
  double mean = 0, variance = 0, skew = 0, kurtosis = 0, low = INFINITY, high = -INFINITY;
};

// Over the rows of many neighbouring signs, as they come in practice.
Moments MomentsOf(const InitializerConfig& config) {
  constexpr uint32_t kSigns = 20000, kDim = 16;
  std::vector<float> values;
  for (uint64_t sign = 0; sign < kSigns; ++sign) {
    for (const float value : Row(config, 1, sign, kDim)) values.push_back(value);
  }
  Moments m;
  const auto count = static_cast<double>(values.size());
  for (const float value : values) {
    m.mean += value / count;
    m.low = std::min<double>(m.low, value);
    m.high = std::max<double>(m.high, value);
  }
  for (const float value : values) m.variance += (value - m.mean) * (value - m.mean) / count;
  for (const float value : values) {
    const double z = (value - m.mean) / std::sqrt(m.variance);
    m.skew += z * z * z / count;
    m.kurtosis += z * z * z * z / count;
  }
  return m;
}

TEST_CASE("new rows have the same values in every version of Persia") {
  CHECK(Row({}, 7, 42, 4) == std::vector<float>{0.00739967963f, 0.00340122543f, -0.00329122064f, 0.00122289336f});
  CHECK(Row({.low = -1, .high = 1}, 0, 0, 4) ==
        std::vector<float>{-0.323895097f, -0.461739451f, -0.456866771f, -0.0396608971f});
  CHECK(Row({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f}, 7, 42, 4) ==
        std::vector<float>{-1.44487298f, -1.17624772f, -0.272273958f, 4.23095465f});
}

TEST_CASE("a row depends on seed and sign, and a shorter row is the start of a longer one") {
  const std::vector<float> row = Row({}, 7, 42, 16);
  CHECK(row != Row({}, 8, 42, 16));
  CHECK(row != Row({}, 7, 43, 16));
  CHECK(std::vector<float>(row.begin(), row.begin() + 5) == Row({}, 7, 42, 5));
}

TEST_CASE("uniform rows fill their interval evenly") {
  const Moments m = MomentsOf({.low = -2.0f, .high = 4.0f});
  CHECK(m.mean == doctest::Approx(1.0).epsilon(0.01));
  CHECK(m.variance == doctest::Approx(3.0).epsilon(0.01));  // (high - low)^2 / 12
  CHECK(std::abs(m.skew) < 0.02);
  CHECK(m.kurtosis == doctest::Approx(1.8).epsilon(0.02));
  CHECK(m.low >= -2.0);
  CHECK(m.high <= 4.0);
  CHECK(m.low < -1.99);
  CHECK(m.high > 3.99);
}

TEST_CASE("normal rows have the mean, spread and tails that were asked for") {
  const Moments m = MomentsOf({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f});
  CHECK(m.mean == doctest::Approx(0.5).epsilon(0.03));
  CHECK(m.variance == doctest::Approx(4.0).epsilon(0.02));
  CHECK(std::abs(m.skew) < 0.03);
  CHECK(m.kurtosis == doctest::Approx(3.0).epsilon(0.03));
}

TEST_CASE("zeros are zeros") { CHECK(Row({.type = InitializerType::kZeros}, 7, 42, 5) == std::vector<float>(5, 0.0f)); }

}  // namespace
}  // namespace persia
