#include "cuda/base/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

namespace persia {

Result<void*> OpenLibrary(const std::string& name, const std::string& advice) {
  std::vector<std::string> candidates;
  if (const char* root = std::getenv("CUDA_PATH")) candidates.push_back(std::string(root) + "/lib64/" + name);
  candidates.push_back(name);
  candidates.push_back("/usr/local/cuda/lib64/" + name);
  std::string tried;
  for (const std::string& candidate : candidates) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return handle;
    tried += std::string(tried.empty() ? "" : "; ") + dlerror();
  }
  return Status(ErrorCode::kDevice, name + " was not found (" + tried + "); " + advice);
}

}  // namespace persia
