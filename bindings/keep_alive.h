// Keeps JavaScript values alive while C++ threads read their memory.
#pragma once

#include <memory>
#include <vector>

#include <napi.h>

namespace persia::bindings {

// The returned owner holds `values` until its last copy is gone, on whatever thread; the references are released on the
// JavaScript thread.
std::shared_ptr<const void> KeepAlive(Napi::Env env, const std::vector<Napi::Value>& values);

}  // namespace persia::bindings
