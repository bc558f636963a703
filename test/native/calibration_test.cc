#include "dense/calibration.h"

#include <doctest/doctest.h>

#include <vector>

#include "base/rng.h"

namespace persia {
namespace {

std::vector<float> Corrected(double kept_negatives, std::vector<float> outputs) {
  const std::vector<TaskSpec> tasks{{.label = "click", .kept_negatives = kept_negatives}};
  CorrectForSampling(tasks, static_cast<uint32_t>(outputs.size()), outputs.data());
  return outputs;
}

TEST_CASE("the correction gives p / (p + (1 - p) / r)") {
  const std::vector<float> corrected = Corrected(0.1, {0.0f, 0.5f, 0.9f, 1.0f});
  CHECK(corrected[0] == 0.0f);
  CHECK(corrected[1] == doctest::Approx(0.5 / (0.5 + 0.5 / 0.1)));
  CHECK(corrected[2] == doctest::Approx(0.9 / (0.9 + 0.1 / 0.1)));
  CHECK(corrected[3] == 1.0f);
}

TEST_CASE("what a model learns from a share of the negatives is corrected to the rate in all data") {
  Rng rng(9);
  double positives = 0, kept = 0, all = 100000;
  for (int i = 0; i < all; ++i) {
    const bool positive = rng.Uniform() < 0.03;
    if (!positive && rng.Uniform() >= 0.05) continue;
    ++kept;
    positives += positive;
  }
  const auto learnt = static_cast<float>(positives / kept);  // the best constant
  CHECK(learnt > 0.3f);
  CHECK(Corrected(0.05, {learnt})[0] == doctest::Approx(positives / all).epsilon(0.02));
}

TEST_CASE("tasks without sampling are left as they are") {
  const std::vector<TaskSpec> tasks{{.label = "value", .loss = Loss::kMse}, {.label = "click", .kept_negatives = 0.5}};
  std::vector<float> outputs{7.0f, 0.5f, -2.0f, 0.5f};
  CorrectForSampling(tasks, 2, outputs.data());
  CHECK(outputs == std::vector<float>{7.0f, 0.5f / 1.5f, -2.0f, 0.5f / 1.5f});
}

}  // namespace
}  // namespace persia
