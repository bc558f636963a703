// The CPU backend of DenseModel: hidden layers and heads are an Mlp; the model type may put an interaction below or
// beside it. Of the input only the embeddings get a gradient.
//
// Parameters lie as [interaction | hidden layers | heads] in the flat arrays; backward comes down them, interaction
// last.
//
// Thread-safety: externally synchronised; the team of threads works inside of a call only.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "dense/dense_model.h"
#include "dense/interaction.h"
#include "dense/layout.h"
#include "dense/loss.h"
#include "dense/mlp.h"
#include "dense/optimizer.h"

namespace persia {
namespace {

// Where the parameters of each part of the network lie.
struct Parts {
  Layout layout;
  std::vector<Layer> interaction, hidden_and_heads;
};

// What the hidden layers, or without any the heads, take in.
uint32_t MlpInputWidth(const DenseModelConfig& config) {
  return config.type == ModelType::kDlrm ? DotWidth(config) : config.input_width();
}

Parts MakeParts(const DenseModelConfig& config) {
  Parts parts;
  if (config.type == ModelType::kDeepFm) parts.interaction = FmLayers(config, parts.layout);
  if (config.type == ModelType::kDcn) parts.interaction = CrossLayers(config, parts.layout);
  if (config.type == ModelType::kDlrm) parts.interaction = BottomLayers(config, parts.layout);
  std::vector<uint32_t> widths = config.hidden;
  widths.push_back(static_cast<uint32_t>(config.tasks.size()));
  parts.hidden_and_heads = parts.layout.AddChain("layer", MlpInputWidth(config), widths);
  return parts;
}

class Ffnn final : public DenseModel {
 public:
  Ffnn(const DenseModelConfig& config, const Parts& parts);

  const DenseModelConfig& config() const override { return config_; }
  Status ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                         double* loss, const GlobalBatch& global) override;
  std::span<const std::span<float>> Gradients() const override { return buckets_; }
  Status ApplyGradients(uint64_t step) override;
  Status Predict(uint32_t rows, const float* input, float* outputs) override;
  std::vector<NamedTensor> Tensors() override;

 private:
  uint32_t tasks() const { return static_cast<uint32_t>(config_.tasks.size()); }
  Team team() { return {pool_, parameters_.data(), gradients_.data()}; }

  void InitialiseParameters();
  float* Forward(uint32_t rows, const float* input);
  double HeadLoss(uint32_t rows, uint64_t global_rows, const float* outputs, const float* labels);
  void Backward(uint32_t rows, const float* input, float* embedding_gradient, GradientSink* sink);

  const DenseModelConfig config_;
  const Layout layout_;
  ThreadPool pool_;
  DenseOptimizer optimizer_;
  AlignedBuffer<float> parameters_;
  AlignedBuffer<float> gradients_;
  const std::vector<std::span<float>> buckets_;
  Mlp mlp_;
  std::unique_ptr<BelowInteraction> below_;    // at most one of the two
  std::unique_ptr<BesideInteraction> beside_;
  const float* mlp_input_ = nullptr;           // of the last batch: (rows, MlpInputWidth)
  AlignedBuffer<float> output_gradient_;       // (rows, tasks)
};

Ffnn::Ffnn(const DenseModelConfig& config, const Parts& parts)
    : config_(config),
      layout_(parts.layout),
      pool_(config.threads, "persia-dense"),
      optimizer_(config.optimizer, layout_.size),
      parameters_(layout_.size),
      gradients_(layout_.size),
      buckets_(GradientBuckets(gradients_.span())),
      mlp_(parts.hidden_and_heads, Mlp::LastLayer::kLinear, team()) {
  parameters_.Fill(0.0f);  // padding stays 0 in all flat arrays, so that it adds nothing to the gradient norm
  gradients_.Fill(0.0f);
  InitialiseParameters();
  const bool stacked = config.cross.structure == CrossStructure::kStacked;
  if (config.type == ModelType::kDeepFm) beside_ = MakeFm(config, parts.interaction, team());
  if (config.type == ModelType::kDcn && stacked) below_ = MakeStackedCross(config, parts.interaction, team());
  if (config.type == ModelType::kDcn && !stacked) beside_ = MakeParallelCross(config, parts.interaction, team());
  if (config.type == ModelType::kDlrm) below_ = MakeDotInteraction(config, parts.interaction, team());
}

void Ffnn::InitialiseParameters() {
  for (const Layer& layer : layout_.layers) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    Rng rng(RandomKey(config_.seed, layer.stream));
    const auto draw = [&] { return static_cast<float>(rng.Uniform(-bound, bound)); };
    std::generate_n(parameters_.data() + layer.weight, size_t{layer.in} * layer.out, draw);
    if (layer.has_bias) std::generate_n(parameters_.data() + layer.bias, layer.out, draw);
  }
}

