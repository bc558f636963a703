// Prepared data in JavaScript's hands: writing parts of it, and reading it batch by batch.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterData(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
