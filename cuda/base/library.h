// Libraries of NVIDIA that are found at run time.
//
// Thread-safety: any thread.
#pragma once

#include <string>

#include "base/status.h"

namespace persia {

// Opens `name` in CUDA_PATH, by the dynamic linker or in /usr/local/cuda; never closed, since CUDA's libraries keep
// threads of their own. kDevice: not found; the message lists what was tried and ends with `advice`.
Result<void*> OpenLibrary(const std::string& name, const std::string& advice);

}  // namespace persia
