// Finds the CUDA backend, a library of its own beside the program, and makes dense networks that run on a GPU.
//
// The library is looked for at PERSIA_CUDA_LIBRARY, or as libpersia_cuda.so in the folder of the addon (or program) that
// this code is linked into. It is built from the same version (ci/build-cuda), which is checked; a machine without it,
// without a driver or without a GPU works, and CudaDevices says what is missing.
//
// Thread-safety: any thread. The library stays loaded for the process's life.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "dense/dense_model.h"

namespace persia {

enum class CudaPrecision { kFp32, kTf32, kBf16 };

// Several GPUs that train one model, each with a part of every global batch: their models sum gradients by NCCL, inside
// of their steps. A rank's model is made with the id that one of them got from MakeCudaGroupId; the ranks meet at their
// first steps. A rank that doesn't come within the deadline, or is lost, fails all (kPeerLost).
using CudaGroupId = std::array<char, 128>;
struct CudaGroup {
  CudaGroupId id{};
  uint32_t rank = 0, size = 1;
  uint64_t deadline_ms = 60'000;
};

struct CudaOptions {
  int device = 0;
  CudaPrecision precision = CudaPrecision::kFp32;
  // Times cuBLASLt's proposals for each product and takes the fastest, which may differ from run to run, and with it the
  // last bits of results. Without: the first proposal.
  bool tune = true;
  std::optional<CudaGroup> group = std::nullopt;
};

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  uint64_t memory_bytes = 0;
};

// The GPUs that the backend can use. kDevice: none; the message says what was looked for and what is missing.
Result<std::vector<CudaDevice>> CudaDevices();

// Where the library was loaded from; empty without it.
std::string CudaLibraryPath();

// DenseModel on a GPU. kDevice: as CudaDevices, or no such GPU. kConfigUnsupported: a model without a hidden layer.
Result<std::unique_ptr<DenseModel>> MakeCudaDenseModel(const DenseModelConfig& config, const CudaOptions& options);

// kDevice: no backend, or no NCCL.
Result<CudaGroupId> MakeCudaGroupId();

// What the library exports as `persia_cuda_plugin`: its version and its functions.
struct CudaPlugin {
  const char* version;
  Result<std::vector<CudaDevice>> (*devices)();
  Result<std::unique_ptr<DenseModel>> (*make_model)(const DenseModelConfig& config, const CudaOptions& options);
  Result<CudaGroupId> (*make_group_id)();
};

}  // namespace persia
