// Registers the Trainer and Evaluator classes with JavaScript.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterTrainer(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
