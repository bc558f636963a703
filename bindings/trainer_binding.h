// Registers the Trainer class with JavaScript: one for trainers of this process and for clusters.
#pragma once

#include <memory>

#include <napi.h>

#include "trainer/model_trainer.h"

namespace persia::bindings {

// The trainer behind a JavaScript object of the class; throws kClosed when it was closed.
std::shared_ptr<ModelTrainer> TrainerOf(const Napi::Value& value);

void RegisterTrainer(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
