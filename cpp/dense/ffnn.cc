// The CPU backend of DenseModel: a feed-forward network as tiled matrix products with everything else in their wake.
//
// Of a batch only the hidden activations are kept; gradients between layers alternate between two buffers.
//
//   forward of layer i:   x[i+1] = relu(x[i] · Wᵀ + b); bias and ReLU on each finished tile
//   backward of layer i:  dW = dyᵀ · x[i] and dx = dy · W in one parallel loop; on each finished tile of dx the mask of
//                         layer i-1's ReLU and the column sums, which are that layer's bias gradient
//
// Of the input only the embeddings get a gradient.
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
#include "dense/kernels.h"
#include "dense/layout.h"
#include "dense/loss.h"
#include "dense/optimizer.h"
#include "dense/product.h"

namespace persia {
namespace {

// A sum's order depends on how its product is cut. Enough tiles for 16 threads; on two they made a step of the
// reference network about 3 % slower.
constexpr uint32_t kDeterministicTiles = 16;

class Ffnn final : public DenseModel {
 public:
  Ffnn(const DenseModelConfig& config, const Layout& layout);

  const DenseModelConfig& config() const override { return config_; }
  Status ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                         double* loss, const GlobalBatch& global) override;
  std::span<const std::span<float>> Gradients() const override { return buckets_; }
  Status ApplyGradients(uint64_t step) override;
  Status Predict(uint32_t rows, const float* input, float* outputs) override;
  std::vector<NamedTensor> Tensors() override;

 private:
  uint32_t tasks() const { return static_cast<uint32_t>(config_.tasks.size()); }
  const float* parameters(size_t offset) const { return parameters_.data() + offset; }

  void InitialiseParameters();
  void ReserveActivations(uint32_t rows);
  void Forward(uint32_t rows, const float* input);
  void HiddenForward(const Layer& layer, uint32_t rows, const float* x, float* y);
  void HeadForward(const Layer& layer, uint32_t rows, const float* x);
  double HeadLoss(uint32_t rows, uint64_t global_rows, const float* labels);
  void Backward(uint32_t rows, const float* input, float* embedding_gradient, GradientSink* sink);
  void LayerBackward(size_t index, uint32_t rows, const float* x, const float* dy, float* dx, uint32_t dx_width);
  void SumBiasGradient(const Layer& layer, uint32_t row_parts);
  void FinishBuckets(size_t final_from, size_t* finished, GradientSink* sink);

  const DenseModelConfig config_;
  const Layout layout_;
  ThreadPool pool_;
  const uint32_t tiles_;  // that large products are cut into
  DenseOptimizer optimizer_;
  AlignedBuffer<float> parameters_;
  AlignedBuffer<float> gradients_;
  const std::vector<std::span<float>> buckets_;

  // Scratch of one batch, as large as the largest batch so far.
  std::vector<AlignedBuffer<float>> hidden_;       // output of hidden layer i: (rows, out)
  AlignedBuffer<float> outputs_;                   // of the heads, before the sigmoid: (rows, tasks)
  AlignedBuffer<float> output_gradient_;           // (rows, tasks)
  AlignedBuffer<float> hidden_gradient_[2];        // of layer i's output in [i % 2]: (rows, out)
  AlignedBuffer<float> bias_sums_;                 // bias gradient by band of rows: (tiles, widest hidden)
};

Ffnn::Ffnn(const DenseModelConfig& config, const Layout& layout)
    : config_(config),
      layout_(layout),
      pool_(config.threads, "persia-dense"),
      tiles_(config.deterministic ? kDeterministicTiles : pool_.threads()),
      optimizer_(config.optimizer, layout.size),
      parameters_(layout.size),
      gradients_(layout.size),
      buckets_(GradientBuckets(gradients_.span())),
      hidden_(config.hidden.size()),
      bias_sums_(size_t{tiles_} * layout.widest_hidden) {
  parameters_.Fill(0.0f);  // padding stays 0 in all flat arrays, so that it adds nothing to the gradient norm
  gradients_.Fill(0.0f);
  InitialiseParameters();
}

void Ffnn::InitialiseParameters() {
  for (size_t i = 0; i < layout_.layers.size(); ++i) {
    const Layer& layer = layout_.layers[i];
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    Rng rng(RandomKey(config_.seed, i));
    const auto draw = [&] { return static_cast<float>(rng.Uniform(-bound, bound)); };
    float* weight = parameters_.data() + layer.weight;
    float* bias = parameters_.data() + layer.bias;
    std::generate_n(weight, size_t{layer.in} * layer.out, draw);
    std::generate_n(bias, layer.out, draw);
  }
}

void Ffnn::ReserveActivations(uint32_t rows) {
  for (size_t i = 0; i < hidden_.size(); ++i) hidden_[i].Resize(size_t{rows} * layout_.layers[i].out);
  outputs_.Resize(size_t{rows} * tasks());
}

Status Ffnn::ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                             double* loss, const GlobalBatch& global) {
  if (rows == 0) return Status(ErrorCode::kBatchInvalid, "a batch to train on has no rows");
  const uint64_t global_rows = global.rows == 0 ? rows : global.rows;
  if (global_rows < rows) {
    return Status(ErrorCode::kBatchInvalid, "the global batch has " + std::to_string(global_rows) +
                                                " rows, this worker's part of it " + std::to_string(rows));
  }
  Forward(rows, input);
  const double batch_loss = HeadLoss(rows, global_rows, labels);
  if (!std::isfinite(batch_loss)) {
    return Status(ErrorCode::kNonFiniteLoss, "the loss is " + std::to_string(batch_loss) +
                                                 "; nothing was applied; lower the learning rate or check the data");
  }
  *loss = batch_loss;
  Backward(rows, input, embedding_gradient, global.sink);
  return Status::Ok();
}

