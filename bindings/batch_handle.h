// BatchHandle: a core Batch in JavaScript's hands. Made from typed arrays, which it keeps alive and reads in place, or
// handed out by the batcher.
#pragma once

#include <memory>

#include <napi.h>

#include "batch/batch.h"

namespace persia::bindings {

class BatchHandle : public Napi::ObjectWrap<BatchHandle> {
 public:
  static void Register(Napi::Env env, Napi::Object exports);
  static Napi::Object Create(Napi::Env env, std::shared_ptr<const Batch> batch);
  // Throws for what is no BatchHandle, and for one that was released.
  static std::shared_ptr<const Batch> Get(const Napi::Value& value);

  // new BatchHandle({ rows, ids: [{ ids: BigUint64Array, offsets?: Uint32Array }], denseCount, dense, labelCount,
  //                   labels })
  // dense and labels: Float32Array (rows, count), or an array of Float32Array (rows), one a column
  explicit BatchHandle(const Napi::CallbackInfo& info);
  ~BatchHandle() override;

 private:
  void Release(Napi::Env env);
  void Release(const Napi::CallbackInfo& info) { Release(info.Env()); }
  Napi::Value Rows(const Napi::CallbackInfo& info);

  std::shared_ptr<const Batch> batch_;  // null: released
  int64_t known_bytes_ = 0;  // that the garbage collector was told of
};

}  // namespace persia::bindings
