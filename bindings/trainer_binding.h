// Registers the Trainer class with JavaScript.
#pragma once

#include <memory>

#include <napi.h>

#include "trainer/trainer.h"

namespace persia::bindings {

// The trainer behind a JavaScript object of the class; throws kClosed when it was closed.
std::shared_ptr<Trainer> TrainerOf(const Napi::Value& value);

void RegisterTrainer(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