Status Ffnn::ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                             double* loss, const GlobalBatch& global) {
  if (rows == 0) return Status(ErrorCode::kBatchInvalid, "a batch to train on has no rows");
  const uint64_t global_rows = global.rows == 0 ? rows : global.rows;
  if (global_rows < rows) {
    return Status(ErrorCode::kBatchInvalid, "the global batch has " + std::to_string(global_rows) +
                                                " rows, this worker's part of it " + std::to_string(rows));
  }
  const double batch_loss = HeadLoss(rows, global_rows, Forward(rows, input), labels);
  if (!std::isfinite(batch_loss)) {
    return Status(ErrorCode::kNonFiniteLoss, "the loss is " + std::to_string(batch_loss) +
                                                 "; nothing was applied; lower the learning rate or check the data");
  }
  *loss = batch_loss;
  Backward(rows, input, embedding_gradient, global.sink);
  return Status::Ok();
}

// The outputs of the heads, before the sigmoid: (rows, tasks).
float* Ffnn::Forward(uint32_t rows, const float* input) {
  mlp_input_ = below_ == nullptr ? input : below_->Forward(rows, input);
  float* outputs = mlp_.Forward(rows, {mlp_input_, MlpInputWidth(config_)});
  if (beside_ != nullptr) beside_->AddToOutputs(rows, input, outputs);
  return outputs;
}

double Ffnn::HeadLoss(uint32_t rows, uint64_t global_rows, const float* outputs, const float* labels) {
  output_gradient_.Resize(size_t{rows} * tasks());
  double loss = 0.0;
  for (uint32_t task = 0; task < tasks(); ++task) {
    loss += LossAndGradient(config_.tasks[task], rows, global_rows, tasks(), outputs + task, labels + task,
                            output_gradient_.data() + task);
  }
  return loss;
}

void Ffnn::Backward(uint32_t rows, const float* input, float* embedding_gradient, GradientSink* sink) {
  BucketProgress progress(buckets_, sink);
  const uint32_t width = MlpInputWidth(config_);
  float* outputs = output_gradient_.data();
  if (below_ != nullptr) {
    mlp_.Backward(rows, {mlp_input_, width}, outputs, below_->OutputGradient(), width, progress);
    below_->Backward(rows, input, embedding_gradient, progress);
  } else {
    mlp_.Backward(rows, {input, width}, outputs, embedding_gradient, config_.embedding_width, progress);
  }
  if (beside_ != nullptr) beside_->Backward(rows, input, outputs, embedding_gradient, progress);
  progress.FinalFrom(0);
}

Status Ffnn::ApplyGradients(uint64_t step) {
  return optimizer_.Step(pool_, step, ScheduleFactor(config_.schedule, step), gradients_.data(), parameters_.data());
}

Status Ffnn::Predict(uint32_t rows, const float* input, float* outputs) {
  const float* raw = Forward(rows, input);
  for (size_t i = 0; i < size_t{rows} * tasks(); ++i) {
    const bool bce = config_.tasks[i % tasks()].loss == Loss::kBce;
    outputs[i] = bce ? static_cast<float>(Sigmoid(raw[i])) : raw[i];
  }
  return Status::Ok();
}

std::vector<NamedTensor> Ffnn::Tensors() {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& suffix, std::span<float> flat) {
    for (const Layer& layer : layout_.layers) {
      tensors.push_back({layer.name + ".weight" + suffix, {layer.out, layer.in},
                         flat.subspan(layer.weight, size_t{layer.out} * layer.in)});
      if (!layer.has_bias) continue;
      tensors.push_back({layer.name + ".bias" + suffix, {layer.out}, flat.subspan(layer.bias, layer.out)});
    }
  };
  add("", parameters_.span());
  for (const auto& state : optimizer_.States()) add(std::string(".") + state.name, state.values);
  return tensors;
}

