// The smallest model that roles of a cluster take in fuzz targets: two features, one table, a hidden layer.
#pragma once

#include "trainer/trainer.h"

namespace persia {

inline TrainerConfig SmallModel() {
  TrainerConfig config;
  config.schema = *BuildFeatureSchema({{"a", 2, Pooling::kSum, 0, 0, 0}, {"b", 2, Pooling::kMean, 1, 0, 0}}, 8);
  config.tables.resize(1);
  config.tables[0].dim = 2;
  config.tables[0].capacity_rows = 64;
  config.tables[0].group_count = config.schema.group_count;
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count = 1;
  config.dense.hidden = {2};
  config.dense.tasks = {{"click", Loss::kBce, 1.0f}};
  config.dense.threads = 1;
  return config;
}

}  // namespace persia
