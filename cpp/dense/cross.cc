// The cross layers of DCN-v2, stacked and parallel. Of a batch each layer keeps z = W·x[l] + b and x[l+1]; backward
// goes down with one gradient in place:
//
//   forward of layer l:   z[l] = W·x[l] + b;  x[l+1] = x0 ⊙ z[l] + x[l] on each finished tile of z
//   backward of layer l:  dz = g ⊙ x0, dx0 += g ⊙ z[l];  g += dz·W beside dW = dzᵀ·x[l]
//
// and at the end the gradient of the input is g + dx0. With low rank t[l] = V·x[l] lies between.
#include <utility>

#include "base/aligned_buffer.h"
#include "base/cpu.h"
#include "dense/interaction.h"

namespace persia {
namespace {

// On a tile (rows, columns) of z: adds the bias, and makes next = x0 ⊙ z + x.
struct Cross {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t rows, uint32_t columns, const float* bias, Matrix<const float> x0,
                                       Matrix<const float> x, Matrix<float> z, Matrix<float> next) {
    for (uint32_t r = 0; r < rows; ++r) {
      const float* __restrict b = bias;
      const float *__restrict x0_row = x0.at(r, 0), *__restrict x_row = x.at(r, 0);
      float *__restrict z_row = z.at(r, 0), *__restrict next_row = next.at(r, 0);
      for (uint32_t c = 0; c < columns; ++c) {
        const float value = z_row[c] + b[c];
        z_row[c] = value;
        next_row[c] = x0_row[c] * value + x_row[c];
      }
    }
  }
};

// On `count` values of whole rows of `width`: dz = g ⊙ x0, dx0 += g ⊙ z; sums gets the column sums of dz.
struct CrossGradient {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t rows, uint32_t width, const float* x0, const float* z, const float* g,
                                       float* dz, float* dx0, float* sums) {
    for (uint32_t c = 0; c < width; ++c) sums[c] = 0.0f;
    for (uint32_t r = 0; r < rows; ++r) {
      const size_t at = size_t{r} * width;
      const float *__restrict x0_row = x0 + at, *__restrict z_row = z + at, *__restrict g_row = g + at;
      float *__restrict dz_row = dz + at, *__restrict dx0_row = dx0 + at, *__restrict sum = sums;
      for (uint32_t c = 0; c < width; ++c) {
        const float value = g_row[c] * x0_row[c];
        dz_row[c] = value;
        sum[c] += value;
        dx0_row[c] += g_row[c] * z_row[c];
      }
    }
  }
};

// (rows, columns) of to: a + b, or to + a + b.
template <bool kAdds>
struct Sum {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t rows, uint32_t columns, Matrix<const float> a, Matrix<const float> b,
                                       Matrix<float> to) {
    for (uint32_t r = 0; r < rows; ++r) {
      const float *__restrict a_row = a.at(r, 0), *__restrict b_row = b.at(r, 0);
      float* __restrict to_row = to.at(r, 0);
      for (uint32_t c = 0; c < columns; ++c) to_row[c] = (kAdds ? to_row[c] : 0.0f) + (a_row[c] + b_row[c]);
    }
  }
};

class CrossNetwork {
 public:
  CrossNetwork(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team);

  uint32_t width() const { return width_; }

  // x after the last layer (rows, width) from x0 (rows, width); valid until the next call.
  const float* Forward(uint32_t rows, const float* x0);

  // Where the gradient of Forward's result is to be written before Backward, (rows, width).
  float* gradient() { return gradient_.data(); }

  // Gradients of all parameters; that of the pooled embeddings goes to embedding_gradient, or is added to it.
  template <bool kAdds>
  void Backward(uint32_t rows, const float* x0, float* embedding_gradient, BucketProgress& progress);

 private:
  struct Level {
    AlignedBuffer<float> t;     // V·x: (rows, rank), low rank only
    AlignedBuffer<float> z;     // W·x + b: (rows, width)
    AlignedBuffer<float> next;  // x of the next layer: (rows, width)
  };