Status Invalid(const std::string& what) { return Status(ErrorCode::kConfigInvalid, what); }

// Vectors that are multiplied with each other have one dim.
Status ValidateFields(const DenseModelConfig& config, const char* type) {
  const std::string name = type;
  if (config.fields.empty()) return Invalid(name + " combines embedding fields; the model has no id features");
  const EmbeddingField& first = config.fields.front();
  uint64_t width = 0;
  std::string others;
  for (const EmbeddingField& field : config.fields) {
    width += field.dim;
    if (field.dim == first.dim) continue;
    others += (others.empty() ? "" : ", ") + field.name + " (dim " + std::to_string(field.dim) + ")";
  }
  if (!others.empty()) {
    return Invalid(name + " needs all id features of one dim: " + others + " differ from " + first.name + " (dim " +
                   std::to_string(first.dim) + "); give them the same dim, or use type ffnn or dcn");
  }
  if (width != config.embedding_width) {
    return Invalid("the fields are " + std::to_string(width) + " wide together, the embeddings " +
                   std::to_string(config.embedding_width));
  }
  return Status::Ok();
}

Status ValidateDot(const DenseModelConfig& config) {
  PERSIA_RETURN_IF_ERROR(ValidateFields(config, "dlrm"));
  const double vectors = static_cast<double>(config.fields.size()) + (config.dense_count > 0 ? 1 : 0);
  if (vectors < 2) return Invalid("dlrm multiplies vectors in pairs: it needs two id features, or one and dense ones");
  if (vectors * vectors > UINT32_MAX) return Invalid("dlrm with so many id features has more than 2^31 pairs");
  return Status::Ok();
}

Status ValidateCross(const DenseModelConfig& config) {
  const auto& [layers, rank, structure] = config.cross;
  if (layers == 0) return Invalid("dcn needs at least one cross layer; without any it is ffnn");
  if (rank < config.input_width()) return Status::Ok();
  return Invalid("a cross layer of rank " + std::to_string(rank) + " saves nothing on an input that is " +
                 std::to_string(config.input_width()) + " wide; use rank 0 for the full matrix");
}

Status ValidateType(const DenseModelConfig& config) {
  switch (config.type) {
    case ModelType::kFfnn:
      return Status::Ok();
    case ModelType::kDeepFm:
      return ValidateFields(config, "deepfm");
    case ModelType::kDcn:
      return ValidateCross(config);
    case ModelType::kDlrm:
      return ValidateDot(config);
  }
  return Status::Ok();
}

Status Validate(const DenseModelConfig& config) {
  if (config.tasks.empty()) return Invalid("the model needs at least one task");
  if (config.input_width() == 0) return Invalid("the model has no input: neither id features nor dense features");
  for (const auto* widths : {&config.hidden, &config.bottom}) {
    if (std::ranges::count(*widths, 0u) == 0) continue;
    return Invalid("a hidden layer has width 0; leave the layer out instead");
  }
  if (config.schedule.every_steps == 0) return Invalid("the schedule's every_steps is 0; the least is 1");
  return ValidateType(config);
}

Status CheckMemory(const Layout& layout) {
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  double bytes = 0;
  for (const Layer& layer : layout.layers) bytes += 2.0 * sizeof(float) * layer.in * layer.out;  // the least
  if (bytes <= memory) return Status::Ok();
  return Status(ErrorCode::kOutOfMemory, "the weights of the dense network and their gradients need " +
                                             std::to_string(bytes / 1e9) + " GB, the machine has " +
                                             std::to_string(memory / 1e9) + " GB");
}

}  // namespace

Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config) {
  PERSIA_RETURN_IF_ERROR(Validate(config));
  const Parts parts = MakeParts(config);
  PERSIA_RETURN_IF_ERROR(CheckMemory(parts.layout));
  return std::unique_ptr<DenseModel>(std::make_unique<Ffnn>(config, parts));
}

}  // namespace persia
