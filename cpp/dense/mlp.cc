#include "dense/mlp.h"

#include <utility>

#include "dense/kernels.h"

namespace persia {
namespace {

class LibraryMlp final : public Mlp {
 public:
  LibraryMlp(std::vector<Layer> layers, LastLayer last, const Team& team);

  float* Forward(uint32_t rows, Matrix<const float> x) override;
  void Backward(uint32_t rows, Matrix<const float> x, float* dy, float* dx, uint32_t dx_width,
                BucketProgress& progress) override;

 private:
  void LayerBackward(size_t index, uint32_t rows, Matrix<const float> x, const float* dy, float* dx,
                     uint32_t dx_width);

  uint32_t widest_ = 0;

  // Scratch of one batch, as large as the largest batch so far.
  std::vector<AlignedBuffer<float>> outputs_;  // of layer i: (rows, out)
  AlignedBuffer<float> gradients_[2];          // of layer i's output in [i % 2]: (rows, out)
  AlignedBuffer<float> bias_sums_;             // bias gradient by band of rows: (bands, widest)
};

LibraryMlp::LibraryMlp(std::vector<Layer> layers, LastLayer last, const Team& team)
    : Mlp(std::move(layers), last, team), outputs_(layers_.size()) {
  for (const Layer& layer : layers_) widest_ = std::max(widest_, layer.out);
}

float* LibraryMlp::Forward(uint32_t rows, Matrix<const float> x) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const bool relu = i + 1 < layers_.size() || last_ == LastLayer::kRelu;
    outputs_[i].Resize(size_t{rows} * layer.out);
    const Matrix<float> y{outputs_[i].data(), layer.out};
    LinearForward(team_, layer, rows, x, y.data, [&](const Tile& tile) {
      const float* bias = team_.bias(layer) + tile.column;
      const Matrix<float> values = y.from(tile.row, tile.column);
      relu ? AddBiasRelu(tile.rows, tile.columns, bias, values) : AddBias(tile.rows, tile.columns, bias, values);
    });
    x = {y.data, y.stride};
  }
  return outputs_.back().data();
}

void LibraryMlp::Backward(uint32_t rows, Matrix<const float> x, float* dy, float* dx, uint32_t dx_width,
                       BucketProgress& progress) {
  for (auto& buffer : gradients_) buffer.Resize(size_t{rows} * widest_);
  bias_sums_.Resize(size_t{team_.tiles} * widest_);
  LastBiasGradient(rows, outputs_.back().data(), dy);
  for (size_t i = layers_.size() - 1; i > 0; --i) {
    const uint32_t in = layers_[i].in;
    float* below = gradients_[i % 2].data();
    LayerBackward(i, rows, {outputs_[i - 1].data(), in}, dy, below, in);
    progress.FinalFrom(layers_[i].weight);
    dy = below;
  }
  LayerBackward(0, rows, x, dy, dx, dx_width);
  progress.FinalFrom(layers_[0].weight);
}

// Gradients of layer `index` from that of its output, dy (rows, out): of its weights, of its input's first dx_width
// columns and, when the input is another layer's output, of that layer's bias.
void LibraryMlp::LayerBackward(size_t index, uint32_t rows, Matrix<const float> x, const float* dy, float* dx,
                            uint32_t dx_width) {
  const Layer& layer = layers_[index];
  const Matrix<float> to{dx, dx_width};
  const auto mask = [&](const Tile& tile) {
    if (index == 0) return;
    MaskAndSum(tile.rows, tile.columns, x.from(tile.row, tile.column), to.from(tile.row, tile.column),
               bias_sums_.data() + size_t{tile.row_part} * layer.in + tile.column);
  };
  const uint32_t bands = LinearBackward(team_, layer, rows, x, {dy, layer.out}, to, dx_width, false, mask);
  if (index > 0) SumParts(bias_sums_.data(), bands, layer.in, team_.bias_gradient(layers_[index - 1]));
}

}  // namespace

Mlp::Mlp(std::vector<Layer> layers, LastLayer last, const Team& team)
    : layers_(std::move(layers)), last_(last), team_(team) {}

void Mlp::LastBiasGradient(uint32_t rows, const float* output, float* dy) {
  const uint32_t out = output_width();
  float* gradient = team_.bias_gradient(layers_.back());
  if (last_ == LastLayer::kRelu) {
    last_sums_.Resize(size_t{BandCount(rows)} * out);
    const Matrix<const float> active{output, out};
    const Matrix<float> gradients{dy, out};
    ForEachBand(team_.pool, rows, [&](uint32_t band, uint32_t begin, uint32_t count) {
      MaskAndSum(count, out, active.from(begin, 0), gradients.from(begin, 0), last_sums_.data() + size_t{band} * out);
    });
    return SumParts(last_sums_.data(), BandCount(rows), out, gradient);
  }
  for (uint32_t column = 0; column < out; ++column) {
    double sum = 0.0;
    for (uint32_t row = 0; row < rows; ++row) sum += dy[size_t{row} * out + column];
    gradient[column] = static_cast<float>(sum);
  }
}

std::unique_ptr<Mlp> MakeMlp(std::vector<Layer> layers, Mlp::LastLayer last, const Team& team) {
  if (team.unit != ProductUnit::kLibrary) return MakePanelMlp(std::move(layers), last, team);
  return std::make_unique<LibraryMlp>(std::move(layers), last, team);
}

}  // namespace persia
