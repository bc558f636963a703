#include "trainer/model_trainer.h"

#include <utility>

namespace persia {

bool MergesParts(const TrainerConfig& config) { return config.mode != TrainerMode::kAsync && config.nn_workers > 1; }

StepStore::Options StepOptions(const TrainerConfig& config) {
  return {config.nn_workers, MergesParts(config), config.schema.clip_norm, config.row_staleness_one_in};
}

StalenessGate::Schedule ScheduleOf(const TrainerConfig& config) {
  PERSIA_CHECK(!(config.deterministic && config.just_in_time));  // what is just in time depends on the machine
  if (config.deterministic) return StalenessGate::Schedule::kOrdered;
  return config.just_in_time ? StalenessGate::Schedule::kJustInTime : StalenessGate::Schedule::kEager;
}

Status CheckDenseConfig(const TrainerConfig& config) {
  if (config.mode == TrainerMode::kAsync && config.device == DenseDevice::kCuda) {
    return Status(ErrorCode::kConfigUnsupported,
                  "mode async trains on the CPU only; use device cpu, or mode hybrid or sync on the GPU");
  }
  return ValidateDenseModel(config.dense);
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
