#include "dense/cuda_backend.h"

#include <dlfcn.h>

#include <cstdlib>

#include "base/own_folder.h"

namespace persia {
namespace {

constexpr const char* kLibrary = "libpersia_cuda.so";

struct Loaded {
  std::string path;
  const CudaPlugin* plugin = nullptr;
  Status status;
};

Loaded Load() {
  const char* named = std::getenv("PERSIA_CUDA_LIBRARY");
  Loaded loaded;
  const std::string path = named != nullptr ? named : OwnFolder() + "/" + kLibrary;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    loaded.status = Status(ErrorCode::kDevice, std::string("the CUDA backend was not found: ") + dlerror() +
                                                   "; build it with ci/build-cuda and set PERSIA_CUDA_LIBRARY");
    return loaded;
  }
  loaded.path = path;
  using Entry = const CudaPlugin* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(handle, "persia_cuda_plugin"));
  const CudaPlugin* plugin = entry != nullptr ? entry() : nullptr;
  if (plugin == nullptr || std::string(plugin->version) != PERSIA_VERSION) {
    loaded.status = Status(ErrorCode::kDevice, path + " is of version " + (plugin ? plugin->version : "unknown") +
                                                   ", this is " PERSIA_VERSION "; build both from one version");
    return loaded;
  }
  loaded.plugin = plugin;
  return loaded;
}

const Loaded& Backend() {
  static const Loaded loaded = Load();
  return loaded;
}

}  // namespace

std::string CudaLibraryPath() { return Backend().path; }

Result<std::vector<CudaDevice>> CudaDevices() {
  const Loaded& backend = Backend();
  if (backend.plugin == nullptr) return backend.status;
  return backend.plugin->devices();
}

Result<std::unique_ptr<DenseModel>> MakeCudaDenseModel(const DenseModelConfig& config, const CudaOptions& options) {
  const Loaded& backend = Backend();
  if (backend.plugin == nullptr) return backend.status;
  return backend.plugin->make_model(config, options);
}

Result<CudaGroupId> MakeCudaGroupId() {
  const Loaded& backend = Backend();
  if (backend.plugin == nullptr) return backend.status;
  return backend.plugin->make_group_id();
}

}  // namespace persia
