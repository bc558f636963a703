#include "trainer_config.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "convert.h"
#include "table/frequency_sketch.h"

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
                                      {{"sum", Pooling::kSum},
                                       {"mean", Pooling::kMean},
                                       {"sqrt", Pooling::kSqrt},
                                       {"max", Pooling::kMax},
                                       {"last", Pooling::kLast},
                                       {"none", Pooling::kNone}});
    feature.group = Uint32(column, "group");
    feature.sequence_length = Uint32(column, "sequenceLength");
    feature.hash_rounds = Uint32(column, "hashRounds");
    feature.hash_buckets = Uint64(column, "hashBuckets");
    feature.frozen = Bool(column, "frozen");
    feature.mask = Bool(column, "mask");
    feature.optimizer = Uint32(column, "optimizer");
    features.push_back(std::move(feature));
  }
  Result<FeatureSchema> schema = BuildFeatureSchema(std::move(features), Uint32(config, "prefixBits"));
  ThrowIfError(config.Env(), schema.status());
  schema->clip_norm = Float(config, "embeddingClipNorm");
  return std::move(*schema);
}

RowOptimizerConfig ReadRowOptimizer(const Napi::Object& optimizer, float weight_bound) {
  RowOptimizerConfig config;
  config.type = Choice<RowOptimizerType>(optimizer, "type",
                                         {{"sgd", RowOptimizerType::kSgd},
                                          {"adagrad", RowOptimizerType::kAdagrad},
                                          {"rowwise_adagrad", RowOptimizerType::kRowwiseAdagrad},
                                          {"adam", RowOptimizerType::kAdam},
                                          {"adamw", RowOptimizerType::kAdamW},
                                          {"ftrl", RowOptimizerType::kFtrl}});
  config.lr = Float(optimizer, "lr");
  config.weight_decay = Float(optimizer, "weightDecay");
  config.weight_bound = weight_bound;
  if (config.type == RowOptimizerType::kSgd) {
    config.momentum = Float(optimizer, "momentum");
    return config;
  }
  if (config.type == RowOptimizerType::kFtrl) {
    config.initial_accumulator = Float(optimizer, "initialAccumulator");
    config.beta = Float(optimizer, "beta");
    config.l1 = Float(optimizer, "l1");
    config.l2 = Float(optimizer, "l2");
    return config;
  }
  config.eps = Float(optimizer, "eps");
  if (config.type == RowOptimizerType::kAdam || config.type == RowOptimizerType::kAdamW) {
    config.beta1 = Float(optimizer, "beta1");
    config.beta2 = Float(optimizer, "beta2");
    config.bias_correction = Choice<BiasCorrection>(
        optimizer, "biasCorrection", {{"row", BiasCorrection::kRow}, {"group", BiasCorrection::kGroup}});
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
                                         {"inverse_sqrt_dim", InitializerType::kInverseSqrtDim},
                                         {"gamma", InitializerType::kGamma},
                                         {"poisson", InitializerType::kPoisson},
                                         {"zeros", InitializerType::kZeros}});
  if (config.type == InitializerType::kUniform) {
    config.low = Float(init, "low");
    config.high = Float(init, "high");
  } else if (config.type == InitializerType::kNormal) {
    config.mean = Float(init, "mean");
    config.stddev = Float(init, "stddev");
    config.truncate = Float(init, "truncate");
  } else if (config.type == InitializerType::kGamma) {
    config.shape = Float(init, "shape");
    config.scale = Float(init, "scale");
  } else if (config.type == InitializerType::kPoisson) {
    config.lambda = Float(init, "lambda");
  }
  return config;
}

// What all tables have in common.
TableOptions ReadEmbedding(const Napi::Object& embedding, uint64_t seed, const FeatureSchema& schema) {
  TableOptions table;
  table.storage = Choice<StorageType>(
      embedding, "storage", {{"fp32", StorageType::kFp32}, {"fp16", StorageType::kFp16}, {"bf16", StorageType::kBf16}});
  table.initializer = ReadInitializer(Object(embedding, "init"));
  table.seed = seed;
  table.admit_probability = Double(embedding, "admitProbability");
  static_assert(FrequencySketch::kMost == 15, "embedding.admit in ts/config/schema.ts goes up to this");
  table.admit_frequency = Uint32(embedding, "admitFrequency");
  table.eviction =
      Choice<EvictionPolicy>(embedding, "eviction", {{"lru", EvictionPolicy::kLru}, {"lfu", EvictionPolicy::kLfu}});
  table.time_to_live_ms = Uint64(embedding, "timeToLiveMs");
  table.prefix_bits = schema.prefix_bits;
  table.group_count = schema.group_count;
  return table;
}

