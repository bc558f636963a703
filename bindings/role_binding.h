// Registers the roles of a cluster with JavaScript.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterRoles(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
