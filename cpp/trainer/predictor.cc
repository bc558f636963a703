#include "trainer/predictor.h"

#include <utility>

namespace persia {

Status Predictor::Predict(std::optional<uint64_t> resting_at, uint32_t rows, const float* input, float* outputs) {
  if (!resting_at) return training_.Predict(rows, input, outputs);
  if (copy_ == nullptr) {
    auto model = MakeCpuDenseModel(config_);
    if (!model.ok()) return training_.Predict(rows, input, outputs);  // no memory for it
    copy_ = std::move(*model);
  }
  if (copied_at_ != resting_at) PERSIA_RETURN_IF_ERROR(training_.CopyWeights(*copy_));
  copied_at_ = resting_at;
  return copy_->Predict(rows, input, outputs);
}

}  // namespace persia
