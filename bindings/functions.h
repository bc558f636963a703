// Registers the addon's plain functions.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterFunctions(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
