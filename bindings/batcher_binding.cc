#include "batcher_binding.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "batch/batcher.h"
#include "batch_handle.h"
#include "convert.h"
#include "js_thread.h"
#include "keep_alive.h"

namespace persia::bindings {
namespace {

std::optional<std::string> OptionalString(const Napi::Object& object, const char* name) {
  if (object.Get(name).IsUndefined()) return std::nullopt;
  return String(object, name);
}

// The elements of array `name`, each turned into a T.
template <typename T, typename Convert>
std::vector<T> List(const Napi::Object& object, const char* name, Convert convert) {
  const Napi::Array array = Array(object, name);
  std::vector<T> list;
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(convert(Napi::Value(array.Get(i))));
  return list;
}

IdColumnOptions ToIdColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  const IdEncoding encoding = String(object, "encoding") == "integer" ? IdEncoding::kInteger : IdEncoding::kHash;
  return {String(object, "name"), encoding, String(object, "separator")};
}

DenseColumnOptions ToDenseColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  const std::string name = String(object, "transform");
  DenseColumnOptions column;
  column.name = String(object, "name");
  column.transform = name == "log1p"         ? Transform::kLog1p
                     : name == "standardize" ? Transform::kStandardize
                                             : Transform::kNone;
  column.mean = Double(object, "mean");
  column.stddev = Double(object, "stddev");
  if (!object.Get("missing").IsUndefined()) column.missing = Double(object, "missing");
  return column;
}

LabelColumnOptions ToLabelColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  return {String(object, "name"), OptionalString(object, "positive"), Bool(object, "probability")};
}

NegativeSampling ToSampling(const Napi::Object& object) {
  return {Uint32(object, "label"), Double(object, "keep"),
          RandomKey(Uint64(object, "seed"), Uint64(object, "epoch"))};
}

BatcherOptions ToOptions(const Napi::Object& object) {
  BatcherOptions options;
  options.columns.ids = List<IdColumnOptions>(object, "ids", ToIdColumn);
  options.columns.dense = List<DenseColumnOptions>(object, "dense", ToDenseColumn);
  options.columns.labels = List<LabelColumnOptions>(object, "labels", ToLabelColumn);
  options.columns.missing = List<std::string>(
      object, "missing", [](const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); });
  options.batch_size = Uint32(object, "batchSize");
  if (!object.Get("sampling").IsUndefined()) options.sampling = ToSampling(Object(object, "sampling"));
  options.skip_rows = Uint64(object, "skipRows");
  options.stop_at_bad_row = Bool(object, "stopAtBadRow");
  options.most_reports = Uint32(object, "mostReports");
  options.collect_moments = Bool(object, "collectMoments");
  return options;
}

// The words of a validity mask for `count` values, or null when all values are there.
const uint64_t* Validity(const Napi::Object& column, const char* name, uint64_t count) {
  const Napi::Value value = column.Get(name);
  if (value.IsUndefined() || value.IsNull()) return nullptr;
  const auto words = TypedArray<const uint64_t>(value, name);
  if (words.size() < (count + 63) / 64) throw Napi::TypeError::New(column.Env(), "native call: validity is too short");
  return words.data();
}

ColumnView ToColumnView(const Napi::Value& value, uint32_t rows) {
  const auto object = value.As<Napi::Object>();
  const std::string kind = String(object, "kind");
  ColumnView column;
  column.kind = kind == "text" ? ValueKind::kText : kind == "number" ? ValueKind::kNumber : ValueKind::kInteger;
  const auto bytes = TypedArray<const uint8_t>(Field(object, "values"), "values");
  const size_t value_bytes = column.kind == ValueKind::kText ? sizeof(TextRecord) : sizeof(uint64_t);
  column.values = bytes.data();
  column.value_count = bytes.size() / value_bytes;
  column.validity = Validity(object, "validity", column.value_count);
  if (!object.Get("entries").IsUndefined()) {
    const auto entries = TypedArray<const uint64_t>(object.Get("entries"), "entries");
    if (entries.size() != size_t{2} * rows) {
      throw Napi::TypeError::New(object.Env(), "native call: entries do not match rows");
    }
    column.entries = entries.data();
    column.entry_validity = Validity(object, "entryValidity", rows);
  } else if (column.value_count != rows) {
    throw Napi::TypeError::New(object.Env(), "native call: values do not match rows");
  }
  return column;
}

ChunkView ToChunkView(const Napi::Object& object) {
  ChunkView chunk;
  chunk.rows = Uint32(object, "rows");
  const auto convert = [&](const Napi::Value& value) { return ToColumnView(value, chunk.rows); };
  chunk.ids = List<ColumnView>(object, "ids", convert);
  chunk.dense = List<ColumnView>(object, "dense", convert);
  chunk.labels = List<ColumnView>(object, "labels", convert);
  return chunk;
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

  Napi::Value Finish(const Napi::CallbackInfo& info) {
    CheckIdle(info.Env());
    auto batch = state_->batcher.Finish();
    return batch ? BatchHandle::Create(info.Env(), std::move(batch)) : info.Env().Null();
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
