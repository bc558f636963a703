#include "keep_alive.h"

#include "js_thread.h"

namespace persia::bindings {

using References = std::vector<Napi::ObjectReference>;

std::shared_ptr<const void> KeepAlive(Napi::Env env, const std::vector<Napi::Value>& values) {
  auto* references = new References;
  for (const Napi::Value& value : values) references->push_back(Napi::Persistent(value.As<Napi::Object>()));
  return std::shared_ptr<const void>(references, [thread = JsThread(env), references](const void*) {
    thread.Post([references](Napi::Env) { delete references; });
  });
}

}  // namespace persia::bindings