  bool low_rank() const { return layers_.size() > levels_.size(); }
  // The layer that makes z; with low rank the one that makes t lies before it.
  const Layer& z_layer(size_t level) const { return low_rank() ? layers_[2 * level + 1] : layers_[level]; }
  const Layer& t_layer(size_t level) const { return layers_[2 * level]; }
  void Reserve(uint32_t rows);
  void LevelBackward(size_t index, uint32_t rows, const float* x0, const float* x);

  const uint32_t width_, embedding_width_;
  const std::vector<Layer> layers_;
  const Team team_;
  std::vector<Level> levels_;
  AlignedBuffer<float> gradient_, x0_gradient_, z_gradient_;  // (rows, width)
  AlignedBuffer<float> t_gradient_;                           // (rows, rank)
  AlignedBuffer<float> bias_sums_;                            // (bands, width)
};

CrossNetwork::CrossNetwork(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team)
    : width_(config.input_width()),
      embedding_width_(config.embedding_width),
      layers_(std::move(layers)),
      team_(team),
      levels_(config.cross.layers) {}

void CrossNetwork::Reserve(uint32_t rows) {
  const size_t values = size_t{rows} * width_;
  for (size_t i = 0; i < levels_.size(); ++i) {
    if (low_rank()) levels_[i].t.Resize(size_t{rows} * t_layer(i).out);
    levels_[i].z.Resize(values);
    levels_[i].next.Resize(values);
  }
  if (low_rank()) t_gradient_.Resize(size_t{rows} * t_layer(0).out);
  for (auto* buffer : {&gradient_, &x0_gradient_, &z_gradient_}) buffer->Resize(values);
  bias_sums_.Resize(size_t{BandCount(rows)} * width_);
}

const float* CrossNetwork::Forward(uint32_t rows, const float* x0) {
  Reserve(rows);
  const float* x = x0;
  for (size_t i = 0; i < levels_.size(); ++i) {
    Level& level = levels_[i];
    const Layer& layer = z_layer(i);
    Matrix<const float> from{x, width_};
    if (low_rank()) {
      LinearForward(team_, t_layer(i), rows, from, level.t.data(), kNothingMore);
      from = {level.t.data(), t_layer(i).out};
    }
    LinearForward(team_, layer, rows, from, level.z.data(), [&](const Tile& tile) {
      const size_t at = size_t{tile.row} * width_ + tile.column;
      const auto read = [&](const float* data) { return Matrix<const float>{data + at, width_}; };
      const auto write = [&](float* data) { return Matrix<float>{data + at, width_}; };
      RunBestSimd<Cross>(tile.rows, tile.columns, team_.bias(layer) + tile.column, read(x0), read(x),
                         write(level.z.data()), write(level.next.data()));
    });
    x = level.next.data();
  }
  return x;
}

template <bool kAdds>
void CrossNetwork::Backward(uint32_t rows, const float* x0, float* embedding_gradient, BucketProgress& progress) {
  x0_gradient_.Fill(0.0f);
  for (size_t i = levels_.size(); i > 0; --i) {
    LevelBackward(i - 1, rows, x0, i == 1 ? x0 : levels_[i - 2].next.data());
    progress.FinalFrom(low_rank() ? t_layer(i - 1).weight : z_layer(i - 1).weight);
  }
  ForEachBand(team_.pool, rows, [&](uint32_t, uint32_t begin, uint32_t count) {
    const auto read = [&](const float* data) { return Matrix<const float>{data, width_}.from(begin, 0); };
    const auto to = Matrix<float>{embedding_gradient, embedding_width_}.from(begin, 0);
    RunBestSimd<Sum<kAdds>>(count, embedding_width_, read(gradient_.data()), read(x0_gradient_.data()), to);
  });
}

