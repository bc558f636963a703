#include "evaluator_binding.h"

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch_handle.h"
#include "convert.h"
#include "dense/metrics.h"
#include "js_thread.h"
#include "trainer_binding.h"

namespace persia::bindings {
namespace {

struct TaskMetrics {
  BinaryMetrics binary;  // the one of the task's loss is used
  RegressionMetrics regression;
  GroupedAuc grouped;
};

struct State {
  std::shared_ptr<ModelTrainer> trainer;
  std::optional<uint32_t> group_by;  // the feature whose ids are the groups of GAUC
  std::vector<TaskMetrics> tasks;
  std::vector<float> outputs;  // of the last batch
};

// A sample belongs to the group of its only id.
void AddGroups(const Batch& batch, const IdColumn& column, size_t task, size_t tasks, const float* outputs,
               GroupedAuc& metric) {
  for (uint32_t row = 0; row < batch.rows; ++row) {
    if (column.end(row) - column.begin(row) != 1) {
      metric.AddWithoutGroup();
    } else {
      metric.Add(column.ids[column.begin(row)], outputs[row * tasks + task], batch.labels[row * tasks + task]);
    }
  }
}

Status AddBatch(State& state, const Batch& batch) {
  const auto& tasks = state.trainer->config().dense.tasks;
  if (batch.label_count != tasks.size()) return Status(ErrorCode::kBatchInvalid, "evaluation needs labelled batches");
  PERSIA_RETURN_IF_ERROR(state.trainer->Predict(batch, &state.outputs));
  for (size_t t = 0; t < tasks.size(); ++t) {
    const float* outputs = state.outputs.data() + t;
    const float* labels = batch.labels.data() + t;
    TaskMetrics& metrics = state.tasks[t];
    if (tasks[t].loss == Loss::kMse) {
      metrics.regression.Add(batch.rows, outputs, tasks.size(), labels, tasks.size());
      continue;
    }
    metrics.binary.Add(batch.rows, outputs, tasks.size(), labels, tasks.size());
    if (!state.group_by) continue;
    AddGroups(batch, batch.id_columns[*state.group_by], t, tasks.size(), state.outputs.data(), metrics.grouped);
  }
  return Status::Ok();
}

struct TaskResult {
  TaskSpec task;
  double auc = 0, auc_error_bound = 0, logloss = 0, calibration = 0, mse = 0;
  std::optional<GroupedAuc::Result> grouped = {};
};

std::vector<TaskResult> ResultsOf(State& state) {
  std::vector<TaskResult> results;
  for (size_t t = 0; t < state.tasks.size(); ++t) {
    TaskMetrics& metrics = state.tasks[t];
    TaskResult& result = results.emplace_back(TaskResult{state.trainer->config().dense.tasks[t]});
    if (result.task.loss == Loss::kMse) {
      result.mse = metrics.regression.MeanSquaredError();
      continue;
    }
    result.auc = metrics.binary.Auc();
    result.auc_error_bound = metrics.binary.AucErrorBound();
    result.logloss = metrics.binary.LogLoss();
    result.calibration = metrics.binary.Calibration();
    if (state.group_by) result.grouped = metrics.grouped.Compute();
  }
  return results;
}

Napi::Object GroupedToJs(Napi::Env env, const GroupedAuc::Result& grouped) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("value", grouped.value);
  object.Set("groups", static_cast<double>(grouped.groups));
  object.Set("samples", static_cast<double>(grouped.samples));
  object.Set("oneClass", static_cast<double>(grouped.one_class));
  object.Set("withoutGroup", static_cast<double>(grouped.without_group));
  return object;
}

Napi::Value ResultsToJs(Napi::Env env, const std::vector<TaskResult>& results) {
  Napi::Array array = Napi::Array::New(env, results.size());
  for (uint32_t i = 0; i < results.size(); ++i) {
    const TaskResult& result = results[i];
    Napi::Object task = Napi::Object::New(env);
    task.Set("label", result.task.label);
    if (result.task.loss == Loss::kBce) {
      task.Set("auc", result.auc);
      task.Set("aucErrorBound", result.auc_error_bound);
      task.Set("logloss", result.logloss);
      task.Set("calibration", result.calibration);
      if (result.grouped) task.Set("grouped", GroupedToJs(env, *result.grouped));
    } else {
      task.Set("mse", result.mse);
    }
    array.Set(i, task);
  }
  return array;
}

class EvaluatorBinding : public Napi::ObjectWrap<EvaluatorBinding> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Evaluator",
                       {InstanceMethod<&EvaluatorBinding::Add>("add"),
                        InstanceMethod<&EvaluatorBinding::Results>("results")});
  }

  // new Evaluator(trainer: Trainer, groupBy?: number (a feature))
  explicit EvaluatorBinding(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<EvaluatorBinding>(info), state_(std::make_shared<State>()) {
    state_->trainer = TrainerOf(info[0]);
    if (info[1].IsNumber()) state_->group_by = info[1].As<Napi::Number>().Uint32Value();
    state_->tasks.resize(state_->trainer->config().dense.tasks.size());
  }

 private:
  // add(batch: BatchHandle): Promise<{ outputs, labels }>, both Float32Array (rows, tasks); one at a time
  Napi::Value Add(const Napi::CallbackInfo& info) {
    const std::shared_ptr<const Batch> batch = BatchHandle::Get(info[0]);
    const auto work = [state = state_, batch] { return AddBatch(*state, *batch); };
    return RunInPool(info.Env(), work, [state = state_, batch](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      result.Set("outputs", CopyArray<Napi::Float32Array>(env, state->outputs));
      result.Set("labels", CopyArray<Napi::Float32Array>(env, batch->labels));
      return result;
    });
  }

  // results(): Promise<{ label, auc?, aucErrorBound?, logloss?, calibration?, grouped?, mse? }[]>
  Napi::Value Results(const Napi::CallbackInfo& info) {
    auto results = std::make_shared<std::vector<TaskResult>>();
    const auto work = [state = state_, results] {
      *results = ResultsOf(*state);
      return Status::Ok();
    };
    return RunInPool(info.Env(), work, [results](Napi::Env env) { return ResultsToJs(env, *results); });
  }

  std::shared_ptr<State> state_;
};

}  // namespace

void RegisterEvaluator(Napi::Env env, Napi::Object exports) {
  exports.Set("Evaluator", EvaluatorBinding::Define(env));
}

}  // namespace persia::bindings
