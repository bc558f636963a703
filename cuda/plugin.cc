// The one symbol of the library: what cpp/dense/cuda_backend.cc looks for.
#include <cuda_runtime_api.h>

#include "cuda/base/cuda_status.h"
#include "cuda/base/lt_library.h"
#include "cuda/collective/nccl_group.h"
#include "dense/cuda_backend.h"
#include "cuda/dense/ffnn.h"

namespace persia {
namespace {

constexpr int kOldestMajor = 8;  // of compute capability: what the kernels are compiled for

Result<std::vector<CudaDevice>> Devices() {
  int count = 0;
  PERSIA_RETURN_IF_ERROR(CountDevices(&count));
  std::vector<CudaDevice> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    PERSIA_RETURN_IF_CUDA(cudaGetDeviceProperties(&properties, i), "ask a GPU for its properties");
    if (properties.major < kOldestMajor) {
      return Status(ErrorCode::kDevice, std::string(properties.name) + " has compute capability " +
                                            std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                                            "; 8.0 is the oldest that works");
    }
    devices.push_back({properties.name, properties.major, properties.minor, properties.totalGlobalMem});
  }
  if (const auto lt = LoadLt(); !lt.ok()) return lt.status();
  return devices;
}

}  // namespace
}  // namespace persia

extern "C" __attribute__((visibility("default"))) const persia::CudaPlugin* persia_cuda_plugin() {
  static const persia::CudaPlugin plugin{PERSIA_VERSION, persia::Devices, persia::MakeCudaFfnn, persia::MakeNcclId};
  return &plugin;
}
