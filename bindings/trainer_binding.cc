#include "trainer_binding.h"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "batch_handle.h"
#include "cluster_options.h"
#include "convert.h"
#include "js_thread.h"
#include "keep_alive.h"
#include "loader_binding.h"
#include "snapshot_files.h"
#include "trainer/trainer.h"
#include "trainer_config.h"
#include "worker/rows.h"

namespace persia::bindings {
namespace {

Napi::Object CountersToJs(Napi::Env env, const TableCounters& counters) {
  Napi::Object result = Napi::Object::New(env);
  auto set = [&](const char* name, uint64_t value) { result.Set(name, static_cast<double>(value)); };
  set("rows", counters.rows);
  set("bytes", counters.bytes);
  set("lanes", counters.lanes);
  set("hits", counters.hits);
  set("misses", counters.misses);
  set("inserts", counters.inserts);
  set("evictions", counters.evictions);
  set("expired", counters.expired);
  set("refused", counters.refused);
  set("missedUpdates", counters.missed_updates);
  set("nonFiniteSkipped", counters.non_finite_skipped);
  return result;
}

// With the counters of its feature groups.
Napi::Object TableToJs(Napi::Env env, const ClassCounters& counters) {
  Napi::Object result = CountersToJs(env, counters.table);
  const Napi::Array groups = Napi::Array::New(env);
  for (const TableCounters& group : counters.groups) groups.Set(groups.Length(), CountersToJs(env, group));
  result.Set("groups", groups);
  return result;
}

Napi::Array NumbersToJs(Napi::Env env, std::span<const uint64_t> numbers) {
  Napi::Array result = Napi::Array::New(env, numbers.size());
  for (uint32_t i = 0; i < numbers.size(); ++i) result.Set(i, static_cast<double>(numbers[i]));
  return result;
}

Napi::Object DelaysToJs(Napi::Env env, uint64_t count, uint64_t sum, uint64_t most) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("count", static_cast<double>(count));
  result.Set("sum", static_cast<double>(sum));
  result.Set("most", static_cast<double>(most));
  return result;
}

Napi::Object StageToJs(Napi::Env env, const StageReport& stage) {
  const StageTotals& totals = stage.totals;
  Napi::Object result = Napi::Object::New(env);
  result.Set("stage", stage.name);
  result.Set("worker", stage.worker);
  result.Set("idle", totals.seconds[static_cast<size_t>(Activity::kIdle)]);
  result.Set("held", totals.seconds[static_cast<size_t>(Activity::kHeld)]);
  result.Set("busy", totals.seconds[static_cast<size_t>(Activity::kBusy)]);
  result.Set("steps", static_cast<double>(totals.steps));
  result.Set("queued", static_cast<double>(totals.queued));
  result.Set("mostQueued", static_cast<double>(totals.most_queue));
  return result;
}

class TrainerBinding : public Napi::ObjectWrap<TrainerBinding> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Trainer",
                       {InstanceMethod<&TrainerBinding::Push>("push"), InstanceMethod<&TrainerBinding::Drain>("drain"),
                        InstanceMethod<&TrainerBinding::Pause>("pause"),
                        InstanceMethod<&TrainerBinding::Resume>("resume"),
                        InstanceMethod<&TrainerBinding::AtRest>("atRest"),
                        InstanceMethod<&TrainerBinding::Save>("save"),
                        InstanceMethod<&TrainerBinding::Restore>("restore"),
                        InstanceMethod<&TrainerBinding::Predict>("predict"),
                        InstanceMethod<&TrainerBinding::RowWidth>("rowWidth"),
                        InstanceMethod<&TrainerBinding::ReadRows>("readRows"),
                        InstanceMethod<&TrainerBinding::WriteRows>("writeRows"),
                        InstanceMethod<&TrainerBinding::Progress>("progress"),
                        InstanceMethod<&TrainerBinding::Counters>("counters"),
                        InstanceMethod<&TrainerBinding::Pipeline>("pipeline"),
                        InstanceMethod<&TrainerBinding::Trace>("trace"),
                        InstanceMethod<&TrainerBinding::Close>("close")});
  }

  static Napi::Object New(Napi::Env env, std::shared_ptr<ModelTrainer> trainer) {
    Napi::EscapableHandleScope scope(env);
    auto held = Napi::External<std::shared_ptr<ModelTrainer>>::New(env, &trainer);
    return scope.Escape(constructor.New({held})).As<Napi::Object>();
  }

  explicit TrainerBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrainerBinding>(info) {
    if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "native call: use createTrainer");
    trainer_ = std::move(*info[0].As<Napi::External<std::shared_ptr<ModelTrainer>>>().Data());
  }

  // One for each environment; an environment is bound to its thread.
  static thread_local Napi::FunctionReference constructor;

  std::shared_ptr<ModelTrainer> trainer(Napi::Env env) const {
    if (!trainer_) throw ToError(env, Status(ErrorCode::kClosed, "the trainer was closed"));
    return trainer_;
  }

 private:
  // push(batch: BatchHandle): Promise<void>
  Napi::Value Push(const Napi::CallbackInfo& info) {
    const auto target = trainer(info.Env());
    std::shared_ptr<const Batch> batch = BatchHandle::Get(info[0]);
    Settler settle(info.Env());
    target->Push(std::move(batch), settle);
    return settle.promise();
  }

  // drain(moreComes: boolean): Promise<void>
  Napi::Value Drain(const Napi::CallbackInfo& info) {
    const auto target = trainer(info.Env());
    Settler settle(info.Env());
    target->Drain(settle, info[0].ToBoolean());
    return settle.promise();
  }

  // pause(afterStep?: number): Promise<void>
  Napi::Value Pause(const Napi::CallbackInfo& info) {
    const auto target = trainer(info.Env());
    std::optional<uint64_t> at;
    if (info[0].IsNumber()) at = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
    Settler settle(info.Env());
    target->Pause(at, settle);
    return settle.promise();
  }

  void Resume(const Napi::CallbackInfo& info) { trainer(info.Env())->Resume(); }

  Napi::Value AtRest(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), trainer(info.Env())->at_rest());
  }

  // save(directory: string): Promise<{ name, bytes, checksum }[]>
  Napi::Value Save(const Napi::CallbackInfo& info) {
    auto files = std::make_shared<std::vector<SnapshotFile>>();
    auto work = [target = trainer(info.Env()), directory = info[0].As<Napi::String>().Utf8Value(), files] {
      Result<std::vector<SnapshotFile>> saved = target->Save(directory);
      if (saved.ok()) *files = std::move(*saved);
      return saved.status();
    };
    return RunInPool(info.Env(), work, [files](Napi::Env env) { return FilesToJs(env, *files); });
  }

  // restore(directory: string, files: { name, bytes, checksum }[]): Promise<void>
  Napi::Value Restore(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [target = trainer(info.Env()), directory = info[0].As<Napi::String>().Utf8Value(),
                                  files = FilesFromJs(info[1].As<Napi::Array>())] {
      return target->Restore(directory, files);
    });
  }

  // predict(batch: BatchHandle): Promise<Float32Array> — (rows, tasks)
  Napi::Value Predict(const Napi::CallbackInfo& info) {
    auto outputs = std::make_shared<std::vector<float>>();
    auto work = [target = trainer(info.Env()), batch = BatchHandle::Get(info[0]), outputs] {
      return target->Predict(*batch, outputs.get());
    };
    return RunInPool(info.Env(), work, [outputs](Napi::Env env) -> Napi::Value {
      return CopyArray<Napi::Float32Array>(env, *outputs);
    });
  }

  // rowWidth(feature: number): number — floats of a row with the state of its optimizer
  Napi::Value RowWidth(const Napi::CallbackInfo& info) {
    const auto target = trainer(info.Env());
    const FeatureSpec& feature = target->config().schema.features[info[0].As<Napi::Number>().Uint32Value()];
    return Napi::Number::New(info.Env(), target->store().row_width(feature.row_class));
  }

  // readRows(feature: number, ids: BigUint64Array, width: number): Promise<{ rows: Float32Array, found: Uint8Array }>
  Napi::Value ReadRows(const Napi::CallbackInfo& info) {
    const auto ids = TypedArray<const uint64_t>(info[1], "ids");
    const uint32_t width = info[2].As<Napi::Number>().Uint32Value();
    auto rows = std::make_shared<std::vector<float>>(ids.size() * width);
    auto found = std::make_shared<std::vector<uint8_t>>(ids.size());
    auto work = [=, target = trainer(info.Env()), feature = info[0].As<Napi::Number>().Uint32Value(),
                 owner = KeepAlive(info.Env(), {info[1]})] {
      return persia::ReadRows(target->config().schema, target->store(), feature, ids, width, rows->data(),
                              found->data());
    };
    return RunInPool(info.Env(), work, [rows, found](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      result.Set("rows", CopyArray<Napi::Float32Array>(env, *rows));
      result.Set("found", CopyArray<Napi::Uint8Array>(env, *found));
      return result;
    });
  }

  // writeRows(feature: number, ids: BigUint64Array, width: number, rows: Float32Array): Promise<void>
  Napi::Value WriteRows(const Napi::CallbackInfo& info) {
    const auto ids = TypedArray<const uint64_t>(info[1], "ids");
    const auto rows = TypedArray<const float>(info[3], "rows");
    auto work = [=, target = trainer(info.Env()), feature = info[0].As<Napi::Number>().Uint32Value(),
                 width = info[2].As<Napi::Number>().Uint32Value(), owner = KeepAlive(info.Env(), {info[1], info[3]})] {
      const TrainerConfig& config = target->config();
      const RowOptimizerConfig& optimizer = config.tables[config.schema.features[feature].row_class].optimizer;
      return persia::WriteRows(config.schema, optimizer, target->store(), feature, ids, width, rows.data());
    };
    return RunInPool(info.Env(), work);
  }

  Napi::Value Progress(const Napi::CallbackInfo& info) {
    const TrainerProgress progress = trainer(info.Env())->progress();
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("steps", static_cast<double>(progress.steps));
    result.Set("samples", static_cast<double>(progress.samples));
    result.Set("lossSum", progress.loss_sum);
    result.Set("lossSteps", progress.loss_steps);
    result.Set("skipped", static_cast<double>(progress.skipped));
    result.Set("lossScale", progress.loss_scale);
    result.Set("staleness", static_cast<double>(progress.staleness));
    result.Set("mostStaleness", static_cast<double>(progress.most_staleness));
    return result;
  }

  // counters(): { tables, distinct }, one object a row class and one number a feature
  Napi::Value Counters(const Napi::CallbackInfo& info) {
    const TrainerCounters counters = trainer(info.Env())->counters();
    const Napi::Array tables = Napi::Array::New(info.Env());
    for (const ClassCounters& one : counters.classes) tables.Set(tables.Length(), TableToJs(info.Env(), one));
    const Napi::Array distinct = NumbersToJs(info.Env(), counters.distinct);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("tables", tables);
    result.Set("distinct", distinct);
    return result;
  }

  // pipeline(): times and queues of the stages, histograms of the staleness
  Napi::Value Pipeline(const Napi::CallbackInfo& info) {
    const auto target = trainer(info.Env());
    const TrainerProgress progress = target->progress();
    const Napi::Array stages = Napi::Array::New(info.Env());
    for (const StageReport& stage : target->StageReports()) {
      stages.Set(stages.Length(), StageToJs(info.Env(), stage));
    }
    const RowStaleness::Totals& rows = progress.row_staleness;
    const DenseStore::Staleness& dense = progress.dense_staleness;
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("stages", stages);
    result.Set("lookups", NumbersToJs(info.Env(), progress.staleness_histogram));
    result.Set("rows", DelaysToJs(info.Env(), rows.samples, rows.sum, rows.most));
    result.Set("rowHistogram", NumbersToJs(info.Env(), rows.histogram));
    result.Set("dense", DelaysToJs(info.Env(), dense.pushes, dense.sum, dense.most));
    return result;
  }

  // trace(): Promise<string>, in Chrome's JSON format
  Napi::Value Trace(const Napi::CallbackInfo& info) {
    auto text = std::make_shared<std::string>();
    auto work = [target = trainer(info.Env()), text] {
      Result<std::string> trace = target->Trace();
      if (trace.ok()) *text = std::move(*trace);
      return trace.status();
    };
    return RunInPool(info.Env(), work,
                     [text](Napi::Env env) -> Napi::Value { return Napi::String::New(env, *text); });
  }

  // close(): Promise<void>; may be called again. The threads are joined on the pool: a step under way can take a while.
  Napi::Value Close(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [target = std::exchange(trainer_, nullptr)] {
      if (target) target->Close();
      return Status::Ok();
    });
  }

  std::shared_ptr<ModelTrainer> trainer_;
};

