// The CPU backend of DenseModel: hidden layers and heads are an Mlp; the model type may put an interaction below or
// beside it. Of the input only the embeddings get a gradient.
//
// Parameters lie as [interaction | hidden layers | heads] in the flat arrays; backward comes down them, interaction
// last.
//
// Thread-safety: externally synchronised; the team of threads works inside of a call only.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "dense/cpu_model.h"
#include "dense/dense_model.h"
#include "dense/interaction.h"
#include "dense/layout.h"
#include "dense/loss.h"
#include "dense/loss_scaler.h"
#include "dense/mlp.h"
#include "dense/optimizer.h"

namespace persia {
namespace {

// A sum's order depends on how its product is cut. Enough tiles for 16 threads; on two they made a step of the
// reference network about 3 % slower.
constexpr uint32_t kDeterministicTiles = 16;

constexpr size_t kUnscaledTogether = size_t{1} << 16;  // gradients
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

class Ffnn final : public DenseModel {
 public:
  Ffnn(const DenseModelConfig& config, ProductUnit unit);

  const DenseModelConfig& config() const override { return config_; }
  Status ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                         double* loss, const GlobalBatch& global) override;
  std::span<const std::span<float>> Gradients() const override { return buckets_; }
  bool UnscaleGradients(float loss_scale) override;
  Status ApplyGradients(uint64_t step, uint64_t update) override;
  Status Predict(uint32_t rows, const float* input, float* outputs) override;
  std::vector<NamedTensor> Tensors() override;
  Status WriteTensors() override {
    ++weights_version_;
    return Status::Ok();
  }

 private:
  uint32_t tasks() const { return static_cast<uint32_t>(config_.tasks.size()); }
  Team team() {
    const uint32_t tiles = config_.deterministic ? kDeterministicTiles : pool_.threads();
    return {pool_, tiles, parameters_.data(), gradients_.data(), unit_, &weights_version_};
  }

  float* Forward(uint32_t rows, const float* input);
  double HeadLoss(uint32_t rows, uint64_t global_rows, const float* outputs, const float* labels);
  void Backward(uint32_t rows, const float* input, float* embedding_gradient, const GlobalBatch& global);

