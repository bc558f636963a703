// Arrow files in JavaScript's hands: opening them, and reading rows of wanted columns into a batcher or a part.
#pragma once

#include <memory>

#include <napi.h>

#include "data/arrow_source.h"

namespace persia::bindings {

// The reader behind a NativeArrowRows. One call at a time may use it.
std::shared_ptr<ArrowRows> GetArrowRows(const Napi::Value& value);

void RegisterArrow(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
