#include "dense/dense_device.h"

#include <optional>
#include <utility>

#include "dense/cuda_backend.h"

namespace persia {
namespace {

CudaPrecision ToCuda(Precision precision) {
  switch (precision) {
    case Precision::kFp32: return CudaPrecision::kFp32;
    case Precision::kTf32: return CudaPrecision::kTf32;
    case Precision::kBf16: return CudaPrecision::kBf16;
  }
  return CudaPrecision::kFp32;
}

Result<std::unique_ptr<DenseModel>> MakeOnGpu(const DenseModelConfig& config, size_t gpus, uint32_t rank,
                                              const std::optional<CudaGroup>& group) {
  return MakeCudaDenseModel(config, {.device = static_cast<int>(rank % gpus),
                                     .precision = ToCuda(config.precision),
                                     .tune = !config.deterministic,
                                     .group = group});
}

}  // namespace

Result<std::unique_ptr<DenseModel>> MakeDenseModel(const DenseModelConfig& config, DenseDevice device, uint32_t rank) {
  if (device == DenseDevice::kCpu) return MakeCpuDenseModel(config);
  const auto gpus = CudaDevices();
  if (!gpus.ok()) return gpus.status();
  return MakeOnGpu(config, gpus.value().size(), rank, std::nullopt);
}

Result<std::vector<std::unique_ptr<DenseModel>>> MakeDenseModels(const DenseModelConfig& config, DenseDevice device,
                                                                 uint32_t workers, bool whole_steps) {
  std::optional<CudaGroup> group;
  size_t gpus = 0;
  if (device == DenseDevice::kCuda) {
    const auto found = CudaDevices();
    if (!found.ok()) return found.status();
    gpus = found.value().size();
    if (whole_steps && workers > 1 && gpus >= workers) {
      if (const auto id = MakeCudaGroupId(); id.ok()) group = CudaGroup{.id = id.value(), .size = workers};
    }
  }
  std::vector<std::unique_ptr<DenseModel>> models;
  for (uint32_t rank = 0; rank < workers; ++rank) {
    if (group) group->rank = rank;
    auto model = device == DenseDevice::kCpu ? MakeCpuDenseModel(config) : MakeOnGpu(config, gpus, rank, group);
    if (!model.ok()) return model.status();
    models.push_back(std::move(*model));
  }
  return models;
}

}  // namespace persia
