// The CPU backend on a unit that the caller names, for tests and benchmarks of each: MakeCpuDenseModel of
// dense/dense_model.h takes the best that the CPU has.
#pragma once

#include <memory>

#include "dense/bf16_unit.h"
#include "dense/dense_model.h"

namespace persia {

// Products of float32 with kNone, of bf16 else. The CPU must have the unit.
Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config, Bf16Unit bf16);

}  // namespace persia
