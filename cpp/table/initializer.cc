#include "table/initializer.h"

#include <algorithm>

#include "base/rng.h"

namespace persia {

void InitializeRow(const InitializerConfig& config, uint64_t seed, uint64_t sign, float* row, uint32_t dim) {
  Rng rng(RandomKey(seed, sign));
  switch (config.type) {
    case InitializerType::kUniform:
      for (uint32_t i = 0; i < dim; ++i) row[i] = static_cast<float>(rng.Uniform(config.low, config.high));
      return;
    case InitializerType::kNormal:
      for (uint32_t i = 0; i < dim; ++i) row[i] = static_cast<float>(config.mean + config.stddev * rng.Normal());
      return;
    case InitializerType::kZeros:
      std::fill_n(row, dim, 0.0f);
      return;
  }
}

}  // namespace persia
