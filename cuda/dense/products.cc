#include "cuda/dense/products.h"

#include <cuda_bf16.h>

#include "cuda/base/device_buffer.h"

namespace persia {
namespace {

template <typename T>
struct NumberType;
template <>
struct NumberType<float> {
  static constexpr cudaDataType_t kType = CUDA_R_32F;
};
template <>
struct NumberType<__nv_bfloat16> {
  static constexpr cudaDataType_t kType = CUDA_R_16BF;
};

}  // namespace

template <typename T>
Result<std::unique_ptr<Products<T>>> Products<T>::Plan(const Context& context, uint32_t rows, uint32_t embedding_width,
                                                       const T* input, float* embedding_gradient,
                                                       cudaStream_t stream) {
  std::unique_ptr<Products> products(new Products(context, rows));
  PERSIA_RETURN_IF_ERROR(products->PlanAll(embedding_width, input, embedding_gradient, stream));
  return products;
}

template <typename T>
Status Products<T>::PlanAll(uint32_t embedding_width, const T* input, float* embedding_gradient,
                            cudaStream_t stream) {
  constexpr cudaDataType_t kType = NumberType<T>::kType;
  const auto plan = [&](const GemmShape& shape, const GemmPointers& pointers, bool side,
                        std::unique_ptr<Gemm>* gemm) -> Status {
    auto planned = PlanOne(shape, pointers, side, stream);
    if (!planned.ok()) return planned.status();
    *gemm = std::move(*planned);
    return Status::Ok();
  };
  const size_t count = c_.layout.hidden_count();
  forward_.resize(count);
  input_gradient_.resize(count);
  weight_gradient_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t rows = rows_, in = c_.layout.layers[i].in, out = c_.layout.layers[i].out;
    PERSIA_RETURN_IF_ERROR(plan({GemmForm::kNt, rows, out, in, in, in, out, kType, kType, c_.compute,
                                 Epilogue::kBiasRelu},
                                ForwardPointers(i, input), false, &forward_[i]));
    PERSIA_RETURN_IF_ERROR(plan({GemmForm::kTn, out, in, rows, out, in, in, kType, CUDA_R_32F, c_.compute},
                                WeightGradientPointers(i, input), true, &weight_gradient_[i]));
    if (i == 0) continue;
    PERSIA_RETURN_IF_ERROR(plan({GemmForm::kNn, rows, in, out, out, in, in, kType, kType, c_.compute},
                                InputGradientPointers(i), false, &input_gradient_[i]));
  }
  if (embedding_width == 0) return Status::Ok();
  const int64_t in = c_.layout.layers[0].in, out = c_.layout.layers[0].out, width = PadWidth(embedding_width);
  return plan({GemmForm::kNn, rows_, width, out, out, in, width, kType, CUDA_R_32F, c_.compute},
              {c_.activations.gradients[0].data(), c_.weights + c_.layout.layers[0].weight, embedding_gradient}, false,
              &embedding_gradient_);
}

template <typename T>
Result<std::unique_ptr<Gemm>> Products<T>::PlanOne(GemmShape shape, const GemmPointers& pointers, bool side,
                                                   cudaStream_t stream) const {
  const Gemm::Workspace workspace = side ? c_.side_workspace : c_.workspace;
  auto fused = Gemm::Plan(c_.lt, c_.handle, shape, pointers, workspace, c_.tune, stream);
  if (fused.ok() || shape.epilogue == Epilogue::kNone) return fused;
  shape.epilogue = Epilogue::kNone;
  return Gemm::Plan(c_.lt, c_.handle, shape, pointers, workspace, c_.tune, stream);
}

template <typename T>
const T* Products<T>::InputOf(size_t layer, const T* input) const {
  return layer == 0 ? input : c_.activations.hidden[layer - 1].data();
}

template <typename T>
GemmPointers Products<T>::ForwardPointers(size_t layer, const T* input) const {
  const DeviceLayer& l = c_.layout.layers[layer];
  return {InputOf(layer, input), c_.weights + l.weight, c_.activations.hidden[layer].data(),
          const_cast<T*>(c_.weights + l.bias)};
}

template <typename T>
GemmPointers Products<T>::InputGradientPointers(size_t layer) const {
  return {c_.activations.gradients[layer].data(), c_.weights + c_.layout.layers[layer].weight,
          c_.activations.gradients[layer - 1].data()};
}

template <typename T>
GemmPointers Products<T>::WeightGradientPointers(size_t layer, const T* input) const {
  const DeviceLayer& l = c_.layout.layers[layer];
  return {c_.activations.gradients[layer].data(), InputOf(layer, input), c_.weight_gradients + l.weight};
}

template <typename T>
Status Products<T>::Forward(size_t layer, const T* input, cudaStream_t stream) {
  const Gemm& gemm = *forward_[layer];
  const GemmPointers pointers = ForwardPointers(layer, input);
  PERSIA_RETURN_IF_ERROR(gemm.Run(pointers, c_.workspace, stream));
  if (gemm.shape().epilogue == Epilogue::kNone) {
    LaunchBiasRelu(rows_, c_.layout.layers[layer].out, static_cast<const T*>(pointers.bias),
                   c_.activations.hidden[layer].data(), stream);
  }
  return Status::Ok();
}

template <typename T>
Status Products<T>::InputGradient(size_t layer, cudaStream_t stream) {
  return input_gradient_[layer]->Run(InputGradientPointers(layer), c_.workspace, stream);
}

template <typename T>
void Products<T>::ReluGradient(size_t layer, cudaStream_t stream) {
  const Activations<T>& a = c_.activations;
  LaunchReluGradient(rows_, c_.layout.layers[layer].out, a.hidden[layer].data(), a.gradients[layer].data(),
                     a.partials[layer].data(), stream);
}

template <typename T>
Status Products<T>::EmbeddingGradient(float* embedding_gradient, cudaStream_t stream) {
  if (embedding_gradient_ == nullptr) return Status::Ok();
  return embedding_gradient_->Run({c_.activations.gradients[0].data(), c_.weights + c_.layout.layers[0].weight,
                                   embedding_gradient},
                                  c_.workspace, stream);
}

template <typename T>
Status Products<T>::WeightGradient(size_t layer, const T* input, cudaStream_t stream) {
  return weight_gradient_[layer]->Run(WeightGradientPointers(layer, input), c_.side_workspace, stream);
}

template class Products<float>;
template class Products<__nv_bfloat16>;

}  // namespace persia
