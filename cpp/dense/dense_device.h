// Where the dense networks of a process run, and the one place that makes them.
//
// Thread-safety: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "dense/dense_model.h"

namespace persia {

enum class DenseDevice { kCpu, kCuda };

// The model of an NN worker that has the machine's first GPU, or one of a process of several, to itself: `rank` picks the
// GPU, round the GPUs that there are. Errors: those of MakeCpuDenseModel or MakeCudaDenseModel.
Result<std::unique_ptr<DenseModel>> MakeDenseModel(const DenseModelConfig& config, DenseDevice device,
                                                   uint32_t rank = 0);

// The models of all NN workers of this process, one each. On as many GPUs as there are workers they sum gradients by
// NCCL inside of their whole steps (DenseModel::sums_over_workers), where it is found and `whole_steps` are what they
// will be asked for; else whoever trains them sums.
Result<std::vector<std::unique_ptr<DenseModel>>> MakeDenseModels(const DenseModelConfig& config, DenseDevice device,
                                                                 uint32_t workers, bool whole_steps);

}  // namespace persia
