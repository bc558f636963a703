// Turns the TypeScript side's resolved config into the core's. Everything is given: no defaults here.
#pragma once

#include <napi.h>

#include "trainer/trainer.h"

namespace persia::bindings {

// `config` is ts/native-types.ts's NativeTrainerConfig. Throws what BuildFeatureSchema refuses.
TrainerConfig ReadTrainerConfig(const Napi::Object& config);

}  // namespace persia::bindings
