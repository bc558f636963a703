// The dot interaction of DLRM. Samples are taken eight at a time, transposed so that a vector register holds the same
// value of eight samples: products of short vectors then need no horizontal sums, whatever their dim.
//
//   block of 8 samples:  values (vectors · dim, 8), pairs (pairs, 8), each in scratch of the band
//
// Which samples share a block changes nothing in any of them.
#include <utility>

#include "base/aligned_buffer.h"
#include "base/cpu.h"
#include "dense/interaction.h"
#include "dense/mlp.h"

namespace persia {
namespace {

constexpr uint32_t kLanes = 8;

// to[i][lane] = from[lane · stride + i] for `count` values of `rows` samples; other lanes are 0.
struct Gather {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t rows, uint32_t count, const float* from, size_t stride, float* to) {
    if (rows < kLanes) std::fill_n(to, size_t{count} * kLanes, 0.0f);
    for (uint32_t lane = 0; lane < rows; ++lane) {
      const float* row = from + lane * stride;
      for (uint32_t i = 0; i < count; ++i) to[size_t{i} * kLanes + lane] = row[i];
    }
  }
};

// The other way.
struct Scatter {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t rows, uint32_t count, const float* from, float* to, size_t stride) {
    for (uint32_t lane = 0; lane < rows; ++lane) {
      float* row = to + lane * stride;
      for (uint32_t i = 0; i < count; ++i) row[i] = from[size_t{i} * kLanes + lane];
    }
  }
};

// pairs[(i, j < i)] = <v_i, v_j>, in a block.
struct Dots {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t vectors, uint32_t dim, const float* __restrict values,
                                       float* __restrict pairs) {
    const size_t step = size_t{dim} * kLanes;
    for (uint32_t i = 1; i < vectors; ++i) {
      for (uint32_t j = 0; j < i; ++j, pairs += kLanes) {
        const float *a = values + i * step, *b = values + j * step;
        float sum[kLanes] = {};
        for (size_t d = 0; d < step; d += kLanes) {
          for (uint32_t lane = 0; lane < kLanes; ++lane) sum[lane] += a[d + lane] * b[d + lane];
        }
        for (uint32_t lane = 0; lane < kLanes; ++lane) pairs[lane] = sum[lane];
      }
    }
  }
};

// Backward of Dots: gradient of v_i = the sum over j of pair_gradients[(i, j)] · v_j, in a block.
struct DotsGradient {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t vectors, uint32_t dim, const float* __restrict values,
                                       const float* __restrict pair_gradients, float* __restrict gradients) {
    const size_t step = size_t{dim} * kLanes;
    for (uint32_t i = 0; i < vectors; ++i) {
      for (size_t d = 0; d < step; d += kLanes) {
        float sum[kLanes] = {};
        for (uint32_t j = 0; j < vectors; ++j) {
          if (j == i) continue;
          const size_t high = std::max(i, j), low = std::min(i, j);
          const float* factor = pair_gradients + (high * (high - 1) / 2 + low) * kLanes;
          const float* value = values + j * step + d;
          for (uint32_t lane = 0; lane < kLanes; ++lane) sum[lane] += factor[lane] * value[lane];
        }
        for (uint32_t lane = 0; lane < kLanes; ++lane) gradients[i * step + d + lane] = sum[lane];
      }
    }
  }
};

class DotInteraction final : public BelowInteraction {
 public:
  DotInteraction(const DenseModelConfig& config, std::vector<Layer> bottom, const Team& team);

  uint32_t output_width() const override { return bottom_width() + pairs_; }
  const float* Forward(uint32_t rows, const float* input) override;
  float* OutputGradient() override { return output_gradient_.data(); }
  void Backward(uint32_t rows, const float* input, float* embedding_gradient, BucketProgress& progress) override;

 private:
  uint32_t bottom_width() const { return bottom_ == nullptr ? 0 : dim_; }
  size_t block_floats() const { return size_t{vectors_} * dim_ * kLanes; }
  size_t scratch_floats() const { return 2 * block_floats() + size_t{pairs_} * kLanes; }
  Matrix<const float> DenseOf(const float* input) const { return {input + embedding_width_, input_width_}; }
  void GatherValues(uint32_t row, uint32_t rows, const float* input, float* values) const;
  void ForwardBlock(uint32_t row, uint32_t rows, const float* input, float* scratch);
  void BackwardBlock(uint32_t row, uint32_t rows, const float* input, float* scratch, float* embedding_gradient);
  template <typename Block>
  void ForEachBlock(uint32_t rows, const Block& block);

  const uint32_t embedding_width_, input_width_, dim_, vectors_, pairs_;
  const Team team_;
  std::unique_ptr<Mlp> bottom_;  // null without dense features
  const float* bottom_output_ = nullptr;   // (rows, dim), of the last batch
  AlignedBuffer<float> bottom_gradient_;   // (rows, dim)
  AlignedBuffer<float> output_, output_gradient_;  // (rows, output_width)
  AlignedBuffer<float> scratch_;           // (bands, scratch_floats): a block's values, gradients and pairs
};