void Ffnn::Forward(uint32_t rows, const float* input) {
  ReserveActivations(rows);
  const float* x = input;
  for (size_t i = 0; i < hidden_.size(); ++i) {
    HiddenForward(layout_.layers[i], rows, x, hidden_[i].data());
    x = hidden_[i].data();
  }
  HeadForward(layout_.layers.back(), rows, x);
}

void Ffnn::HiddenForward(const Layer& layer, uint32_t rows, const float* x, float* y) {
  const Matrix<const float> weight{parameters(layer.weight), layer.in};
  const Product product{ProductForm::kNt, layer.in, {x, layer.in}, weight, {y, layer.out}};
  const TileGrid grid(rows, layer.out, layer.in, tiles_);
  pool_.ParallelFor(grid.parts(), [&](uint32_t part) {
    const Tile tile = grid[part];
    ComputeTile(product, tile);
    AddBiasRelu(tile.rows, tile.columns, parameters(layer.bias) + tile.column,
                {product.c.at(tile.row, tile.column), layer.out});
  });
}

void Ffnn::HeadForward(const Layer& layer, uint32_t rows, const float* x) {
  const Matrix<float> outputs{outputs_.data(), layer.out};
  const Product product{ProductForm::kNt, layer.in, {x, layer.in}, {parameters(layer.weight), layer.in}, outputs};
  const TileGrid grid(rows, layer.out, layer.in, tiles_);
  pool_.ParallelFor(grid.parts(), [&](uint32_t part) { ComputeTile(product, grid[part]); });
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t task = 0; task < layer.out; ++task) *outputs.at(row, task) += parameters(layer.bias)[task];
  }
}

double Ffnn::HeadLoss(uint32_t rows, uint64_t global_rows, const float* labels) {
  output_gradient_.Resize(outputs_.size());
  double loss = 0.0;
  for (uint32_t task = 0; task < tasks(); ++task) {
    loss += LossAndGradient(config_.tasks[task], rows, global_rows, tasks(), outputs_.data() + task, labels + task,
                            output_gradient_.data() + task);
  }
  return loss;
}

void Ffnn::Backward(uint32_t rows, const float* input, float* embedding_gradient, GradientSink* sink) {
  for (auto& buffer : hidden_gradient_) buffer.Resize(size_t{rows} * layout_.widest_hidden);
  const Layer& head = layout_.layers.back();
  for (uint32_t task = 0; task < tasks(); ++task) {
    double sum = 0.0;
    for (uint32_t row = 0; row < rows; ++row) sum += output_gradient_[size_t{row} * tasks() + task];
    gradients_[head.bias + task] = static_cast<float>(sum);
  }
  const float* dy = output_gradient_.data();
  size_t finished = 0;
  for (size_t i = hidden_.size(); i > 0; --i) {
    float* dx = hidden_gradient_[i % 2].data();
    LayerBackward(i, rows, hidden_[i - 1].data(), dy, dx, layout_.layers[i].in);
    FinishBuckets(layout_.layers[i].weight, &finished, sink);
    dy = dx;
  }
  LayerBackward(0, rows, input, dy, embedding_gradient, config_.embedding_width);
  FinishBuckets(0, &finished, sink);
}

