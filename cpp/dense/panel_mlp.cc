// The Mlp of own kernels, in float32 or bf16. Between layers there are only packed matrices: what a product leaves in
// cache is packed there, and in bf16 rounded, for the products to come (dense/packed.h).
//
//   layer i            left                    right                    result
//   forward            x[i], along columns     W, along columns         y = x[i+1], packed for the two uses of x
//   weight gradient    dy, along rows          x[i], along rows         float32, dW
//   input gradient     dy, along columns       W, along rows            dy of layer i - 1, packed for its two uses
//
// The first input, the last output and the first input's gradient are float32. A result's sum is the same whatever the
// number of threads.
#include <utility>

#include "dense/mlp.h"
#include "dense/panel_grid.h"
#include "dense/panel_kernels.h"

namespace persia {
namespace {

template <typename T>
class PanelMlp final : public Mlp {
 public:
  PanelMlp(std::vector<Layer> layers, LastLayer last, const Team& team)
      : Mlp(std::move(layers), last, team), packed_(layers_.size()) {}

  float* Forward(uint32_t rows, Matrix<const float> x) override;
  void Backward(uint32_t rows, Matrix<const float> x, float* dy, float* dx, uint32_t dx_width,
                BucketProgress& progress) override;

 private:
  // A matrix for products whose terms run along its columns, and along its rows.
  struct Both {
    PackedMatrix<T> along_columns, along_rows;

    void Resize(uint32_t rows, uint32_t columns) {
      along_columns.Resize(PanelCount(rows), PanelCount(columns));
      along_rows.Resize(PanelCount(columns), PanelCount(rows));
    }
  };

  struct PackedLayer {
    Both weight;                     // (out, in), right operands
    Both input;                      // (rows, in): left operand along columns, right along rows
    AlignedBuffer<float> bias_sums;  // bias gradient by panel of rows: (panels, out in whole panels)
  };

  void PackWeights();
  void Pack(const Packing<T>& packing) const;
  void LayerForward(size_t index, uint32_t rows);
  PanelProduct<T> WeightGradient(size_t index, uint32_t rows, Both& dy);
  PanelProduct<T> InputGradient(size_t index, uint32_t rows, Both& dy, Both& below, Matrix<float> dx);
  void LayerBackward(size_t index, uint32_t rows, Both& dy, Both& below, Matrix<float> dx, uint32_t dx_width);
  void SumBias(size_t index, uint32_t rows, uint32_t panel);

