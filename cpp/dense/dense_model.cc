#include "dense/dense_model.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "dense/layout.h"
#include "dense/loss_scaler.h"
#include "dense/product_unit.h"

namespace persia {
namespace {

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

}  // namespace

Status ValidateDenseModel(const DenseModelConfig& config) {
  if (config.tasks.empty()) return Invalid("the model needs at least one task");
  if (config.input_width() == 0) return Invalid("the model has no input: neither id features nor dense features");
  for (const auto* widths : {&config.hidden, &config.bottom}) {
    if (std::ranges::count(*widths, 0u) == 0) continue;
    return Invalid("a hidden layer has width 0; leave the layer out instead");
  }
  if (config.schedule.every_steps == 0) return Invalid("the schedule's every_steps is 0; the least is 1");
  PERSIA_RETURN_IF_ERROR(ValidateType(config));
  return CheckDenseMemory(DenseModelBytes(config));
}

double DenseModelBytes(const DenseModelConfig& config) {
  const Layout layout = MakeLayout(config);
  const bool adam = config.optimizer.type != DenseOptimizerType::kSgd;
  const double arrays = 2 + (adam ? 2 : config.optimizer.momentum != 0.0 ? 1 : 0);  // weights, gradients, state
  double parameters = 0;  // in floating point: a product of widths may be beyond any integer
  double packed = 0;      // weights that own products have two copies of, for forward and backward
  const auto add = [&](const std::vector<Layer>& layers, bool copied) {
    for (const Layer& layer : layers) {
      parameters += static_cast<double>(layer.in) * layer.out;
      if (copied) packed += static_cast<double>(layer.in) * layer.out;
    }
  };
  const bool bf16 = config.precision == Precision::kBf16, packs = bf16 || BestFp32Unit() != ProductUnit::kLibrary;
  add(layout.interaction, packs && config.type == ModelType::kDlrm);
  add(layout.layers, packs);
  const double copies = 2 * (bf16 ? sizeof(uint16_t) : sizeof(float));
  return arrays * sizeof(float) * parameters + copies * packed;
}

Status CheckDenseMemory(double bytes) {
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (bytes <= memory) return Status::Ok();
  return Status(ErrorCode::kOutOfMemory, "the weights of the dense network, their gradients and their optimizer's state "
                                         "need " + std::to_string(bytes / 1e9) + " GB over all NN workers, the machine "
                                         "has " + std::to_string(memory / 1e9) + " GB");
}

bool DenseModel::UnscaleGradients(float loss_scale) {
  bool finite = true;
  for (const std::span<float> bucket : Gradients()) finite &= Unscale(loss_scale, bucket.size(), bucket.data());
  return finite;
}

Status DenseModel::StartStep(DenseStep* step) {
  const GlobalBatch batch{.loss_scale = step->loss_scale};
  PERSIA_RETURN_IF_ERROR(
      ForwardBackward(step->rows, step->input, step->labels, step->embedding_gradient, &step->loss, batch));
  step->skipped = !UnscaleGradients(step->loss_scale);
  return step->skipped ? Status::Ok() : ApplyGradients(step->step, step->update);
}

Status DenseModel::FinishStep(DenseStep*) { return Status::Ok(); }

}  // namespace persia
