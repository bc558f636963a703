// The addon's entry point: registers what the other files define. No policy here.
#include <napi.h>

#include "arrow_binding.h"
#include "batch_handle.h"
#include "batcher_binding.h"
#include "data_binding.h"
#include "evaluator_binding.h"
#include "functions.h"
#include "js_thread.h"
#include "loader_binding.h"
#include "role_binding.h"
#include "trainer_binding.h"

namespace persia::bindings {

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitJsThread(env);
  BatchHandle::Register(env, exports);
  RegisterBatcher(env, exports);
  RegisterArrow(env, exports);
  RegisterData(env, exports);
  RegisterTrainer(env, exports);
  RegisterEvaluator(env, exports);
  RegisterRoles(env, exports);
  RegisterLoaders(env, exports);
  RegisterFunctions(env, exports);
  return exports;
}

NODE_API_MODULE(persia, Init)

}  // namespace persia::bindings
