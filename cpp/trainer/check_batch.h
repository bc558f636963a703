// What trainers refuse of a batch before anything is done with it. kBatchInvalid names the sample.
#pragma once

#include "base/status.h"
#include "batch/batch.h"
#include "trainer/model_trainer.h"

namespace persia {

// Labels of every task; those of a bce task are probabilities.
Status CheckTrainingBatch(const Batch& batch, const TrainerConfig& config);

// Labels may be there.
Status CheckPredictionBatch(const Batch& batch, const TrainerConfig& config);

}  // namespace persia
