#include "batcher_binding.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrow_binding.h"
#include "base/rng.h"
#include "batch/batcher.h"
#include "batch_handle.h"
#include "columns.h"
#include "convert.h"
#include "js_thread.h"
#include "keep_alive.h"

namespace persia::bindings {
namespace {

BatcherOptions ToOptions(const Napi::Object& object) {
  BatcherOptions options;
  options.columns = ToDecoderOptions(object);
  options.batch_size = Uint32(object, "batchSize");
  if (!object.Get("sampling").IsUndefined()) options.sampling = ToSampling(Object(object, "sampling"));
  options.wants_test = Bool(object, "wantsTest");
  if (!object.Get("share").IsUndefined()) options.share = ToShareSplit(Object(object, "share"));
  if (!object.Get("shuffle").IsUndefined()) {
    const auto shuffle = Object(object, "shuffle");
    options.shuffle = {Uint32(shuffle, "buffer"), RandomKey(Uint64(shuffle, "seed"), Uint64(shuffle, "epoch"))};
  }
  options.skip_rows = Uint64(object, "skipRows");
  options.stop_at_bad_row = Bool(object, "stopAtBadRow");
  options.most_reports = Uint32(object, "mostReports");
  options.collect_moments = Bool(object, "collectMoments");
  return options;
}

Napi::Object FromOutput(Napi::Env env, const Batcher::Output& output) {
  const Napi::Array batches = Napi::Array::New(env);
  for (const auto& batch : output.batches) batches.Set(batches.Length(), BatchHandle::Create(env, batch));
  const Napi::Array bad_rows = Napi::Array::New(env);
  for (const BadRow& bad : output.bad) {
    const Napi::Object row = Napi::Object::New(env);
    row.Set("row", bad.row);
    row.Set("column", bad.column);
    row.Set("value", bad.value);
    row.Set("reason", bad.reason);
    bad_rows.Set(bad_rows.Length(), row);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("batches", batches);
  result.Set("badCount", output.bad_count);
  result.Set("bad", bad_rows);
  return result;
}

Napi::Object FromBatch(Napi::Env env, const Batch& batch) {
  const Napi::Array ids = Napi::Array::New(env);
  for (const IdColumn& column : batch.id_columns) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("ids", CopyArray<Napi::BigUint64Array>(env, column.ids));
    if (!column.offsets.empty()) object.Set("offsets", CopyArray<Napi::Uint32Array>(env, column.offsets));
    ids.Set(ids.Length(), object);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("ids", ids);
  result.Set("dense", CopyArray<Napi::Float32Array>(env, batch.dense));
  result.Set("labels", CopyArray<Napi::Float32Array>(env, batch.labels));
  return result;
}

// The batcher and whether a push is running on the pool; outlives the JavaScript object while one is.
struct State {
  explicit State(BatcherOptions options) : batcher(std::move(options)) {}
  Batcher batcher;
  bool busy = false;
};

// One push on libuv's pool, with everything that it reads.
struct PushJob {
  std::shared_ptr<State> state;
  ChunkView view;
  std::shared_ptr<const void> owner;  // of the memory behind the view
  Batcher::Output output;
};

// The types of all this in JavaScript: ts/data/native-batcher.ts.
class BatcherWrap : public Napi::ObjectWrap<BatcherWrap> {
 public:
  explicit BatcherWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<BatcherWrap>(info), state_(std::make_shared<State>(ToOptions(info[0].As<Napi::Object>()))) {}

  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("Batcher", DefineClass(env, "Batcher",
                                       {InstanceMethod<&BatcherWrap::Push>("push"),
                                        InstanceMethod<&BatcherWrap::PushArrow>("pushArrow"),
                                        InstanceMethod<&BatcherWrap::Finish>("finish"),
                                        InstanceMethod<&BatcherWrap::Moments>("moments"),
                                        StaticMethod<&BatcherWrap::ColumnsOf>("columnsOf")}));
  }

 private:
  void CheckIdle(Napi::Env env) const {
    if (state_->busy) throw Napi::TypeError::New(env, "native call: the batcher is still busy with a push");
  }

  Napi::Value Push(const Napi::CallbackInfo& info) {
    CheckIdle(info.Env());
    auto job = std::make_shared<PushJob>();
    job->state = state_;
    job->view = ToChunkView(info[0].As<Napi::Object>());
    job->owner = KeepAlive(info.Env(), {info[0]});
    state_->busy = true;
    return RunInPool(
        info.Env(),
        [job] {
          job->output = job->state->batcher.Push(job->view);
          return Status::Ok();
        },
        [job](Napi::Env env) -> Napi::Value {
          job->state->busy = false;
          return FromOutput(env, job->output);
        });
  }

  // pushArrow(rows: ArrowRows, first: number, count: number): Promise<NativeBatcherOutput>
  Napi::Value PushArrow(const Napi::CallbackInfo& info) {
    CheckIdle(info.Env());
    auto job = std::make_shared<PushJob>();
    job->state = state_;
    state_->busy = true;
    return RunInPool(
        info.Env(),
        [job, rows = GetArrowRows(info[0]), first = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()),
         count = info[2].As<Napi::Number>().Uint32Value()] {
          const auto chunk = rows->Read(first, count);
          if (!chunk.ok()) return chunk.status();
          job->output = job->state->batcher.Push(*chunk.value());
          return Status::Ok();
        },
        [job](Napi::Env env) -> Napi::Value {
          job->state->busy = false;
          return FromOutput(env, job->output);
        });
  }

  Napi::Value Finish(const Napi::CallbackInfo& info) {
    CheckIdle(info.Env());
    const Napi::Array batches = Napi::Array::New(info.Env());
    for (auto& batch : state_->batcher.Finish()) {
      batches.Set(batches.Length(), BatchHandle::Create(info.Env(), std::move(batch)));
    }
    return batches;
  }

  Napi::Value Moments(const Napi::CallbackInfo& info) {
    CheckIdle(info.Env());
    const Napi::Array list = Napi::Array::New(info.Env());
    for (const persia::Moments& moments : state_->batcher.moments()) {
      const Napi::Object object = Napi::Object::New(info.Env());
      object.Set("count", static_cast<double>(moments.count));
      object.Set("mean", moments.mean);
      object.Set("m2", moments.m2);
      list.Set(list.Length(), object);
    }
    return list;
  }

  static Napi::Value ColumnsOf(const Napi::CallbackInfo& info) {
    return FromBatch(info.Env(), *BatchHandle::Get(info[0]));
  }

  std::shared_ptr<State> state_;
};

}  // namespace

void RegisterBatcher(Napi::Env env, Napi::Object exports) { BatcherWrap::Register(env, exports); }

}  // namespace persia::bindings