  const DenseModelConfig config_;
  const ProductUnit unit_;
  const Layout layout_;
  ThreadPool pool_;
  DenseOptimizer optimizer_;
  AlignedBuffer<float> parameters_;
  AlignedBuffer<float> gradients_;
  const std::vector<std::span<float>> buckets_;
  uint64_t weights_version_ = 1;
  const std::unique_ptr<Mlp> mlp_;
  std::unique_ptr<BelowInteraction> below_;    // at most one of the two
  std::unique_ptr<BesideInteraction> beside_;
  const float* mlp_input_ = nullptr;           // of the last batch: (rows, HiddenInputWidth)
  AlignedBuffer<float> output_gradient_;       // (rows, tasks)
};

Ffnn::Ffnn(const DenseModelConfig& config, ProductUnit unit)
    : config_(config),
      unit_(unit),
      layout_(MakeLayout(config)),
      pool_(config.threads, "persia-dense"),
      optimizer_(config.optimizer, layout_.size),
      parameters_(layout_.size),
      gradients_(layout_.size),
      buckets_(GradientBuckets(gradients_.span())),
      mlp_(MakeMlp(layout_.layers, Mlp::LastLayer::kLinear, team())) {
  parameters_.Fill(0.0f);  // padding stays 0 in all flat arrays, so that it adds nothing to the gradient norm
  gradients_.Fill(0.0f);
  InitialiseParameters(layout_, config.seed, parameters_.span());
  const bool stacked = config.cross.structure == CrossStructure::kStacked;
  if (config.type == ModelType::kDeepFm) beside_ = MakeFm(config, layout_.interaction, team());
  if (config.type == ModelType::kDcn && stacked) below_ = MakeStackedCross(config, layout_.interaction, team());
  if (config.type == ModelType::kDcn && !stacked) beside_ = MakeParallelCross(config, layout_.interaction, team());
  if (config.type == ModelType::kDlrm) below_ = MakeDotInteraction(config, layout_.interaction, team());
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
  Backward(rows, input, embedding_gradient, global);
  return Status::Ok();
}

// The outputs of the heads, before the sigmoid: (rows, tasks).
float* Ffnn::Forward(uint32_t rows, const float* input) {
  mlp_input_ = below_ == nullptr ? input : below_->Forward(rows, input);
  float* outputs = mlp_->Forward(rows, {mlp_input_, HiddenInputWidth(config_)});
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

void Ffnn::Backward(uint32_t rows, const float* input, float* embedding_gradient, const GlobalBatch& global) {
  BucketProgress progress(buckets_, global.sink);
  const uint32_t width = HiddenInputWidth(config_);
  float* outputs = output_gradient_.data();
  if (global.loss_scale != 1.0f) {
    for (float& gradient : output_gradient_.span()) gradient *= global.loss_scale;
  }
  if (below_ != nullptr) {
    mlp_->Backward(rows, {mlp_input_, width}, outputs, below_->OutputGradient(), width, progress);
    below_->Backward(rows, input, embedding_gradient, progress);
  } else {
    mlp_->Backward(rows, {input, width}, outputs, embedding_gradient, config_.embedding_width, progress);
  }
  if (beside_ != nullptr) beside_->Backward(rows, input, outputs, embedding_gradient, progress);
  const size_t embeddings = size_t{rows} * config_.embedding_width;
  if (!Unscale(global.loss_scale, embeddings, embedding_gradient)) gradients_.data()[0] = kNaN;
  progress.Finish();
}

bool Ffnn::UnscaleGradients(float loss_scale) {
  const auto chunks = static_cast<uint32_t>((gradients_.size() + kUnscaledTogether - 1) / kUnscaledTogether);
  std::atomic<bool> finite{true};
  pool_.ParallelFor(chunks, [&](uint32_t chunk) {
    const size_t begin = chunk * kUnscaledTogether;
    const size_t count = std::min(kUnscaledTogether, gradients_.size() - begin);
    if (!Unscale(loss_scale, count, gradients_.data() + begin)) finite = false;
  });
  return finite;
}

Status Ffnn::ApplyGradients(uint64_t step, uint64_t update) {
  ++weights_version_;
  return optimizer_.Step(pool_, update == 0 ? step : update, ScheduleFactor(config_.schedule, step), gradients_.data(),
                         parameters_.data());
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
  AppendTensors(layout_, "", parameters_.span(), &tensors);
  for (const auto& state : optimizer_.States()) {
    AppendTensors(layout_, std::string(".") + state.name, state.values, &tensors);
  }
  return tensors;
}

}  // namespace

Result<ProductUnit> UnitFor(Precision precision, ProductUnit fp32, ProductUnit bf16) {
  if (precision == Precision::kFp32) return fp32;
  if (precision == Precision::kTf32) {
    return Status(ErrorCode::kConfigUnsupported, "model.precision: tf32 needs a GPU (device cuda); use fp32");
  }
  if (IsBf16(bf16)) return bf16;
  return Status(ErrorCode::kConfigUnsupported, "model.precision: bf16 needs a CPU with AMX-BF16 or AVX512-BF16, and this "
                                               "one has neither; use fp32");
}

Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config) {
  auto unit = UnitFor(config.precision, BestFp32Unit(), BestBf16Unit());
  if (!unit.ok()) return unit.status();
  return MakeCpuDenseModel(config, *unit);
}

Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config, ProductUnit unit) {
  PERSIA_RETURN_IF_ERROR(ValidateDenseModel(config));
  return std::unique_ptr<DenseModel>(std::make_unique<Ffnn>(config, unit));
}

}  // namespace persia
