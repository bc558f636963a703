#include "cuda/base/lt_library.h"

#include <dlfcn.h>

#include <string>

#include "cuda/base/library.h"

namespace persia {
namespace {

Result<const LtLibrary*> Load() {
  const std::string major = std::to_string(CUBLAS_VER_MAJOR);
  const Result<void*> handle =
      OpenLibrary("libcublasLt.so." + major, "install CUDA " + major + "'s cuBLAS or set CUDA_PATH");
  if (!handle.ok()) return handle.status();
  static LtLibrary library;
#define PERSIA_LT_FIND(name)                                                                                      \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle.value(), #name));                                  \
  if (library.name == nullptr) return Status(ErrorCode::kDevice, "cuBLASLt lacks " #name "; install a newer one");
  PERSIA_LT_FUNCTIONS(PERSIA_LT_FIND)
#undef PERSIA_LT_FIND
  return &library;
}

}  // namespace

Result<const LtLibrary*> LoadLt() {
  static const Result<const LtLibrary*> library = Load();
  return library;
}

Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::Ok();
  return Status(ErrorCode::kDevice, std::string("cannot ") + what + ": cuBLASLt status " + std::to_string(status));
}

}  // namespace persia