uint32_t VectorCount(const DenseModelConfig& config) {
  return static_cast<uint32_t>(config.fields.size()) + (config.dense_count > 0 ? 1 : 0);
}

DotInteraction::DotInteraction(const DenseModelConfig& config, std::vector<Layer> bottom, const Team& team)
    : embedding_width_(config.embedding_width),
      input_width_(config.input_width()),
      dim_(config.fields.front().dim),
      vectors_(VectorCount(config)),
      pairs_(vectors_ * (vectors_ - 1) / 2),
      team_(team) {
  if (!bottom.empty()) bottom_ = MakeMlp(std::move(bottom), Mlp::LastLayer::kRelu, team);
}

// Calls block(first row, rows, scratch) for every block of samples, in parallel by band.
template <typename Block>
void DotInteraction::ForEachBlock(uint32_t rows, const Block& block) {
  ForEachBand(team_.pool, rows, [&](uint32_t band, uint32_t begin, uint32_t count) {
    for (uint32_t row = begin; row < begin + count; row += kLanes) {
      block(row, std::min(kLanes, begin + count - row), scratch_.data() + band * scratch_floats());
    }
  });
}

const float* DotInteraction::Forward(uint32_t rows, const float* input) {
  output_.Resize(size_t{rows} * output_width());
  output_gradient_.Resize(size_t{rows} * output_width());
  scratch_.Resize(BandCount(rows) * scratch_floats());
  if (bottom_ != nullptr) bottom_output_ = bottom_->Forward(rows, DenseOf(input));
  ForEachBlock(rows, [&](uint32_t row, uint32_t count, float* scratch) { ForwardBlock(row, count, input, scratch); });
  return output_.data();
}

void DotInteraction::GatherValues(uint32_t row, uint32_t rows, const float* input, float* values) const {
  const size_t at = row;
  if (bottom_ != nullptr) RunBestSimd<Gather>(rows, dim_, bottom_output_ + at * dim_, size_t{dim_}, values);
  RunBestSimd<Gather>(rows, embedding_width_, input + at * input_width_, size_t{input_width_},
                      values + size_t{bottom_width()} * kLanes);
}

void DotInteraction::ForwardBlock(uint32_t row, uint32_t rows, const float* input, float* scratch) {
  float* pairs = scratch + 2 * block_floats();
  const size_t width = output_width();
  float* output = output_.data() + row * width;
  GatherValues(row, rows, input, scratch);
  RunBestSimd<Dots>(vectors_, dim_, scratch, pairs);
  RunBestSimd<Scatter>(rows, bottom_width(), scratch, output, width);
  RunBestSimd<Scatter>(rows, pairs_, pairs, output + bottom_width(), width);
}

void DotInteraction::Backward(uint32_t rows, const float* input, float* embedding_gradient, BucketProgress& progress) {
  bottom_gradient_.Resize(size_t{rows} * bottom_width());
  ForEachBlock(rows, [&](uint32_t row, uint32_t count, float* scratch) {
    BackwardBlock(row, count, input, scratch, embedding_gradient);
  });
  if (bottom_ != nullptr) bottom_->Backward(rows, DenseOf(input), bottom_gradient_.data(), nullptr, 0, progress);
}

void DotInteraction::BackwardBlock(uint32_t row, uint32_t rows, const float* input, float* scratch,
                                   float* embedding_gradient) {
  float *gradients = scratch + block_floats(), *pairs = scratch + 2 * block_floats();
  const size_t at = row, width = output_width(), bottom = bottom_width();
  const float* output_gradient = output_gradient_.data() + at * width;
  GatherValues(row, rows, input, scratch);
  RunBestSimd<Gather>(rows, pairs_, output_gradient + bottom, width, pairs);
  RunBestSimd<DotsGradient>(vectors_, dim_, scratch, pairs, gradients);
  RunBestSimd<Scatter>(rows, embedding_width_, gradients + bottom * kLanes,
                       embedding_gradient + at * embedding_width_, size_t{embedding_width_});
  for (uint32_t lane = 0; lane < rows; ++lane) {  // the bottom's vector went to the hidden layers as it is, too
    for (size_t d = 0; d < bottom; ++d) {
      bottom_gradient_[(at + lane) * bottom + d] = gradients[d * kLanes + lane] + output_gradient[lane * width + d];
    }
  }
}

}  // namespace

std::unique_ptr<BelowInteraction> MakeDotInteraction(const DenseModelConfig& config, std::vector<Layer> bottom,
                                                     const Team& team) {
  return std::make_unique<DotInteraction>(config, std::move(bottom), team);
}

}  // namespace persia
