#include "cuda/base/lt_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace persia {
namespace {

std::vector<std::string> Candidates() {
  const std::string versioned = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  std::vector<std::string> names;
  if (const char* root = std::getenv("CUDA_PATH")) names.push_back(std::string(root) + "/lib64/" + versioned);
  names.push_back(versioned);
  names.push_back("/usr/local/cuda/lib64/" + versioned);
  return names;
}

Result<const LtLibrary*> Load() {
  std::string tried;
  void* handle = nullptr;
  for (const std::string& name : Candidates()) {
    handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    tried += std::string(tried.empty() ? "" : "; ") + dlerror();
  }
  if (handle == nullptr) {
    return Status(ErrorCode::kDevice, "cuBLASLt was not found (" + tried + "); install CUDA " +
                                          std::to_string(CUBLAS_VER_MAJOR) + "'s cuBLAS or set CUDA_PATH");
  }
  static LtLibrary library;
#define PERSIA_LT_FIND(name)                                                                                      \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name));                                  \
  if (library.name == nullptr) return Status(ErrorCode::kDevice, "cuBLASLt lacks " #name "; install a newer one");
  PERSIA_LT_FUNCTIONS(PERSIA_LT_FIND)
#undef PERSIA_LT_FIND
  return &library;
}

}  // namespace

Result<const LtLibrary*> LoadLt() {
  static const Result<const LtLibrary*> library = Load();  // never unloaded: CUDA libraries keep threads of their own
  return library;
}

Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::Ok();
  return Status(ErrorCode::kDevice, std::string("cannot ") + what + ": cuBLASLt status " + std::to_string(status));
}

}  // namespace persia