  std::vector<PackedLayer> packed_;
  uint64_t weights_version_ = 0;  // of the packed weights
  // Of one batch, as large as the largest so far.
  Both gradients_[2];             // of layer i's output in [i % 2]: (rows, out), left operands
  AlignedBuffer<float> output_;   // (rows, out of the last layer)
};

template <typename T>
void PanelMlp<T>::Pack(const Packing<T>& packing) const {
  team_.pool.ParallelFor(PanelCount(packing.rows), [&](uint32_t panel) { PackRowPanel(team_.unit, packing, panel); });
}

// All layers' in one loop, unless they haven't changed.
template <typename T>
void PanelMlp<T>::PackWeights() {
  if (weights_version_ == *team_.weights_version) return;
  weights_version_ = *team_.weights_version;
  uint32_t panels = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    packed_[i].weight.Resize(layers_[i].out, layers_[i].in);
    panels += PanelCount(layers_[i].out);
  }
  team_.pool.ParallelFor(panels, [&](uint32_t panel) {
    size_t i = 0;
    for (; panel >= PanelCount(layers_[i].out); ++i) panel -= PanelCount(layers_[i].out);
    const Layer& layer = layers_[i];
    Both& weight = packed_[i].weight;
    constexpr Operand kRight = Operand::kRight;
    PackRowPanel<T>(team_.unit, {{team_.weight(layer), layer.in}, layer.out, layer.in, weight.along_columns.view(),
                                 weight.along_rows.view(), kRight, kRight}, panel);
  });
}

template <typename T>
float* PanelMlp<T>::Forward(uint32_t rows, Matrix<const float> x) {
  PackWeights();
  output_.Resize(size_t{rows} * output_width());
  for (size_t i = 0; i < layers_.size(); ++i) packed_[i].input.Resize(rows, layers_[i].in);
  Both& input = packed_[0].input;
  Pack({x, rows, layers_[0].in, input.along_columns.view(), input.along_rows.view(), Operand::kLeft,
        Operand::kRight});
  for (size_t i = 0; i < layers_.size(); ++i) LayerForward(i, rows);
  return output_.data();
}

template <typename T>
void PanelMlp<T>::LayerForward(size_t index, uint32_t rows) {
  const Layer& layer = layers_[index];
  PackedLayer& packed = packed_[index];
  PanelProduct<T> product{packed.input.along_columns.view(), packed.weight.along_columns.view(), PanelCount(layer.in),
                      {.kind = Finish<T>::Kind::kRelu, .bias = team_.bias(layer), .columns = layer.out}};
  Finish<T>& finish = product.finish;
  if (index + 1 < layers_.size()) {
    finish.along_columns = packed_[index + 1].input.along_columns.view();
    finish.along_rows = packed_[index + 1].input.along_rows.view();
  } else {
    finish.kind = Finish<T>::Kind::kStore;
    finish.out = {output_.data(), layer.out};
    finish.rows = rows;
    finish.relu = last_ == LastLayer::kRelu;
  }
  const PanelGrid grid(PanelCount(rows), PanelCount(layer.out), product.steps, team_.pool.threads());
  team_.pool.ParallelFor(grid.parts(), [&](uint32_t part) { MultiplyPanels(team_.unit, product, grid[part]); });
}

template <typename T>
void PanelMlp<T>::Backward(uint32_t rows, Matrix<const float>, float* dy, float* dx, uint32_t dx_width,
                       BucketProgress& progress) {
  const size_t last = layers_.size() - 1;
  LastBiasGradient(rows, output_.data(), dy);
  Both& top = gradients_[last % 2];
  top.Resize(rows, output_width());
  Pack({{dy, output_width()}, rows, output_width(), top.along_columns.view(), top.along_rows.view(),
        Operand::kLeft, Operand::kLeft});
  for (size_t i = layers_.size(); i-- > 0;) {
    LayerBackward(i, rows, gradients_[i % 2], gradients_[(i + 1) % 2], {dx, dx_width}, dx_width);
    progress.FinalFrom(layers_[i].weight);
  }
}

template <typename T>
PanelProduct<T> PanelMlp<T>::WeightGradient(size_t index, uint32_t rows, Both& dy) {
  const Layer& layer = layers_[index];
  return {dy.along_rows.view(), packed_[index].input.along_rows.view(), PanelCount(rows),
          {.kind = Finish<T>::Kind::kStore, .columns = layer.in, .out = {team_.weight_gradient(layer), layer.in},
           .rows = layer.out}};
}

// Of the first layer to dx; of the others, masked, to `below`.
template <typename T>
PanelProduct<T> PanelMlp<T>::InputGradient(size_t index, uint32_t rows, Both& dy, Both& below, Matrix<float> dx) {
  const Layer& layer = layers_[index];
  PanelProduct<T> product{dy.along_columns.view(), packed_[index].weight.along_rows.view(), PanelCount(layer.out),
                      {.kind = Finish<T>::Kind::kStore, .columns = static_cast<uint32_t>(dx.stride), .out = dx,
                       .rows = rows}};
  if (index == 0) return product;
  const uint32_t panels = PanelCount(layer.in);
  AlignedBuffer<float>& sums = packed_[index - 1].bias_sums;
  sums.Resize(size_t{PanelCount(rows)} * panels * kPanel);
  below.Resize(rows, layer.in);
  product.finish = {.kind = Finish<T>::Kind::kMask, .columns = layer.in, .along_columns = below.along_columns.view(),
                    .along_rows = below.along_rows.view(),
                    .activation = packed_[index].input.along_columns.view(), .column_sums = sums.data(),
                    .sums_stride = size_t{panels} * kPanel};
  return product;
}

// Both gradients of layer `index`, and that of its bias, whose sums the layer above has left, in one loop.
template <typename T>
void PanelMlp<T>::LayerBackward(size_t index, uint32_t rows, Both& dy, Both& below, Matrix<float> dx,
                                uint32_t dx_width) {
  const Layer& layer = layers_[index];
  const uint32_t threads = team_.pool.threads(), out = PanelCount(layer.out), in = PanelCount(layer.in);
  const PanelProduct<T> weights = WeightGradient(index, rows, dy), inputs = InputGradient(index, rows, dy, below, dx);
  const uint32_t input_panels = index > 0 ? in : PanelCount(dx_width);
  const PanelGrid weights_grid(out, in, weights.steps, threads);
  const PanelGrid inputs_grid(PanelCount(rows), input_panels, inputs.steps, threads);
  const uint32_t bias_parts = index + 1 < layers_.size() ? out : 0;

  team_.pool.ParallelFor(inputs_grid.parts() + weights_grid.parts() + bias_parts, [&](uint32_t part) {
    if (part < inputs_grid.parts()) return MultiplyPanels(team_.unit, inputs, inputs_grid[part]);
    part -= inputs_grid.parts();
    if (part < weights_grid.parts()) return MultiplyPanels(team_.unit, weights, weights_grid[part]);
    SumBias(index, rows, part - weights_grid.parts());
  });
}

// The bias gradient of a panel of layer `index`'s outputs.
template <typename T>
void PanelMlp<T>::SumBias(size_t index, uint32_t rows, uint32_t panel) {
  const Layer& layer = layers_[index];
  const size_t stride = size_t{PanelCount(layer.out)} * kPanel;
  const float* sums = packed_[index].bias_sums.data() + panel * kPanel;
  float total[kPanel] = {};
  for (uint32_t band = 0; band < PanelCount(rows); ++band) {
    for (uint32_t i = 0; i < kPanel; ++i) total[i] += sums[band * stride + i];
  }
  const uint32_t begin = panel * kPanel;
  std::copy_n(total, std::min(kPanel, layer.out - begin), team_.bias_gradient(layer) + begin);
}

}  // namespace

std::unique_ptr<Mlp> MakePanelMlp(std::vector<Layer> layers, Mlp::LastLayer last, const Team& team) {
  if (IsBf16(team.unit)) return std::make_unique<PanelMlp<Bf16>>(std::move(layers), last, team);
  return std::make_unique<PanelMlp<float>>(std::move(layers), last, team);
}

}  // namespace persia
