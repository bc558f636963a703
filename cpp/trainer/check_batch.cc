#include "trainer/check_batch.h"

#include <string>

namespace persia {
namespace {

Status CheckLabels(const Batch& batch, const std::vector<TaskSpec>& tasks) {
  for (size_t i = 0; i < batch.labels.size(); ++i) {
    const TaskSpec& task = tasks[i % tasks.size()];
    if (task.loss != Loss::kBce || (batch.labels[i] >= 0.0f && batch.labels[i] <= 1.0f)) continue;
    const std::string row = std::to_string(i / tasks.size());
    return Status(ErrorCode::kBatchInvalid, "The label " + task.label + " of sample " + row + " is " +
                                                std::to_string(batch.labels[i]) + "; a bce task takes 0 to 1.")
        .With("label", task.label)
        .With("sample", row);
  }
  return Status::Ok();
}

}  // namespace

Status CheckTrainingBatch(const Batch& batch, const TrainerConfig& config) {
  const auto tasks = static_cast<uint32_t>(config.dense.tasks.size());
  PERSIA_RETURN_IF_ERROR(ValidateBatch(batch, config.schema, config.dense.dense_count, tasks));
  return CheckLabels(batch, config.dense.tasks);
}

Status CheckPredictionBatch(const Batch& batch, const TrainerConfig& config) {
  PERSIA_RETURN_IF_ERROR(ValidateBatch(batch, config.schema, config.dense.dense_count, batch.label_count));
  return batch.label_count == config.dense.tasks.size() ? CheckLabels(batch, config.dense.tasks) : Status::Ok();
}

}  // namespace persia
