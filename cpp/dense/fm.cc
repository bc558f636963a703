// The factorization machine of DeepFM. Pairs of fields are summed up by prefix, <v_j, v_0 + … + v_{j-1}>: linear in the
// number of fields like the paper's square of the sum less the sum of squares, but nothing cancels.
#include <utility>

#include "base/aligned_buffer.h"
#include "base/cpu.h"
#include "dense/interaction.h"

namespace persia {
namespace {

// The sum over pairs of fields. `embedding` holds `fields` vectors of `dim`; their sum goes to sum (dim), `products` is
// scratch (dim).
struct PairSum {
  static PERSIA_ALWAYS_INLINE void Run(const float* __restrict embedding, uint32_t fields, uint32_t dim,
                                       float* __restrict sum, float* __restrict products, float* result) {
    for (uint32_t d = 0; d < dim; ++d) sum[d] = embedding[d];
    for (uint32_t d = 0; d < dim; ++d) products[d] = 0.0f;
    for (uint32_t field = 1; field < fields; ++field) {
      const float* __restrict vector = embedding + size_t{field} * dim;
      for (uint32_t d = 0; d < dim; ++d) {
        products[d] += sum[d] * vector[d];
        sum[d] += vector[d];
      }
    }
    float total = 0.0f;
    for (uint32_t d = 0; d < dim; ++d) total += products[d];
    *result = total;
  }
};

// Backward of PairSum: the gradient of a vector is the sum of all others.
struct PairSumGradient {
  static PERSIA_ALWAYS_INLINE void Run(const float* __restrict embedding, uint32_t fields, uint32_t dim,
                                       const float* __restrict sum, float scale, float* __restrict gradient) {
    for (uint32_t field = 0; field < fields; ++field) {
      const float* __restrict vector = embedding + size_t{field} * dim;
      float* __restrict to = gradient + size_t{field} * dim;
      for (uint32_t d = 0; d < dim; ++d) to[d] += scale * (sum[d] - vector[d]);
    }
  }
};

class Fm final : public BesideInteraction {
 public:
  Fm(const DenseModelConfig& config, Layer linear, const Team& team)
      : fields_(static_cast<uint32_t>(config.fields.size())),
        dim_(config.fields.front().dim),
        linear_(std::move(linear)),
        team_(team) {}

  void AddToOutputs(uint32_t rows, const float* input, float* outputs) override;
  void Backward(uint32_t rows, const float* input, const float* output_gradient, float* embedding_gradient,
                BucketProgress& progress) override;

 private:
  const uint32_t fields_, dim_;
  const Layer linear_;
  const Team team_;
  AlignedBuffer<float> first_order_;  // (rows, tasks)
  AlignedBuffer<float> sums_;         // of the fields' vectors: (rows, dim)
  AlignedBuffer<float> products_;     // scratch of a band: (bands, dim)
};

void Fm::AddToOutputs(uint32_t rows, const float* input, float* outputs) {
  const uint32_t tasks = linear_.out;
  first_order_.Resize(size_t{rows} * tasks);
  sums_.Resize(size_t{rows} * dim_);
  products_.Resize(size_t{BandCount(rows)} * dim_);
  LinearForward(team_, linear_, rows, {input, linear_.in}, first_order_.data(), kNothingMore);
  ForEachBand(team_.pool, rows, [&](uint32_t band, uint32_t begin, uint32_t count) {
    float* products = products_.data() + size_t{band} * dim_;
    for (size_t row = begin; row < size_t{begin} + count; ++row) {
      float second_order = 0.0f;
      RunBestSimd<PairSum>(input + row * linear_.in, fields_, dim_, sums_.data() + row * dim_, products, &second_order);
      for (size_t at = row * tasks; at < (row + 1) * tasks; ++at) outputs[at] += first_order_[at] + second_order;
    }
  });
}

void Fm::Backward(uint32_t rows, const float* input, const float* output_gradient, float* embedding_gradient,
                  BucketProgress& progress) {
  const uint32_t tasks = linear_.out, width = fields_ * dim_;
  LinearBackward(team_, linear_, rows, {input, linear_.in}, {output_gradient, tasks}, {embedding_gradient, width},
                 width, true, kNothingMore);
  progress.FinalFrom(linear_.weight);
  ForEachBand(team_.pool, rows, [&](uint32_t, uint32_t begin, uint32_t count) {
    for (size_t row = begin; row < size_t{begin} + count; ++row) {
      float scale = 0.0f;  // every task's output has the second order in it
      for (size_t at = row * tasks; at < (row + 1) * tasks; ++at) scale += output_gradient[at];
      RunBestSimd<PairSumGradient>(input + row * linear_.in, fields_, dim_, sums_.data() + row * dim_, scale,
                                   embedding_gradient + row * width);
    }
  });
}

}  // namespace

std::vector<Layer> FmLayers(const DenseModelConfig& config, Layout& layout) {
  return {layout.Add("linear", config.input_width(), static_cast<uint32_t>(config.tasks.size()), false)};
}

std::unique_ptr<BesideInteraction> MakeFm(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team) {
  return std::make_unique<Fm>(config, std::move(layers.front()), team);
}

}  // namespace persia
