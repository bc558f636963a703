#include "table/initializer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"

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

// The values of many neighbouring signs, as they come in practice, in order of size.
std::vector<float> SortedValues(const InitializerConfig& config) {
  constexpr uint32_t kSigns = 20000, kDim = 16;
  std::vector<float> values;
  for (uint64_t sign = 0; sign < kSigns; ++sign) {
    for (const float value : Row(config, 1, sign, kDim)) values.push_back(value);
  }
  std::sort(values.begin(), values.end());
  return values;
}

// The largest difference between the share of values up to some point and `distribution` there (Kolmogorov's and
// Smirnov's statistic): beyond 0.0036 for one in 10^3 samples of this size.
template <typename Distribution>
double DistanceTo(const std::vector<float>& sorted, const Distribution& distribution) {
  double largest = 0.0;
  const auto count = static_cast<double>(sorted.size());
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double expected = distribution(sorted[i]);
    const double before = static_cast<double>(i) / count, after = static_cast<double>(i + 1) / count;
    largest = std::max({largest, after - expected, expected - before});
  }
  return largest;
}
constexpr double kFarAway = 0.0036;

double NormalDistribution(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

Moments MomentsOfValues(const std::vector<float>& values) {
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

Moments MomentsOf(const InitializerConfig& config) { return MomentsOfValues(SortedValues(config)); }

TEST_CASE("new rows have the same values in every version of Persia") {
  CHECK(Row({}, 7, 42, 4) == std::vector<float>{0.00739967963f, 0.00340122543f, -0.00329122064f, 0.00122289336f});
  CHECK(Row({.low = -1, .high = 1}, 0, 0, 4) ==
        std::vector<float>{-0.323895097f, -0.461739451f, -0.456866771f, -0.0396608971f});
  CHECK(Row({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f}, 7, 42, 4) ==
        std::vector<float>{-1.44487298f, -1.17624772f, -0.272273958f, 4.23095465f});
  CHECK(Row({.type = InitializerType::kInverseSqrtDim}, 7, 42, 4) ==
        std::vector<float>{0.369983971f, 0.170061275f, -0.164561033f, 0.0611446723f});
  CHECK(Row({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f, .truncate = 1.0f}, 7, 42, 4) ==
        std::vector<float>{-1.44487298f, -1.17624772f, -0.272273958f, 0.0862147212f});
  CHECK(Row({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f, .truncate = 0.5f}, 7, 42, 4) ==
        std::vector<float>{1.23996794f, 0.170877919f, 0.372574955f, 1.49853766f});
  CHECK(Row({.type = InitializerType::kGamma, .shape = 2.0f, .scale = 0.5f}, 7, 42, 4) ==
        std::vector<float>{0.350043088f, 0.279536635f, 2.71061659f, 1.43335497f});
  CHECK(Row({.type = InitializerType::kGamma, .shape = 0.5f, .scale = 0.5f}, 7, 42, 4) ==
        std::vector<float>{0.00441406621f, 0.592608988f, 0.00831121858f, 0.0172595605f});
  CHECK(Row({.type = InitializerType::kPoisson, .lambda = 3.0f}, 7, 42, 4) == std::vector<float>{4, 5, 4, 2});
  CHECK(Row({.type = InitializerType::kPoisson, .lambda = 40.0f}, 7, 42, 4) == std::vector<float>{48, 37, 39, 50});
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

TEST_CASE("uniform rows are the numbers of the stream one by one, whatever their width") {
  for (const uint32_t dim : {1u, 3u, 7u, 8u, 13u, 16u, 64u, 100u}) {
    for (uint64_t sign = 0; sign < 500; ++sign) {
      Rng rng(RandomKey(7, sign));
      std::vector<float> expected(dim);
      for (float& value : expected) value = static_cast<float>(rng.Uniform(-0.3f, 0.7f));
      REQUIRE(Row({.low = -0.3f, .high = 0.7f}, 7, sign, dim) == expected);
    }
  }
}

TEST_CASE("inverse-sqrt-dim rows are uniform within one over the root of their width") {
  for (const uint32_t dim : {4u, 16u, 100u}) {
    const float bound = 1.0f / std::sqrt(static_cast<float>(dim));
    for (uint64_t sign = 0; sign < 100; ++sign) {
      CHECK(Row({.type = InitializerType::kInverseSqrtDim}, 7, sign, dim) ==
            Row({.low = -bound, .high = bound}, 7, sign, dim));
    }
  }
  const Moments m = MomentsOf({.type = InitializerType::kInverseSqrtDim});
  CHECK(m.variance == doctest::Approx(1.0 / 48.0).epsilon(0.01));
}

TEST_CASE("truncated normal rows follow the bell between its cuts and never lie beyond") {
  for (const float k : {0.25f, 1.0f, 2.0f, 3.0f}) {
    CAPTURE(k);
    const std::vector<float> values =
        SortedValues({.type = InitializerType::kNormal, .mean = 0.5f, .stddev = 2.0f, .truncate = k});
    CHECK(values.front() >= 0.5f - 2.0f * k);
    CHECK(values.back() <= 0.5f + 2.0f * k);
    CHECK(values.front() < 0.5f - 1.98f * k);
    CHECK(values.back() > 0.5f + 1.98f * k);
    const double below = NormalDistribution(-k), within = 1.0 - 2.0 * below;
    const auto expected = [&](double x) { return (NormalDistribution((x - 0.5) / 2.0) - below) / within; };
    CHECK(DistanceTo(values, expected) < kFarAway);
  }
}

TEST_CASE("a normal cut that no value reaches changes nothing") {
  const InitializerConfig plain{.type = InitializerType::kNormal, .stddev = 2.0f};
  InitializerConfig cut = plain;
  cut.truncate = 40.0f;
  CHECK(Row(cut, 7, 42, 64) == Row(plain, 7, 42, 64));
}

TEST_CASE("gamma rows have the moments and quantiles of their shape, above and below 1") {
  for (const float shape : {0.3f, 1.0f, 2.0f, 20.0f}) {
    CAPTURE(shape);
    const InitializerConfig config{.type = InitializerType::kGamma, .shape = shape, .scale = 0.5f};
    const Moments m = MomentsOf(config);
    CHECK(m.mean == doctest::Approx(0.5 * shape).epsilon(0.015));
    CHECK(m.variance == doctest::Approx(0.25 * shape).epsilon(0.03));
    CHECK(m.skew == doctest::Approx(2.0 / std::sqrt(shape)).epsilon(0.06));
    CHECK(m.low >= 0.0);
  }
  // Shapes 1 and 2 have plain distribution functions.
  const std::vector<float> one = SortedValues({.type = InitializerType::kGamma, .shape = 1.0f, .scale = 0.5f});
  CHECK(DistanceTo(one, [](double x) { return 1.0 - std::exp(-2.0 * x); }) < kFarAway);
  const std::vector<float> two = SortedValues({.type = InitializerType::kGamma, .shape = 2.0f, .scale = 0.5f});
  CHECK(DistanceTo(two, [](double x) { return 1.0 - (1.0 + 2.0 * x) * std::exp(-2.0 * x); }) < kFarAway);
  // Shape 1/2 is the square of a normal number, halved.
  const std::vector<float> half = SortedValues({.type = InitializerType::kGamma, .shape = 0.5f, .scale = 2.0f});
  CHECK(DistanceTo(half, [](double x) { return 2.0 * NormalDistribution(std::sqrt(x)) - 1.0; }) < kFarAway);
}

TEST_CASE("poisson rows have each whole number as often as the formula says, for small and large lambda") {
  for (const float lambda : {0.2f, 1.0f, 9.5f, 10.0f, 40.0f, 3000.0f}) {
    CAPTURE(lambda);
    const InitializerConfig config{.type = InitializerType::kPoisson, .lambda = lambda};
    const std::vector<float> values = SortedValues(config);
    const Moments m = MomentsOfValues(values);
    CHECK(m.mean == doctest::Approx(lambda).epsilon(0.01));
    CHECK(m.variance == doctest::Approx(lambda).epsilon(0.02));
    CHECK(m.skew == doctest::Approx(1.0 / std::sqrt(lambda)).epsilon(0.06).scale(1.0));

    double farthest = 0.0;
    for (double k = 0, share = 0; k <= 4.0 * lambda + 20.0; ++k) {
      share += std::exp(k * std::log(lambda) - lambda - std::lgamma(k + 1.0));
      const auto found = std::upper_bound(values.begin(), values.end(), static_cast<float>(k)) - values.begin();
      farthest = std::max(farthest, std::abs(static_cast<double>(found) / static_cast<double>(values.size()) - share));
    }
    CHECK(farthest < kFarAway);
    const auto counts = [](float value) { return value >= 0 && value == std::floor(value); };
    CHECK(std::all_of(values.begin(), values.end(), counts));
  }
  CHECK(Row({.type = InitializerType::kPoisson, .lambda = 0.0f}, 7, 42, 5) == std::vector<float>(5, 0.0f));
}

TEST_CASE("every random initializer gives each sign a row of its own, the same at every call") {
  for (const InitializerType type : {InitializerType::kUniform, InitializerType::kNormal, InitializerType::kGamma,
                                     InitializerType::kPoisson, InitializerType::kInverseSqrtDim}) {
    for (const float truncate : {0.0f, 0.5f, 2.0f}) {
      const InitializerConfig config{.type = type, .truncate = truncate, .shape = 0.5f, .lambda = 50.0f};
      std::set<std::vector<float>> rows;
      for (uint64_t sign = 0; sign < 3000; ++sign) {
        rows.insert(Row(config, 7, sign, 16));
        rows.insert(Row(config, 7, sign << 52, 16));  // feature groups differ in the first bits
      }
      CHECK(rows.size() == 5999);  // sign 0 came twice
      CHECK(Row(config, 7, 42, 16) == Row(config, 7, 42, 16));
      CHECK(Row(config, 8, 42, 16) != Row(config, 7, 42, 16));
    }
  }
}

TEST_CASE("zeros are zeros") { CHECK(Row({.type = InitializerType::kZeros}, 7, 42, 5) == std::vector<float>(5, 0.0f)); }

}  // namespace
}  // namespace persia