// Turns the gradient of x[index + 1] into that of x[index], in place.
void CrossNetwork::LevelBackward(size_t index, uint32_t rows, const float* x0, const float* x) {
  const Level& level = levels_[index];
  const Layer& layer = z_layer(index);
  ForEachBand(team_.pool, rows, [&](uint32_t band, uint32_t begin, uint32_t count) {
    const size_t at = size_t{begin} * width_;
    RunBestSimd<CrossGradient>(count, width_, x0 + at, level.z.data() + at, gradient_.data() + at,
                               z_gradient_.data() + at, x0_gradient_.data() + at,
                               bias_sums_.data() + size_t{band} * width_);
  });
  SumParts(bias_sums_.data(), BandCount(rows), width_, team_.bias_gradient(layer));
  const Matrix<const float> input{x, width_}, dz{z_gradient_.data(), width_};
  const Matrix<float> dx{gradient_.data(), width_};
  if (!low_rank()) {
    LinearBackward(team_, layer, rows, input, dz, dx, width_, true, kNothingMore);
    return;
  }
  const uint32_t rank = layer.in;
  LinearBackward(team_, layer, rows, {level.t.data(), rank}, dz, {t_gradient_.data(), rank}, rank, false, kNothingMore);
  LinearBackward(team_, t_layer(index), rows, input, {t_gradient_.data(), rank}, dx, width_, true, kNothingMore);
}

class StackedCross final : public BelowInteraction {
 public:
  StackedCross(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team)
      : cross_(config, std::move(layers), team) {}

  uint32_t output_width() const override { return cross_.width(); }
  const float* Forward(uint32_t rows, const float* input) override { return cross_.Forward(rows, input); }
  float* OutputGradient() override { return cross_.gradient(); }
  void Backward(uint32_t rows, const float* input, float* embedding_gradient, BucketProgress& progress) override {
    cross_.Backward<false>(rows, input, embedding_gradient, progress);
  }

 private:
  CrossNetwork cross_;
};

class ParallelCross final : public BesideInteraction {
 public:
  // The last of `layers` is the head.
  ParallelCross(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team)
      : head_(layers.back()), team_(team), cross_(config, {layers.begin(), layers.end() - 1}, team) {}

  void AddToOutputs(uint32_t rows, const float* input, float* outputs) override;
  void Backward(uint32_t rows, const float* input, const float* output_gradient, float* embedding_gradient,
                BucketProgress& progress) override;

 private:
  const Layer head_;
  const Team team_;
  CrossNetwork cross_;
  const float* crossed_ = nullptr;  // (rows, width), of the last batch
  AlignedBuffer<float> outputs_;    // of the head: (rows, tasks)
};

void ParallelCross::AddToOutputs(uint32_t rows, const float* input, float* outputs) {
  crossed_ = cross_.Forward(rows, input);
  outputs_.Resize(size_t{rows} * head_.out);
  LinearForward(team_, head_, rows, {crossed_, head_.in}, outputs_.data(), kNothingMore);
  for (size_t i = 0; i < outputs_.size(); ++i) outputs[i] += outputs_[i];
}

void ParallelCross::Backward(uint32_t rows, const float* input, const float* output_gradient, float* embedding_gradient,
                             BucketProgress& progress) {
  LinearBackward(team_, head_, rows, {crossed_, head_.in}, {output_gradient, head_.out},
                 {cross_.gradient(), head_.in}, head_.in, false, kNothingMore);
  progress.FinalFrom(head_.weight);
  cross_.Backward<true>(rows, input, embedding_gradient, progress);
}

}  // namespace

std::vector<Layer> CrossLayers(const DenseModelConfig& config, Layout& layout) {
  const uint32_t width = config.input_width(), rank = config.cross.rank;
  std::vector<Layer> layers;
  for (uint32_t i = 0; i < config.cross.layers; ++i) {
    const std::string name = "cross." + std::to_string(i);
    if (rank > 0) layers.push_back(layout.Add(name + ".v", width, rank, false));
    layers.push_back(layout.Add(rank > 0 ? name + ".u" : name, rank > 0 ? rank : width, width));
  }
  if (config.cross.structure == CrossStructure::kParallel) {
    layers.push_back(layout.Add("cross.head", width, static_cast<uint32_t>(config.tasks.size()), false));
  }
  return layers;
}

std::unique_ptr<BelowInteraction> MakeStackedCross(const DenseModelConfig& config, std::vector<Layer> layers,
                                                   const Team& team) {
  return std::make_unique<StackedCross>(config, std::move(layers), team);
}

std::unique_ptr<BesideInteraction> MakeParallelCross(const DenseModelConfig& config, std::vector<Layer> layers,
                                                     const Team& team) {
  return std::make_unique<ParallelCross>(config, std::move(layers), team);
}

}  // namespace persia
