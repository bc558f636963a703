// Registers the Batcher class (cpp/batch/batcher.h) with JavaScript.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterBatcher(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
