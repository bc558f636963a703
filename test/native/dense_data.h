// Random samples for tests of dense models.
#pragma once

#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "dense/dense_model.h"

namespace persia {

struct Data {
  std::vector<float> input;   // (rows, input width): normal
  std::vector<float> labels;  // (rows, tasks): 0 or 1
};

inline Data RandomData(const DenseModelConfig& config, uint32_t rows, uint64_t key) {
  Data data;
  Rng rng(key);
  data.input.resize(size_t{rows} * config.input_width());
  for (float& value : data.input) value = static_cast<float>(rng.Normal());
  for (size_t i = 0; i < rows * config.tasks.size(); ++i) data.labels.push_back(rng.Uniform() < 0.5 ? 0.0f : 1.0f);
  return data;
}

}  // namespace persia