// Gradients of layer `index` from that of its output, dy (rows, out): of its weights, of its input's first dx_width
// columns and, when the input is a hidden layer's output, of that layer's bias.
void Ffnn::LayerBackward(size_t index, uint32_t rows, const float* x, const float* dy, float* dx, uint32_t dx_width) {
  const Layer& layer = layout_.layers[index];
  const Matrix<const float> weight{parameters(layer.weight), layer.in};
  const Matrix<float> weight_gradient{gradients_.data() + layer.weight, layer.in};
  const Product weights{ProductForm::kTn, rows, {dy, layer.out}, {x, layer.in}, weight_gradient};
  const Product inputs{ProductForm::kNn, layer.out, {dy, layer.out}, weight, {dx, dx_width}};
  const TileGrid weights_grid(layer.out, layer.in, rows, tiles_);
  const TileGrid inputs_grid(rows, dx_width, layer.out, tiles_);
  const uint32_t inputs_parts = dx_width > 0 ? inputs_grid.parts() : 0;

  pool_.ParallelFor(weights_grid.parts() + inputs_parts, [&](uint32_t part) {
    if (part < weights_grid.parts()) return ComputeTile(weights, weights_grid[part]);
    const Tile tile = inputs_grid[part - weights_grid.parts()];
    ComputeTile(inputs, tile);
    if (index == 0) return;
    MaskAndSum(tile.rows, tile.columns, {x + tile.row * size_t{layer.in} + tile.column, layer.in},
               {inputs.c.at(tile.row, tile.column), dx_width},
               bias_sums_.data() + size_t{tile.row_part} * layer.in + tile.column);
  });
  if (index > 0) SumBiasGradient(layout_.layers[index - 1], inputs_grid.row_parts());
}

// Adds up the bands' column sums, always in the same order.
void Ffnn::SumBiasGradient(const Layer& layer, uint32_t row_parts) {
  float* sum = gradients_.data() + layer.bias;
  std::copy_n(bias_sums_.data(), layer.out, sum);
  for (uint32_t part = 1; part < row_parts; ++part) {
    const float* band = bias_sums_.data() + size_t{part} * layer.out;
    for (uint32_t i = 0; i < layer.out; ++i) sum[i] += band[i];
  }
}

// Tells the sink of the buckets from *finished on, now that gradients from `final_from` on are final.
void Ffnn::FinishBuckets(size_t final_from, size_t* finished, GradientSink* sink) {
  if (sink == nullptr) return;
  for (; *finished < buckets_.size() && buckets_[*finished].data() >= gradients_.data() + final_from; ++*finished) {
    sink->BucketReady(*finished, buckets_[*finished]);
  }
}

Status Ffnn::ApplyGradients(uint64_t step) {
  return optimizer_.Step(pool_, step, ScheduleFactor(config_.schedule, step), gradients_.data(), parameters_.data());
}

Status Ffnn::Predict(uint32_t rows, const float* input, float* outputs) {
  Forward(rows, input);
  for (size_t i = 0; i < size_t{rows} * tasks(); ++i) {
    const bool bce = config_.tasks[i % tasks()].loss == Loss::kBce;
    outputs[i] = bce ? static_cast<float>(Sigmoid(outputs_[i])) : outputs_[i];
  }
  return Status::Ok();
}

std::vector<NamedTensor> Ffnn::Tensors() {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& suffix, std::span<float> flat) {
    for (size_t i = 0; i < layout_.layers.size(); ++i) {
      const Layer& layer = layout_.layers[i];
      const std::string name = "layer." + std::to_string(i);
      tensors.push_back({name + ".weight" + suffix, {layer.out, layer.in},
                         flat.subspan(layer.weight, size_t{layer.out} * layer.in)});
      tensors.push_back({name + ".bias" + suffix, {layer.out}, flat.subspan(layer.bias, layer.out)});
    }
  };
  add("", parameters_.span());
  for (const auto& state : optimizer_.States()) add(std::string(".") + state.name, state.values);
  return tensors;
}

Status Validate(const DenseModelConfig& config) {
  const auto invalid = [](const char* what) { return Status(ErrorCode::kConfigInvalid, what); };
  if (config.tasks.empty()) return invalid("the model needs at least one task");
  if (config.input_width() == 0) return invalid("the model has no input: neither id features nor dense features");
  for (const uint32_t width : config.hidden) {
    if (width == 0) return invalid("a hidden layer has width 0; leave the layer out instead");
  }
  if (config.schedule.every_steps == 0) return invalid("the schedule's every_steps is 0; the least is 1");

  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  double bytes = 0, in = config.input_width();
  for (const uint32_t width : config.hidden) {
    bytes += 2 * sizeof(float) * in * width;  // the least: weights and gradients
    in = width;
  }
  if (bytes > memory) {
    return Status(ErrorCode::kOutOfMemory, "the hidden layers need " + std::to_string(bytes / 1e9) +
                                               " GB, the machine has " + std::to_string(memory / 1e9) + " GB");
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config) {
  PERSIA_RETURN_IF_ERROR(Validate(config));
  return std::unique_ptr<DenseModel>(std::make_unique<Ffnn>(config, MakeLayout(config)));
}

}  // namespace persia