// One table for each row class; `embedding.tables` comes in the order of the row classes.
std::vector<TableOptions> ReadTables(const Napi::Object& embedding, uint64_t seed, const FeatureSchema& schema) {
  const TableOptions common = ReadEmbedding(embedding, seed, schema);
  const Napi::Array list = Array(embedding, "tables");
  std::vector<TableOptions> tables;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const auto object = list.Get(i).As<Napi::Object>();
    TableOptions& table = tables.emplace_back(common);
    table.dim = Uint32(object, "dim");
    table.optimizer = ReadRowOptimizer(Object(object, "optimizer"), Float(embedding, "weightBound"));
    table.capacity_rows = Uint64(object, "capacityRows");
    table.capacity_bytes = Uint64(object, "capacityBytes");
    const Napi::Array groups = Array(object, "groupCapacities");
    for (uint32_t g = 0; g < groups.Length(); ++g) {
      const auto group = groups.Get(g).As<Napi::Object>();
      table.group_capacities.push_back({Uint32(group, "group"), Uint64(group, "rows")});
    }
  }
  const auto has_dim = [](const TableOptions& table, uint32_t dim) { return table.dim == dim; };
  if (!std::ranges::equal(tables, schema.row_class_dims, has_dim)) {
    throw Napi::TypeError::New(embedding.Env(), "native call: tables must be one a row class, in their order");
  }
  return tables;
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

std::vector<uint32_t> Widths(const Napi::Object& model, const char* name) {
  const Napi::Array list = Array(model, name);
  std::vector<uint32_t> widths;
  for (uint32_t i = 0; i < list.Length(); ++i) widths.push_back(list.Get(i).As<Napi::Number>().Uint32Value());
  return widths;
}

// What belongs to the model's type.
void ReadInteraction(const Napi::Object& model, const FeatureSchema& schema, DenseModelConfig& config) {
  config.type = Choice<ModelType>(model, "type",
                                  {{"ffnn", ModelType::kFfnn},
                                   {"deepfm", ModelType::kDeepFm},
                                   {"dcn", ModelType::kDcn},
                                   {"dlrm", ModelType::kDlrm}});
  config.embedding_width = schema.embedding_width;
  for (const FeatureSpec& feature : schema.features) {
    config.fields.insert(config.fields.end(), feature.vectors(), {feature.name, feature.dim});
  }
  if (config.type == ModelType::kDlrm) config.bottom = Widths(model, "bottom");
  if (config.type != ModelType::kDcn) return;
  const Napi::Object cross = Object(model, "cross");
  config.cross = {Uint32(cross, "layers"), Uint32(cross, "rank"),
                  Choice<CrossStructure>(cross, "structure",
                                         {{"stacked", CrossStructure::kStacked},
                                          {"parallel", CrossStructure::kParallel}})};
}

DenseModelConfig ReadDense(const Napi::Object& model, uint64_t seed, const FeatureSchema& schema) {
  DenseModelConfig config;
  ReadInteraction(model, schema, config);
  config.dense_count = Uint32(model, "denseCount") + schema.mask_width;
  config.threads = Uint32(model, "threads");
  config.precision = Choice<Precision>(
      model, "precision", {{"fp32", Precision::kFp32}, {"tf32", Precision::kTf32}, {"bf16", Precision::kBf16}});
  config.seed = seed;
  config.hidden = Widths(model, "hidden");
  const Napi::Array tasks = Array(model, "tasks");
  for (uint32_t i = 0; i < tasks.Length(); ++i) {
    const auto task = tasks.Get(i).As<Napi::Object>();
    const auto loss = Choice<Loss>(task, "loss", {{"bce", Loss::kBce}, {"mse", Loss::kMse}});
    config.tasks.push_back({String(task, "label"), loss, Float(task, "weight"), Float(task, "positiveWeight"),
                            Double(task, "keptNegatives")});
  }
  config.optimizer = ReadDenseOptimizer(Object(model, "optimizer"));
  config.schedule = ReadSchedule(Object(model, "schedule"));
  return config;
}

LossScaling ReadLossScaling(const Napi::Object& scaling) {
  return {Float(scaling, "scale"), Bool(scaling, "dynamic"), Uint32(scaling, "growthInterval"),
          Float(scaling, "growth"), Float(scaling, "backoff")};
}

}  // namespace

TrainerConfig ReadTrainerConfig(const Napi::Object& config) {
  TrainerConfig result;
  const uint64_t seed = Uint64(config, "seed");
  result.schema = ReadSchema(config);
  result.tables = ReadTables(Object(config, "embedding"), seed, result.schema);
  result.dense = ReadDense(Object(config, "model"), seed, result.schema);
  result.mode = Choice<TrainerMode>(
      config, "mode",
      {{"sync", TrainerMode::kSync}, {"hybrid", TrainerMode::kHybrid}, {"async", TrainerMode::kAsync}});
  result.staleness = Uint64(config, "staleness");
  result.just_in_time = Bool(config, "justInTime");
  result.sync_steps = Uint64(config, "syncSteps");
  result.deterministic = Bool(config, "deterministic");
  result.nn_workers = Uint32(config, "nnWorkers");
  result.accumulate = Uint32(config, "accumulate");
  result.device = Choice<DenseDevice>(config, "device", {{"cpu", DenseDevice::kCpu}, {"cuda", DenseDevice::kCuda}});
  result.loss_scaling = ReadLossScaling(Object(config, "lossScaling"));
  result.trace_spans = Uint32(config, "traceSpans");
  return result;
}

}  // namespace persia::bindings
