#include "batch_handle.h"

#include <span>
#include <utility>
#include <vector>

#include "convert.h"
#include "keep_alive.h"

namespace persia::bindings {
namespace {

// One constructor for each environment (main thread, worker threads); an environment is bound to its thread.
thread_local Napi::FunctionReference constructor;

// A (rows, columns) matrix: row-major in one Float32Array, viewed in place, or one Float32Array a column, interleaved
// into `owned`. What must stay alive is added to `held`.
std::span<const float> ReadMatrix(const Napi::Object& source, const char* name, uint32_t rows,
                                  std::vector<float>& owned, std::vector<Napi::Value>& held) {
  const Napi::Value value = Field(source, name);
  if (!value.IsArray()) {
    held.push_back(value);
    return TypedArray<const float>(value, name);
  }
  const auto columns = value.As<Napi::Array>();
  const uint32_t width = columns.Length();
  owned.resize(size_t{rows} * width);
  for (uint32_t c = 0; c < width; ++c) {
    const std::span<const float> column = TypedArray<const float>(columns.Get(c), name);
    if (column.size() != rows) throw Napi::TypeError::New(source.Env(), "native call: a column has the wrong length");
    for (size_t row = 0; row < rows; ++row) owned[row * width + c] = column[row];
  }
  return owned;
}

// A batch on JavaScript's memory, the matrices that had to be interleaved, and the offsets: those are copied, since the
// core checks them once and relies on them afterwards, whatever JavaScript writes meanwhile.
struct HeldBatch {
  Batch batch;
  std::vector<float> dense, labels;
  std::vector<std::vector<uint32_t>> offsets;
};

int64_t BytesOf(const Batch& batch) {
  size_t bytes = batch.dense.size_bytes() + batch.labels.size_bytes();
  for (const IdColumn& column : batch.id_columns) bytes += column.ids.size_bytes() + column.offsets.size_bytes();
  return static_cast<int64_t>(bytes);
}

std::shared_ptr<const Batch> FromTypedArrays(Napi::Env env, const Napi::Object& source) {
  auto holder = std::make_shared<HeldBatch>();
  Batch* batch = &holder->batch;
  std::vector<Napi::Value> held;
  batch->rows = Uint32(source, "rows");
  batch->dense_count = Uint32(source, "denseCount");
  batch->label_count = Uint32(source, "labelCount");
  const Napi::Array columns = Array(source, "ids");
  for (uint32_t i = 0; i < columns.Length(); ++i) {
    const auto column = columns.Get(i).As<Napi::Object>();
    IdColumn ids;
    held.push_back(Field(column, "ids"));
    ids.ids = TypedArray<const uint64_t>(held.back(), "ids");
    if (const Napi::Value offsets = column.Get("offsets"); !offsets.IsUndefined()) {
      const auto given = TypedArray<const uint32_t>(offsets, "offsets");
      ids.offsets = holder->offsets.emplace_back(given.begin(), given.end());
    }
    batch->id_columns.push_back(ids);
  }
  batch->dense = ReadMatrix(source, "dense", batch->rows, holder->dense, held);
  batch->labels = ReadMatrix(source, "labels", batch->rows, holder->labels, held);
  batch->owner = KeepAlive(env, held);
  return std::shared_ptr<const Batch>(std::move(holder), batch);
}

}  // namespace

void BatchHandle::Register(Napi::Env env, Napi::Object exports) {
  Napi::Function function = DefineClass(
      env, "BatchHandle",
      {InstanceAccessor<&BatchHandle::Rows>("rows"), InstanceMethod<&BatchHandle::Release>("release")});
  constructor = Napi::Persistent(function);
  constructor.SuppressDestruct();
  exports.Set("BatchHandle", function);
}

Napi::Object BatchHandle::Create(Napi::Env env, std::shared_ptr<const Batch> batch) {
  Napi::EscapableHandleScope scope(env);
  auto held = Napi::External<std::shared_ptr<const Batch>>::New(env, &batch);
  return scope.Escape(constructor.New({held})).As<Napi::Object>();
}

std::shared_ptr<const Batch> BatchHandle::Get(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().InstanceOf(constructor.Value())) {
    throw Napi::TypeError::New(value.Env(), "native call: a BatchHandle is expected");
  }
  auto batch = Napi::ObjectWrap<BatchHandle>::Unwrap(value.As<Napi::Object>())->batch_;
  if (!batch) throw Napi::TypeError::New(value.Env(), "native call: the batch was released");
  return batch;
}

BatchHandle::BatchHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BatchHandle>(info) {
  if (info[0].IsExternal()) {
    batch_ = *info[0].As<Napi::External<std::shared_ptr<const Batch>>>().Data();
    // Else batches that nobody holds any more would pile up: their objects are small, which says little of their memory.
    // A part of the truth is enough, and makes collections rarer: some hundred megabytes may wait for one.
    known_bytes_ = BytesOf(*batch_) / 8;
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), known_bytes_);
  } else {
    batch_ = FromTypedArrays(info.Env(), info[0].As<Napi::Object>());
  }
}

BatchHandle::~BatchHandle() { Release(Env()); }

void BatchHandle::Release(Napi::Env env) {
  batch_ = nullptr;
  if (known_bytes_ > 0) Napi::MemoryManagement::AdjustExternalMemory(env, -known_bytes_);
  known_bytes_ = 0;
}

Napi::Value BatchHandle::Rows(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), batch_ ? batch_->rows : 0);
}

}  // namespace persia::bindings
