#include "dense/dense_model.h"

#include <unistd.h>

#include <new>
#include <string>

namespace persia {
namespace {

constexpr std::align_val_t kLine{64};

}  // namespace

Status ValidateDenseModel(const DenseModelConfig& config) {
  const auto invalid = [](const char* what) { return Status(ErrorCode::kConfigInvalid, what); };
  if (config.tasks.empty()) return invalid("the model needs at least one task");
  if (config.input_width() == 0) return invalid("the model has no input: neither id features nor dense features");
  for (const uint32_t width : config.hidden) {
    if (width == 0) return invalid("a hidden layer has width 0; leave the layer out instead");
  }
  if (config.schedule.every_steps == 0) return invalid("the schedule's every_steps is 0; the least is 1");

  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  double bytes = 0, in = config.input_width();
  for (const uint32_t width : config.hidden) {
    bytes += 2 * sizeof(float) * in * width;  // the least: weights and gradients
    in = width;
  }
  if (bytes > memory) {
    return Status(ErrorCode::kOutOfMemory, "the hidden layers need " + std::to_string(bytes / 1e9) +
                                               " GB, the machine has " + std::to_string(memory / 1e9) + " GB");
  }
  return Status::Ok();
}

Status DenseModel::StartStep(DenseStep* step) {
  PERSIA_RETURN_IF_ERROR(
      ForwardBackward(step->rows, step->input, step->labels, step->embedding_gradient, &step->loss));
  return ApplyGradients(step->step);
}

Status DenseModel::FinishStep(DenseStep*) { return Status::Ok(); }

void* DenseModel::AllocateHost(size_t bytes) { return ::operator new(bytes, kLine, std::nothrow); }

void DenseModel::FreeHost(void* memory) { ::operator delete(memory, kLine); }

}  // namespace persia
