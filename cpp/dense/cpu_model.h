// The CPU backend on a unit that the caller names, for tests and benchmarks of each: MakeCpuDenseModel of
// dense/dense_model.h takes the best that the CPU has.
#pragma once

#include <memory>

#include "dense/dense_model.h"
#include "dense/product_unit.h"

namespace persia {

// The CPU must have the unit.
Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config, ProductUnit unit);

// The unit for a precision on a CPU whose best are `fp32` and `bf16`. kConfigUnsupported: bf16 where that is kLibrary.
Result<ProductUnit> UnitFor(Precision precision, ProductUnit fp32, ProductUnit bf16);

}  // namespace persia
