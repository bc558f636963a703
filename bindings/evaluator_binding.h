// Evaluator: collects the metrics of a model over labelled batches.
#pragma once

#include <napi.h>

namespace persia::bindings {

void RegisterEvaluator(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
