// Conversions between N-API values and the core's types. A missing or mistyped field throws a JavaScript TypeError that
// names it: the TypeScript side has validated everything, so this is a defect there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include <napi.h>

#include "base/status.h"

namespace persia::bindings {

// A JavaScript Error with `code` and `details` (ts/errors.ts turns it into a PersiaError).
Napi::Error ToError(Napi::Env env, const Status& status);

// Throws ToError(status) unless ok.
void ThrowIfError(Napi::Env env, const Status& status);

Napi::Value Field(const Napi::Object& object, const char* name);
bool Bool(const Napi::Object& object, const char* name);
double Double(const Napi::Object& object, const char* name);
float Float(const Napi::Object& object, const char* name);
uint32_t Uint32(const Napi::Object& object, const char* name);
uint64_t Uint64(const Napi::Object& object, const char* name);  // a number up to 2^53 - 1
std::string String(const Napi::Object& object, const char* name);
Napi::Object Object(const Napi::Object& object, const char* name);
Napi::Array Array(const Napi::Object& object, const char* name);

// Views on a typed array's memory, no copy. T is float, uint32_t, uint64_t or uint8_t (Float32Array, Uint32Array,
// BigUint64Array, Uint8Array).
template <typename T>
std::span<T> TypedArray(const Napi::Value& value, const char* name);

// A typed array with a copy of `values`, a contiguous range of its elements.
template <typename JsArray, typename Values>
JsArray CopyArray(Napi::Env env, const Values& values) {
  JsArray copy = JsArray::New(env, values.size());
  std::copy(values.begin(), values.end(), copy.Data());
  return copy;
}

}  // namespace persia::bindings
