#include "cuda/base/nccl_library.h"

#include <dlfcn.h>

#include "cuda/base/library.h"

namespace persia {
namespace {

Result<const NcclLibrary*> Load() {
  const Result<void*> handle = OpenLibrary("libnccl.so.2", "install NCCL 2.14 or newer, or set CUDA_PATH");
  if (!handle.ok()) return handle.status();
  static NcclLibrary library;
#define PERSIA_NCCL_FIND(name)                                                                  \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle.value(), #name));        \
  if (library.name == nullptr) return Status(ErrorCode::kDevice, "NCCL lacks " #name "; install a newer one");
  PERSIA_NCCL_FUNCTIONS(PERSIA_NCCL_FIND)
#undef PERSIA_NCCL_FIND
  return &library;
}

}  // namespace

Result<const NcclLibrary*> LoadNccl() {
  static const Result<const NcclLibrary*> library = Load();
  return library;
}

}  // namespace persia
