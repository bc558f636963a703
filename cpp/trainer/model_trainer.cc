#include "trainer/model_trainer.h"

#include <utility>

namespace persia {

bool MergesParts(const TrainerConfig& config) { return config.mode != TrainerMode::kAsync && config.nn_workers > 1; }

StalenessGate::Schedule ScheduleOf(const TrainerConfig& config) {
  if (config.deterministic) return StalenessGate::Schedule::kOrdered;
  return config.just_in_time ? StalenessGate::Schedule::kJustInTime : StalenessGate::Schedule::kEager;
}

StepStore::Options StepOptions(const TrainerConfig& config) {
  return {config.nn_workers, MergesParts(config), config.schema.clip_norm, config.row_staleness_one_in};
}

DenseModelConfig WorkerModel(const TrainerConfig& config, uint32_t threads) {
  DenseModelConfig model = config.dense;
  model.threads = threads;
  model.deterministic = config.deterministic;
  return model;
}

DenseModelConfig ReplicaModel(DenseModelConfig model) {
  model.optimizer = {};
  model.optimizer.type = DenseOptimizerType::kSgd;
  return model;
}

}  // namespace persia