thread_local Napi::FunctionReference TrainerBinding::constructor;

}  // namespace

std::shared_ptr<ModelTrainer> TrainerOf(const Napi::Value& value) {
  return TrainerBinding::Unwrap(value.As<Napi::Object>())->trainer(value.Env());
}

namespace {

// createTrainer(config): Promise<Trainer>
Napi::Value CreateTrainer(const Napi::CallbackInfo& info) {
  return MakeInPool<ModelTrainer>(
      info.Env(), [config = ReadTrainerConfig(info[0].As<Napi::Object>())] { return Trainer::Create(config); },
      TrainerBinding::New);
}

// createClusterTrainer(config, options): Promise<{ trainer, loaders }>
Napi::Value CreateClusterTrainer(const Napi::CallbackInfo& info) {
  const auto options = info[1].As<Napi::Object>();
  auto made = std::make_shared<ClusterDriver>();
  auto work = [config = ReadTrainerConfig(info[0].As<Napi::Object>()), role = ReadRoleOptions(options),
               peers = ReadPeers(Object(options, "peers")), made] {
    Result<ClusterDriver> driver = MakeClusterDriver(config, role, peers);
    if (driver.ok()) *made = std::move(*driver);
    return driver.status();
  };
  return RunInPool(info.Env(), work, [made](Napi::Env env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    result.Set("trainer", TrainerBinding::New(env, std::move(made->trainer)));
    result.Set("loaders", LoadersToJs(env, std::move(made->loaders)));
    return result;
  });
}

}  // namespace

void RegisterTrainer(Napi::Env env, Napi::Object exports) {
  TrainerBinding::constructor = Napi::Persistent(TrainerBinding::Define(env));
  TrainerBinding::constructor.SuppressDestruct();
  exports.Set("createTrainer", Napi::Function::New(env, CreateTrainer, "createTrainer"));
  exports.Set("createClusterTrainer", Napi::Function::New(env, CreateClusterTrainer, "createClusterTrainer"));
}

}  // namespace persia::bindings
