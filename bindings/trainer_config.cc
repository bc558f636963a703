#include "trainer_config.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "convert.h"

namespace persia::bindings {
namespace {

template <typename T>
T Choice(const Napi::Object& object, const char* name, const std::map<std::string, T>& choices) {
  const auto found = choices.find(String(object, name));
  if (found == choices.end()) throw Napi::TypeError::New(object.Env(), std::string("native call: unknown ") + name);
  return found->second;
}

FeatureSchema ReadSchema(const Napi::Object& config) {
  const Napi::Array columns = Array(config, "features");
  std::vector<FeatureSpec> features;
  for (uint32_t i = 0; i < columns.Length(); ++i) {
    const auto column = columns.Get(i).As<Napi::Object>();
    FeatureSpec feature;
    feature.name = String(column, "name");
    feature.dim = Uint32(column, "dim");
    feature.pooling = Choice<Pooling>(column, "pooling",
                                      {{"sum", Pooling::kSum}, {"mean", Pooling::kMean}, {"sqrt", Pooling::kSqrt}});
    feature.group = Uint32(column, "group");
    features.push_back(std::move(feature));
  }
  Result<FeatureSchema> schema = BuildFeatureSchema(std::move(features), Uint32(config, "prefixBits"));
  ThrowIfError(config.Env(), schema.status());
  return std::move(*schema);
}

RowOptimizerConfig ReadRowOptimizer(const Napi::Object& optimizer, float weight_bound) {
  RowOptimizerConfig config;
  config.type = Choice<RowOptimizerType>(optimizer, "type",
                                         {{"sgd", RowOptimizerType::kSgd},
                                          {"adagrad", RowOptimizerType::kAdagrad},
                                          {"rowwise_adagrad", RowOptimizerType::kRowwiseAdagrad},
                                          {"adam", RowOptimizerType::kAdam}});
  config.lr = Float(optimizer, "lr");
  config.weight_decay = Float(optimizer, "weightDecay");
  config.weight_bound = weight_bound;
  if (config.type == RowOptimizerType::kSgd) {
    config.momentum = Float(optimizer, "momentum");
    return config;
  }
  config.eps = Float(optimizer, "eps");
  if (config.type == RowOptimizerType::kAdam) {
    config.beta1 = Float(optimizer, "beta1");
    config.beta2 = Float(optimizer, "beta2");
  } else {
    config.initial_accumulator = Float(optimizer, "initialAccumulator");
  }
  return config;
}

InitializerConfig ReadInitializer(const Napi::Object& init) {
  InitializerConfig config;
  config.type = Choice<InitializerType>(init, "type",
                                        {{"uniform", InitializerType::kUniform},
                                         {"normal", InitializerType::kNormal},
                                         {"zeros", InitializerType::kZeros}});
  if (config.type == InitializerType::kUniform) {
    config.low = Float(init, "low");
    config.high = Float(init, "high");
  } else if (config.type == InitializerType::kNormal) {
    config.mean = Float(init, "mean");
    config.stddev = Float(init, "stddev");
  }
  return config;
}

TableOptions ReadTable(const Napi::Object& embedding, uint64_t seed) {
  TableOptions table;
  table.optimizer = ReadRowOptimizer(Object(embedding, "optimizer"), Float(embedding, "weightBound"));
  table.initializer = ReadInitializer(Object(embedding, "init"));
  table.seed = seed;
  table.capacity_rows = Uint64(embedding, "capacity");
  table.admit_probability = Double(embedding, "admit");
  return table;
}

DenseOptimizerConfig ReadDenseOptimizer(const Napi::Object& optimizer) {
  DenseOptimizerConfig config;
  config.type = Choice<DenseOptimizerType>(optimizer, "type",
                                           {{"sgd", DenseOptimizerType::kSgd},
                                            {"adam", DenseOptimizerType::kAdam},
                                            {"adamw", DenseOptimizerType::kAdamW}});
  config.lr = Float(optimizer, "lr");
  config.weight_decay = Float(optimizer, "weightDecay");
  config.clip_norm = Float(optimizer, "clipNorm");
  if (config.type == DenseOptimizerType::kSgd) {
    config.momentum = Float(optimizer, "momentum");
  } else {
    config.beta1 = Float(optimizer, "beta1");
    config.beta2 = Float(optimizer, "beta2");
    config.eps = Float(optimizer, "eps");
  }
  return config;
}

ScheduleConfig ReadSchedule(const Napi::Object& schedule) {
  ScheduleConfig config;
  config.type = Choice<ScheduleType>(schedule, "type",
                                     {{"constant", ScheduleType::kConstant},
                                      {"step", ScheduleType::kStep},
                                      {"cosine", ScheduleType::kCosine},
                                      {"linear", ScheduleType::kLinear}});
  config.warmup_steps = Uint64(schedule, "warmupSteps");
  if (config.type == ScheduleType::kStep) {
    config.every_steps = Uint64(schedule, "everySteps");
    config.gamma = Float(schedule, "gamma");
  } else if (config.type != ScheduleType::kConstant) {
    config.total_steps = Uint64(schedule, "totalSteps");
    config.final_factor = Float(schedule, "finalFactor");
  }
  return config;
}

DenseModelConfig ReadDense(const Napi::Object& model, uint64_t seed) {
  DenseModelConfig config;
  config.dense_count = Uint32(model, "denseCount");
  config.threads = Uint32(model, "threads");
  config.seed = seed;
  const Napi::Array hidden = Array(model, "hidden");
  for (uint32_t i = 0; i < hidden.Length(); ++i) config.hidden.push_back(hidden.Get(i).As<Napi::Number>().Uint32Value());
  const Napi::Array tasks = Array(model, "tasks");
  for (uint32_t i = 0; i < tasks.Length(); ++i) {
    const auto task = tasks.Get(i).As<Napi::Object>();
    config.tasks.push_back({String(task, "label"), Choice<Loss>(task, "loss", {{"bce", Loss::kBce}, {"mse", Loss::kMse}}),
                            Float(task, "weight")});
  }
  config.optimizer = ReadDenseOptimizer(Object(model, "optimizer"));
  config.schedule = ReadSchedule(Object(model, "schedule"));
  return config;
}

}  // namespace

TrainerConfig ReadTrainerConfig(const Napi::Object& config) {
  TrainerConfig result;
  const uint64_t seed = Uint64(config, "seed");
  result.schema = ReadSchema(config);
  const TableOptions table = ReadTable(Object(config, "embedding"), seed);
  for (uint32_t dim : result.schema.row_class_dims) {
    result.tables.push_back(table);
    result.tables.back().dim = dim;
  }
  result.dense = ReadDense(Object(config, "model"), seed);
  result.dense.embedding_width = result.schema.embedding_width;
  result.staleness = Uint64(config, "staleness");
  result.deterministic = Bool(config, "deterministic");
  return result;
}

}  // namespace persia::bindings
