#include "convert.h"

#include <type_traits>

namespace persia::bindings {
namespace {

[[noreturn]] void Mistyped(Napi::Env env, const char* name, const char* expected) {
  throw Napi::TypeError::New(env, std::string("native call: ") + name + " must be " + expected);
}

template <typename T>
constexpr napi_typedarray_type ArrayType() {
  using Value = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Value, float>) return napi_float32_array;
  if constexpr (std::is_same_v<Value, uint32_t>) return napi_uint32_array;
  if constexpr (std::is_same_v<Value, uint64_t>) return napi_biguint64_array;
  return napi_uint8_array;
}

}  // namespace

Napi::Error ToError(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  Napi::Object details = Napi::Object::New(env);
  for (const auto& [key, value] : status.details()) details.Set(key, value);
  error.Value().Set("code", ErrorCodeName(status.code()));
  error.Value().Set("details", details);
  return error;
}

void ThrowIfError(Napi::Env env, const Status& status) {
  if (!status.ok()) throw ToError(env, status);
}

Napi::Value Field(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (value.IsUndefined() || value.IsNull()) Mistyped(object.Env(), name, "given");
  return value;
}

bool Bool(const Napi::Object& object, const char* name) {
  const Napi::Value value = Field(object, name);
  if (!value.IsBoolean()) Mistyped(object.Env(), name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

double Double(const Napi::Object& object, const char* name) {
  const Napi::Value value = Field(object, name);
  if (!value.IsNumber()) Mistyped(object.Env(), name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

float Float(const Napi::Object& object, const char* name) { return static_cast<float>(Double(object, name)); }

uint32_t Uint32(const Napi::Object& object, const char* name) {
  const double value = Double(object, name);
  if (!(value >= 0 && value <= 4294967295.0)) Mistyped(object.Env(), name, "an integer of 32 bits");
  return static_cast<uint32_t>(value);
}

uint64_t Uint64(const Napi::Object& object, const char* name) {
  const double value = Double(object, name);
  if (!(value >= 0 && value <= 9007199254740991.0)) Mistyped(object.Env(), name, "an integer up to 2^53 - 1");
  return static_cast<uint64_t>(value);
}

std::string String(const Napi::Object& object, const char* name) {
  const Napi::Value value = Field(object, name);
  if (!value.IsString()) Mistyped(object.Env(), name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object Object(const Napi::Object& object, const char* name) {
  const Napi::Value value = Field(object, name);
  if (!value.IsObject()) Mistyped(object.Env(), name, "an object");
  return value.As<Napi::Object>();
}

Napi::Array Array(const Napi::Object& object, const char* name) {
  const Napi::Value value = Field(object, name);
  if (!value.IsArray()) Mistyped(object.Env(), name, "an array");
  return value.As<Napi::Array>();
}

template <typename T>
std::span<T> TypedArray(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != ArrayType<T>()) {
    Mistyped(value.Env(), name, "a typed array of the right type");
  }
  const auto array = value.As<Napi::TypedArray>();
  auto* bytes = static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return {reinterpret_cast<T*>(bytes), array.ElementLength()};
}

template std::span<float> TypedArray(const Napi::Value&, const char*);
template std::span<const float> TypedArray(const Napi::Value&, const char*);
template std::span<uint32_t> TypedArray(const Napi::Value&, const char*);
template std::span<const uint32_t> TypedArray(const Napi::Value&, const char*);
template std::span<const uint64_t> TypedArray(const Napi::Value&, const char*);
template std::span<const uint8_t> TypedArray(const Napi::Value&, const char*);

}  // namespace persia::bindings
