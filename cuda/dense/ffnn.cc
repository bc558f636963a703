#include "cuda/dense/ffnn.h"

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <type_traits>

#include "cuda/base/cuda_status.h"
#include "cuda/base/device_buffer.h"
#include "cuda/base/graph.h"
#include "cuda/base/lt_library.h"
#include "cuda/collective/nccl_group.h"
#include "cuda/dense/kernels.h"
#include "cuda/dense/parameters.h"
#include "cuda/dense/products.h"

namespace persia {
namespace {

constexpr uint32_t kSlots = 2;               // steps in flight
constexpr size_t kMostShapes = 8;            // numbers of rows whose products and graphs are kept
constexpr size_t kWorkspace = size_t{64} << 20;

enum Part : uint32_t { kBackward = 1, kUpdate = 2 };

// The gradients of each layer, with blocks of the check by their number.
std::vector<CheckedPart> CheckedParts(const DeviceLayout& layout) {
  std::vector<CheckedPart> parts;
  const size_t count = layout.layers.size();
  const auto spare = static_cast<uint32_t>(kCheckBlocks - count);  // beyond one block each
  uint32_t block = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = layout.layers[i].weight, end = i + 1 < count ? layout.layers[i + 1].weight : layout.size;
    const auto blocks = 1 + static_cast<uint32_t>(uint64_t{spare} * (end - begin) / layout.size);
    parts.push_back({begin, end - begin, block, blocks});
    block += blocks;
  }
  return parts;
}

// What differs between two steps in flight.
template <typename T>
struct Slot {
  DeviceArray<float> raw_input, labels, embedding_gradient;
  DeviceArray<T> input;
  DeviceArray<StepScalars> scalars;
  DeviceArray<StepResult> result;
  DeviceArray<double> loss_sums;  // (tasks), and the verdict on the embeddings' gradient
  PinnedArray<StepScalars> host_scalars;
  PinnedArray<StepResult> host_result;
  PinnedArray<double> host_loss_sums;
  CudaEvent uploaded, gradient_ready, computed, finished;
  std::map<std::pair<uint32_t, uint32_t>, GraphExec> graphs;  // by (rows, parts)
  std::set<std::pair<uint32_t, uint32_t>> seen;               // ran once without a graph
};

template <typename T>
class CudaFfnn final : public DenseModel {
 public:
  CudaFfnn(const DenseModelConfig& config, const CudaOptions& options, const LtLibrary& lt);
  ~CudaFfnn() override;
  Status Create();

  const DenseModelConfig& config() const override { return config_; }
  Status ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                         double* loss, const GlobalBatch& global) override;
  std::span<const std::span<float>> Gradients() const override { return buckets_; }
  // Without a sink the GPU divides and looks at gradients itself, when they are applied.
  bool UnscaleGradients(float loss_scale) override { return !exchanged_ || DenseModel::UnscaleGradients(loss_scale); }
  Status ApplyGradients(uint64_t step, uint64_t update) override;
  uint32_t steps_in_flight() const override { return kSlots; }
  Status StartStep(DenseStep* step) override;
  Status FinishStep(DenseStep* step) override;
  bool sums_over_workers() const override { return group_ != nullptr; }
  void AbortSums(const Status& reason) override {
    if (group_ != nullptr) group_->Abort(reason);
  }
  Status Predict(uint32_t rows, const float* input, float* outputs) override;
  std::vector<NamedTensor> Tensors() override { return parameters_.Tensors(); }
  Status ReadTensors() override;
  Status WriteTensors() override;
  uint64_t skipped_steps() const override { return skipped_steps_; }
  void* AllocateHost(size_t bytes) override;
  void FreeHost(void* memory) override { cudaFreeHost(memory); }

 private:
  uint32_t tasks() const { return static_cast<uint32_t>(config_.tasks.size()); }
  uint32_t losses() const { return tasks() + 1; }  // of Slot::loss_sums
  const T* weights() const;
  HeadArguments<T> Heads(uint32_t rows) const;
  Status UseDevice() const { return CudaStatus(cudaSetDevice(options_.device), "use the GPU"); }
  Status CheckRows(uint32_t rows, uint64_t global_rows) const;

  Status CreateSlot(Slot<T>& slot);
  Status ReserveSlot(Slot<T>& slot, uint32_t rows);
  Status ReserveActivations(uint32_t rows);
  Status PlanProducts(Slot<T>& slot, uint32_t rows);
  Status Reserve(Slot<T>& slot, uint32_t rows);

  Status Upload(Slot<T>& slot, uint32_t rows, const float* input, const float* labels);
  static void SetLossScale(StepScalars* scalars, float scale);
  void FillScalars(StepScalars* scalars, uint64_t step, uint64_t update) const;
  Status UploadScalars(Slot<T>& slot, cudaStream_t stream);
  Status RunParts(Slot<T>& slot, uint32_t rows, uint32_t parts);
  Status Enqueue(Slot<T>& slot, uint32_t rows, uint32_t parts, bool capturing);
  Status EnqueueForward(Products<T>& products, const T* input);
  Status EnqueueBackward(Slot<T>& slot, uint32_t rows, bool whole, bool capturing);
  Status EnqueueEmbeddingGradient(Slot<T>& slot, uint32_t rows);
  Status EnqueueNoRows(Slot<T>& slot);
  Status Follow(cudaStream_t first, cudaStream_t then);
  Status FinishGradients(Slot<T>& slot, size_t layer);
  void EnqueueHeadGradients(Slot<T>& slot, uint32_t rows);
  Status EnqueueWeightGradient(Slot<T>& slot, Products<T>& products, size_t layer, uint32_t rows);
  void EnqueueCheck(size_t layer, const double* loss_sums, cudaStream_t stream);
  void EnqueueUpdate(Slot<T>& slot);
  Status Download(Slot<T>& slot, uint32_t rows, float* embedding_gradient, bool with_result);
  Status TakeLoss(const Slot<T>& slot, double* loss) const;
  Status ExchangeGradients(GradientSink& sink, bool embeddings_finite);

  const DenseModelConfig config_;
  const CudaOptions options_;
  const LtLibrary& lt_;
  const Layout layout_;
  cublasLtHandle_t handle_ = nullptr;
  CudaStream compute_, side_, reduce_, upload_, download_;
  CudaEvent followed_;
  std::unique_ptr<NcclGroup> group_;  // null for a GPU of its own
  DeviceParameters parameters_;
  DeviceArray<TaskLoss> losses_;
  DeviceArray<GradientCheck> check_;
  DeviceArray<double> global_loss_sums_;  // a slot's, over the group's ranks
  const std::vector<CheckedPart> checked_;  // by layer, the heads last
  DeviceArray<float> sample_loss_, head_gradient_, outputs_;  // (rows, tasks)
  DeviceArray<char> workspace_, side_workspace_;
  Activations<T> activations_;
  std::map<uint32_t, std::unique_ptr<Products<T>>> products_;  // by rows
  std::array<Slot<T>, kSlots> slots_;
  Slot<T> predict_;
  uint32_t reserved_rows_ = 0;
  uint64_t started_ = 0, finished_ = 0;  // whole steps
  uint64_t skipped_steps_ = 0;

  // Of a step in halves: gradients go by way of the host while its peers' are added.
  PinnedArray<float> host_gradients_;
  std::vector<std::span<float>> buckets_;
  bool exchanged_ = false;  // the host's gradients are the ones to apply
};

template <typename T>
CudaFfnn<T>::CudaFfnn(const DenseModelConfig& config, const CudaOptions& options, const LtLibrary& lt)
    : config_(config),
      options_(options),
      lt_(lt),
      layout_(MakeLayout(config)),
      parameters_(config, layout_, std::is_same_v<T, __nv_bfloat16>),
      checked_(CheckedParts(parameters_.layout())) {}

template <typename T>
CudaFfnn<T>::~CudaFfnn() {
  cudaSetDevice(options_.device);
  AbortSums(Status(ErrorCode::kAborted, "this rank has left the group"));  // or what is under way might never end
  cudaDeviceSynchronize();  // nothing may still use what is freed now
  products_.clear();
  if (handle_ != nullptr) lt_.cublasLtDestroy(handle_);
}

template <typename T>
Status CudaFfnn<T>::Create() {
  PERSIA_RETURN_IF_ERROR(UseDevice());
  PERSIA_RETURN_IF_ERROR(LtStatus(lt_.cublasLtCreate(&handle_), "start cuBLASLt"));
  PERSIA_RETURN_IF_ERROR(compute_.Create(true));
  for (CudaStream* stream : {&side_, &reduce_, &upload_, &download_}) PERSIA_RETURN_IF_ERROR(stream->Create());
  PERSIA_RETURN_IF_ERROR(followed_.Create());
  if (options_.group) {
    auto group = NcclGroup::Join(*options_.group);
    if (!group.ok()) return group.status();
    group_ = std::move(*group);
  }
  PERSIA_RETURN_IF_ERROR(parameters_.Create(compute_));
  PERSIA_RETURN_IF_ERROR(check_.Reserve(1));
  PERSIA_RETURN_IF_ERROR(global_loss_sums_.Reserve(losses()));
  PERSIA_RETURN_IF_ERROR(workspace_.Reserve(kWorkspace));
  PERSIA_RETURN_IF_ERROR(side_workspace_.Reserve(kWorkspace));
  for (Slot<T>& slot : slots_) PERSIA_RETURN_IF_ERROR(CreateSlot(slot));
  PERSIA_RETURN_IF_ERROR(CreateSlot(predict_));

  std::vector<TaskLoss> losses;
  for (const TaskSpec& task : config_.tasks) {
    losses.push_back({task.loss == Loss::kBce ? 1u : 0u, task.weight, task.positive_weight});
  }
  PERSIA_RETURN_IF_ERROR(losses_.Reserve(losses.size()));
  PERSIA_RETURN_IF_CUDA(cudaMemcpy(losses_.data(), losses.data(), losses.size() * sizeof(TaskLoss),
                                   cudaMemcpyHostToDevice),
                        "copy the tasks to the GPU");
  PERSIA_RETURN_IF_ERROR(host_gradients_.Reserve(parameters_.layout().size));
  buckets_ = GradientBuckets({host_gradients_.data(), host_gradients_.size()});
  return Status::Ok();
}

template <typename T>
const T* CudaFfnn<T>::weights() const {
  if constexpr (std::is_same_v<T, float>) return parameters_.parameters();
  return static_cast<const T*>(parameters_.low());
}

template <typename T>
HeadArguments<T> CudaFfnn<T>::Heads(uint32_t rows) const {
  const DeviceLayer& heads = parameters_.layout().heads();
  return {rows, layout_.layers.back().in, heads.in, tasks(), activations_.hidden.back().data(),
          parameters_.parameters() + heads.weight, parameters_.parameters() + heads.bias};
}

// ---- memory ---------------------------------------------------------------------------------------------------------

template <typename T>
Status CudaFfnn<T>::CreateSlot(Slot<T>& slot) {
  PERSIA_RETURN_IF_ERROR(slot.scalars.Reserve(1));
  PERSIA_RETURN_IF_ERROR(slot.result.Reserve(1));
  PERSIA_RETURN_IF_ERROR(slot.loss_sums.Reserve(losses()));
  PERSIA_RETURN_IF_ERROR(slot.host_scalars.Reserve(1));
  PERSIA_RETURN_IF_ERROR(slot.host_result.Reserve(1));
  PERSIA_RETURN_IF_ERROR(slot.host_loss_sums.Reserve(losses()));
  for (CudaEvent* event : {&slot.uploaded, &slot.gradient_ready, &slot.computed, &slot.finished}) {
    PERSIA_RETURN_IF_ERROR(event->Create());
  }
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::ReserveSlot(Slot<T>& slot, uint32_t rows) {
  const size_t n = rows;
  PERSIA_RETURN_IF_ERROR(slot.raw_input.Reserve(n * config_.input_width()));
  PERSIA_RETURN_IF_ERROR(slot.input.Reserve(n * parameters_.layout().layers[0].in));
  PERSIA_RETURN_IF_ERROR(slot.labels.Reserve(n * tasks()));
  return slot.embedding_gradient.Reserve(n * PadWidth(config_.embedding_width));
}

template <typename T>
Status CudaFfnn<T>::ReserveActivations(uint32_t rows) {
  const DeviceLayout& layout = parameters_.layout();
  const size_t n = rows, count = layout.hidden_count();
  activations_.hidden.resize(count);
  activations_.gradients.resize(count);
  activations_.partials.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t out = layout.layers[i].out;
    PERSIA_RETURN_IF_ERROR(activations_.hidden[i].Reserve(n * out));
    PERSIA_RETURN_IF_ERROR(activations_.gradients[i].Reserve(n * out));
    PERSIA_RETURN_IF_ERROR(activations_.partials[i].Reserve(HeadPartials(rows, out, i + 1 < count ? 1 : tasks() + 1)));
  }
  for (auto* array : {&sample_loss_, &head_gradient_, &outputs_}) PERSIA_RETURN_IF_ERROR(array->Reserve(n * tasks()));
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::PlanProducts(Slot<T>& slot, uint32_t rows) {
  const cublasComputeType_t compute =
      options_.precision == CudaPrecision::kTf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  const typename Products<T>::Context context{lt_,
                                              handle_,
                                              parameters_.layout(),
                                              activations_,
                                              weights(),
                                              parameters_.gradients(),
                                              {workspace_.data(), kWorkspace},
                                              {side_workspace_.data(), kWorkspace},
                                              compute,
                                              options_.tune};
  auto products = Products<T>::Plan(context, rows, config_.embedding_width, slot.input.data(),
                                    slot.embedding_gradient.data(), compute_);
  if (!products.ok()) return products.status();
  products_[rows] = std::move(*products);
  return Status::Ok();
}

// Makes room for a batch. Whatever grows may move, and what was planned and captured for its old place is dropped; then,
// and before anything is timed on the shared arrays, no step may be computing.
template <typename T>
Status CudaFfnn<T>::Reserve(Slot<T>& slot, uint32_t rows) {
  if (rows == 0) return Status::Ok();
  const bool grows = rows > reserved_rows_, known = !grows && products_.contains(rows);
  if (known) return Status::Ok();
  PERSIA_RETURN_IF_CUDA(cudaDeviceSynchronize(), "wait for the GPU");
  if (grows || products_.size() >= kMostShapes) {
    for (Slot<T>* each : {&slots_[0], &slots_[1], &predict_}) {
      each->graphs.clear();
      each->seen.clear();
      PERSIA_RETURN_IF_ERROR(ReserveSlot(*each, std::max(rows, reserved_rows_)));
    }
    products_.clear();
    PERSIA_RETURN_IF_ERROR(ReserveActivations(std::max(rows, reserved_rows_)));
    reserved_rows_ = std::max(rows, reserved_rows_);
  }
  return PlanProducts(slot, rows);
}

template <typename T>
void* CudaFfnn<T>::AllocateHost(size_t bytes) {
  void* memory = nullptr;
  return UseDevice().ok() && cudaMallocHost(&memory, bytes) == cudaSuccess ? memory : nullptr;
}

// ---- a step ---------------------------------------------------------------------------------------------------------

template <typename T>
Status CudaFfnn<T>::CheckRows(uint32_t rows, uint64_t global_rows) const {
  if (rows == 0 && (global_rows == 0 || group_ == nullptr)) {
    return Status(ErrorCode::kBatchInvalid, "a batch to train on has no rows");
  }
  if (global_rows == 0 || global_rows >= rows) return Status::Ok();
  return Status(ErrorCode::kBatchInvalid, "the global batch has " + std::to_string(global_rows) +
                                              " rows, this worker's part of it " + std::to_string(rows));
}

template <typename T>
Status CudaFfnn<T>::StartStep(DenseStep* step) {
  PERSIA_CHECK(started_ - finished_ < kSlots);
  PERSIA_RETURN_IF_ERROR(CheckRows(step->rows, step->global_rows));
  PERSIA_RETURN_IF_ERROR(UseDevice());
  if (group_ != nullptr) PERSIA_RETURN_IF_ERROR(group_->AwaitPeers());
  Slot<T>& slot = slots_[started_ % kSlots];
  PERSIA_RETURN_IF_ERROR(Reserve(slot, step->rows));
  StepScalars* scalars = slot.host_scalars.data();
  scalars->inverse_rows = 1.0f / static_cast<float>(step->global_rows == 0 ? step->rows : step->global_rows);
  SetLossScale(scalars, step->loss_scale);
  FillScalars(scalars, step->step, step->update == 0 ? step->step : step->update);
  PERSIA_RETURN_IF_ERROR(UploadScalars(slot, upload_));
  PERSIA_RETURN_IF_ERROR(Upload(slot, step->rows, step->input, step->labels));
  PERSIA_RETURN_IF_ERROR(RunParts(slot, step->rows, kBackward | kUpdate));
  PERSIA_RETURN_IF_ERROR(Download(slot, step->rows, step->embedding_gradient, true));
  ++started_;
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::FinishStep(DenseStep* step) {
  PERSIA_CHECK(finished_ < started_);
  PERSIA_RETURN_IF_ERROR(UseDevice());
  const Slot<T>& slot = slots_[finished_ % kSlots];
  ++finished_;
  PERSIA_RETURN_IF_ERROR(group_ != nullptr ? group_->Await(slot.finished)
                                           : CudaStatus(cudaEventSynchronize(slot.finished), "train a step"));
  PERSIA_RETURN_IF_ERROR(TakeLoss(slot, &step->loss));
  step->skipped = slot.host_result.data()->skipped != 0;
  skipped_steps_ += step->skipped;
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                                    double* loss, const GlobalBatch& global) {
  PERSIA_CHECK(started_ == finished_);
  PERSIA_RETURN_IF_ERROR(CheckRows(rows, global.rows));
  PERSIA_RETURN_IF_ERROR(UseDevice());
  Slot<T>& slot = slots_[0];
  PERSIA_RETURN_IF_ERROR(Reserve(slot, rows));
  slot.host_scalars.data()->inverse_rows = 1.0f / static_cast<float>(global.rows == 0 ? rows : global.rows);
  SetLossScale(slot.host_scalars.data(), global.loss_scale);
  PERSIA_RETURN_IF_ERROR(UploadScalars(slot, upload_));
  PERSIA_RETURN_IF_ERROR(Upload(slot, rows, input, labels));
  PERSIA_RETURN_IF_ERROR(RunParts(slot, rows, kBackward));
  PERSIA_RETURN_IF_ERROR(Download(slot, rows, embedding_gradient, false));
  PERSIA_RETURN_IF_CUDA(cudaEventSynchronize(slot.finished), "train a step");
  PERSIA_RETURN_IF_ERROR(TakeLoss(slot, loss));
  exchanged_ = global.sink != nullptr;
  const bool finite = std::isfinite(slot.host_loss_sums.data()[tasks()]);
  return exchanged_ ? ExchangeGradients(*global.sink, finite) : Status::Ok();
}

// Gradients go to the host bucket by bucket, last layers first; the sink may sum them with other workers' from then on.
// Those of the embeddings, when not finite, spoil the last bucket, so that all workers skip the step.
template <typename T>
Status CudaFfnn<T>::ExchangeGradients(GradientSink& sink, bool embeddings_finite) {
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    const size_t at = static_cast<size_t>(buckets_[bucket].data() - host_gradients_.data());
    PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(buckets_[bucket].data(), parameters_.gradients() + at,
                                          buckets_[bucket].size_bytes(), cudaMemcpyDeviceToHost, download_),
                          "copy gradients to the host");
    PERSIA_RETURN_IF_CUDA(cudaStreamSynchronize(download_), "copy gradients to the host");
    if (!embeddings_finite && bucket + 1 == buckets_.size()) buckets_[bucket][0] = std::nanf("");
    sink.BucketReady(bucket, buckets_[bucket]);
  }
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::ApplyGradients(uint64_t step, uint64_t update) {
  PERSIA_RETURN_IF_ERROR(UseDevice());
  Slot<T>& slot = slots_[0];
  if (exchanged_) {
    PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(parameters_.gradients(), host_gradients_.data(),
                                          host_gradients_.size() * sizeof(float), cudaMemcpyHostToDevice, compute_),
                          "copy gradients to the GPU");
    SetLossScale(slot.host_scalars.data(), 1.0f);  // UnscaleGradients has divided them
    exchanged_ = false;
  }
  FillScalars(slot.host_scalars.data(), step, update == 0 ? step : update);
  PERSIA_RETURN_IF_ERROR(UploadScalars(slot, compute_));
  PERSIA_RETURN_IF_ERROR(Enqueue(slot, 0, kUpdate, false));
  PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(slot.host_result.data(), slot.result.data(), sizeof(StepResult),
                                        cudaMemcpyDeviceToHost, compute_),
                        "copy a step's result");
  PERSIA_RETURN_IF_CUDA(cudaStreamSynchronize(compute_), "apply gradients");
  skipped_steps_ += slot.host_result.data()->skipped;
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::Upload(Slot<T>& slot, uint32_t rows, const float* input, const float* labels) {
  const auto copy = [&](DeviceArray<float>& to, const float* from, size_t count) {
    return CudaStatus(cudaMemcpyAsync(to.data(), from, count * sizeof(float), cudaMemcpyHostToDevice, upload_),
                      "copy a batch to the GPU");
  };
  PERSIA_RETURN_IF_ERROR(copy(slot.raw_input, input, size_t{rows} * config_.input_width()));
  if (labels != nullptr) PERSIA_RETURN_IF_ERROR(copy(slot.labels, labels, size_t{rows} * tasks()));
  if (rows > 0) {
    LaunchCast(rows, config_.input_width(), parameters_.layout().layers[0].in, slot.raw_input.data(),
               slot.input.data(), upload_);
  }
  PERSIA_RETURN_IF_CUDA(cudaGetLastError(), "cast a batch");
  PERSIA_RETURN_IF_CUDA(cudaEventRecord(slot.uploaded, upload_), "copy a batch to the GPU");
  return CudaStatus(cudaStreamWaitEvent(compute_, slot.uploaded), "copy a batch to the GPU");
}

template <typename T>
void CudaFfnn<T>::SetLossScale(StepScalars* scalars, float scale) {
  scalars->loss_scale = scale;
  scalars->inverse_loss_scale = 1.0f / scale;
}

// As DenseOptimizer computes them.
template <typename T>
void CudaFfnn<T>::FillScalars(StepScalars* scalars, uint64_t step, uint64_t update) const {
  const DenseOptimizerConfig& optimizer = config_.optimizer;
  const double lr = optimizer.lr * ScheduleFactor(config_.schedule, step), updates = static_cast<double>(update);
  const bool decoupled = optimizer.type == DenseOptimizerType::kAdamW;
  scalars->lr = static_cast<float>(lr);
  scalars->momentum = static_cast<float>(optimizer.momentum);
  scalars->l2 = decoupled ? 0.0f : static_cast<float>(optimizer.weight_decay);
  scalars->keep = decoupled ? static_cast<float>(1.0 - lr * optimizer.weight_decay) : 1.0f;
  scalars->rise1 = static_cast<float>(1.0 - optimizer.beta1);
  scalars->beta2 = static_cast<float>(optimizer.beta2);
  scalars->rise2 = static_cast<float>(1.0 - optimizer.beta2);
  scalars->step_size = static_cast<float>(lr / (1.0 - std::pow(optimizer.beta1, updates)));
  scalars->root_correction2 = static_cast<float>(std::sqrt(1.0 - std::pow(optimizer.beta2, updates)));
  scalars->eps = static_cast<float>(optimizer.eps);
  scalars->clip_norm = static_cast<float>(optimizer.clip_norm);
}

template <typename T>
Status CudaFfnn<T>::UploadScalars(Slot<T>& slot, cudaStream_t stream) {
  return CudaStatus(cudaMemcpyAsync(slot.scalars.data(), slot.host_scalars.data(), sizeof(StepScalars),
                                    cudaMemcpyHostToDevice, stream),
                    "copy a step's numbers to the GPU");
}

// Runs `parts` of a step on compute_ and records slot.computed: by graph, from the second time on.
template <typename T>
Status CudaFfnn<T>::RunParts(Slot<T>& slot, uint32_t rows, uint32_t parts) {
  const std::pair key{rows, parts};
  if (slot.seen.insert(key).second) {
    PERSIA_RETURN_IF_ERROR(Enqueue(slot, rows, parts, false));
  } else {
    if (!slot.graphs.contains(key)) {
      GraphExec graph;
      PERSIA_RETURN_IF_ERROR(graph.Capture(compute_, [&] { return Enqueue(slot, rows, parts, true); }));
      slot.graphs[key] = std::move(graph);
    }
    PERSIA_RETURN_IF_ERROR(slot.graphs[key].Launch(compute_));
  }
  return CudaStatus(cudaEventRecord(slot.computed, compute_), "start a step");
}

template <typename T>
Status CudaFfnn<T>::Enqueue(Slot<T>& slot, uint32_t rows, uint32_t parts, bool capturing) {
  const bool whole = parts == (kBackward | kUpdate);
  if ((parts & kBackward) && rows > 0) {
    PERSIA_RETURN_IF_ERROR(EnqueueForward(*products_[rows], slot.input.data()));
    PERSIA_RETURN_IF_ERROR(EnqueueBackward(slot, rows, whole, capturing));
  }
  if (whole && rows == 0) PERSIA_RETURN_IF_ERROR(EnqueueNoRows(slot));
  if (!whole && (parts & kUpdate)) {
    for (size_t i = 0; i < checked_.size(); ++i) EnqueueCheck(i, slot.loss_sums.data(), compute_);
  }
  if (parts & kUpdate) EnqueueUpdate(slot);
  return CudaStatus(cudaGetLastError(), "start a step's kernels");
}

template <typename T>
Status CudaFfnn<T>::EnqueueForward(Products<T>& products, const T* input) {
  for (size_t i = 0; i < parameters_.layout().hidden_count(); ++i) {
    PERSIA_RETURN_IF_ERROR(products.Forward(i, input, compute_));
  }
  return Status::Ok();
}

// In a whole step gradients are finished as soon as they are there. The product for a layer's weight gradient, which
// fills the GPU, begins with the pass over the gradient of the layer below, which waits for memory and needs a part of it.
template <typename T>
Status CudaFfnn<T>::EnqueueBackward(Slot<T>& slot, uint32_t rows, bool whole, bool capturing) {
  Products<T>& products = *products_[rows];
  LaunchHeadLoss(Heads(rows), losses_.data(), slot.labels.data(), slot.scalars.data(), sample_loss_.data(),
                 head_gradient_.data(), slot.loss_sums.data() + tasks(), compute_);
  LaunchHeadBackward(Heads(rows), head_gradient_.data(), activations_.gradients.back().data(),
                     activations_.partials.back().data(), compute_);
  PERSIA_RETURN_IF_ERROR(Follow(compute_, side_));
  EnqueueHeadGradients(slot, rows);
  const size_t count = parameters_.layout().hidden_count();
  if (whole) PERSIA_RETURN_IF_ERROR(FinishGradients(slot, count));
  for (size_t i = count; i-- > 0;) {
    PERSIA_RETURN_IF_ERROR(i > 0 ? products.InputGradient(i, compute_) : EnqueueEmbeddingGradient(slot, rows));
    PERSIA_RETURN_IF_ERROR(Follow(compute_, side_));
    if (i > 0) products.ReluGradient(i - 1, compute_);
    PERSIA_RETURN_IF_ERROR(EnqueueWeightGradient(slot, products, i, rows));
    if (whole) PERSIA_RETURN_IF_ERROR(FinishGradients(slot, i));
  }
  // In a graph, the event is one that the download outside waits for.
  PERSIA_RETURN_IF_CUDA(cudaEventRecordWithFlags(slot.gradient_ready, compute_,
                                                 capturing ? cudaEventRecordExternal : cudaEventRecordDefault),
                        "order a step");
  if (whole && group_ != nullptr) PERSIA_RETURN_IF_ERROR(Follow(reduce_, side_));
  return Follow(side_, compute_);
}

template <typename T>
Status CudaFfnn<T>::EnqueueEmbeddingGradient(Slot<T>& slot, uint32_t rows) {
  if (config_.embedding_width == 0) return Status::Ok();
  PERSIA_RETURN_IF_ERROR(products_[rows]->EmbeddingGradient(slot.embedding_gradient.data(), compute_));
  LaunchEmbeddingGradient(size_t{rows} * PadWidth(config_.embedding_width), slot.scalars.data(),
                          slot.embedding_gradient.data(), slot.loss_sums.data() + tasks(), compute_);
  return Status::Ok();
}

// A rank's part of a step in which it has no rows.
template <typename T>
Status CudaFfnn<T>::EnqueueNoRows(Slot<T>& slot) {
  PERSIA_RETURN_IF_ERROR(Follow(compute_, side_));
  PERSIA_RETURN_IF_CUDA(cudaMemsetAsync(parameters_.gradients(), 0, parameters_.layout().size * sizeof(float), side_),
                        "clear gradients");
  PERSIA_RETURN_IF_CUDA(cudaMemsetAsync(slot.loss_sums.data(), 0, losses() * sizeof(double), side_), "clear the loss");
  for (size_t i = checked_.size(); i-- > 0;) PERSIA_RETURN_IF_ERROR(FinishGradients(slot, i));
  PERSIA_RETURN_IF_ERROR(Follow(reduce_, side_));
  return Follow(side_, compute_);
}

// What is enqueued on `then` from now on comes after what `first` has so far.
template <typename T>
Status CudaFfnn<T>::Follow(cudaStream_t first, cudaStream_t then) {
  PERSIA_RETURN_IF_CUDA(cudaEventRecord(followed_, first), "order a step");
  return CudaStatus(cudaStreamWaitEvent(then, followed_), "order a step");
}

// Sums a layer's gradients, which the side stream has computed, over the group, and looks at them.
template <typename T>
Status CudaFfnn<T>::FinishGradients(Slot<T>& slot, size_t layer) {
  if (group_ == nullptr) {
    EnqueueCheck(layer, slot.loss_sums.data(), side_);
    return Status::Ok();
  }
  PERSIA_RETURN_IF_ERROR(Follow(side_, reduce_));
  const CheckedPart& part = checked_[layer];
  PERSIA_RETURN_IF_ERROR(group_->Sum(parameters_.gradients() + part.begin, part.count, reduce_));
  if (layer == 0) {
    PERSIA_RETURN_IF_ERROR(group_->Sum(slot.loss_sums.data(), global_loss_sums_.data(), losses(), reduce_));
  }
  EnqueueCheck(layer, global_loss_sums_.data(), reduce_);
  return Status::Ok();
}

// The loss, the gradients of the heads and that of the last hidden layer's bias.
template <typename T>
void CudaFfnn<T>::EnqueueHeadGradients(Slot<T>& slot, uint32_t rows) {
  const DeviceLayer& heads = parameters_.layout().heads();
  float* gradients = parameters_.gradients();
  LaunchHeadSums(rows, tasks(), sample_loss_.data(), head_gradient_.data(), gradients + heads.bias,
                 slot.loss_sums.data(), side_);
  LaunchHeadWeightSums(rows, heads.in, tasks(), activations_.partials.back().data(), gradients + heads.weight,
                       gradients + parameters_.layout().layers[parameters_.layout().hidden_count() - 1].bias, side_);
}

template <typename T>
Status CudaFfnn<T>::EnqueueWeightGradient(Slot<T>& slot, Products<T>& products, size_t layer, uint32_t rows) {
  const DeviceLayer& l = parameters_.layout().layers[layer];
  if (layer + 1 < parameters_.layout().hidden_count()) {
    LaunchColumnSums(rows, l.out, activations_.partials[layer].data(), parameters_.gradients() + l.bias, side_);
  }
  return products.WeightGradient(layer, slot.input.data(), side_);
}

template <typename T>
void CudaFfnn<T>::EnqueueCheck(size_t layer, const double* loss_sums, cudaStream_t stream) {
  LaunchGradientCheck(checked_[layer], parameters_.gradients(), layer == 0 ? losses() : 0, loss_sums,
                      config_.optimizer.clip_norm > 0.0, check_.data(), stream);
}

template <typename T>
void CudaFfnn<T>::EnqueueUpdate(Slot<T>& slot) {
  const DenseOptimizerConfig& optimizer = config_.optimizer;
  const OptimizerKernel kernel = optimizer.type != DenseOptimizerType::kSgd ? OptimizerKernel::kAdam
                                 : optimizer.momentum != 0.0                ? OptimizerKernel::kMomentum
                                                                            : OptimizerKernel::kSgd;
  const CheckedPart& last = checked_.back();
  LaunchOptimizer(kernel, parameters_.optimizer_arrays(), slot.scalars.data(), check_.data(),
                  last.first_block + last.blocks, slot.result.data(), compute_);
}

// Copies a step's results to the host: the embedding gradients as soon as they are there, the rest at the end.
template <typename T>
Status CudaFfnn<T>::Download(Slot<T>& slot, uint32_t rows, float* embedding_gradient, bool with_result) {
  const size_t bytes = config_.embedding_width * sizeof(float);
  PERSIA_RETURN_IF_CUDA(cudaStreamWaitEvent(download_, slot.gradient_ready), "order a step");
  if (bytes > 0 && rows > 0) {
    PERSIA_RETURN_IF_CUDA(cudaMemcpy2DAsync(embedding_gradient, bytes, slot.embedding_gradient.data(),
                                            PadWidth(config_.embedding_width) * sizeof(float), bytes, rows,
                                            cudaMemcpyDeviceToHost, download_),
                          "copy embedding gradients to the host");
  }
  PERSIA_RETURN_IF_CUDA(cudaStreamWaitEvent(download_, slot.computed), "order a step");
  PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(slot.host_loss_sums.data(), slot.loss_sums.data(), losses() * sizeof(double),
                                        cudaMemcpyDeviceToHost, download_),
                        "copy a step's loss");
  if (with_result) {
    PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(slot.host_result.data(), slot.result.data(), sizeof(StepResult),
                                          cudaMemcpyDeviceToHost, download_),
                          "copy a step's result");
  }
  return CudaStatus(cudaEventRecord(slot.finished, download_), "order a step");
}

template <typename T>
Status CudaFfnn<T>::TakeLoss(const Slot<T>& slot, double* loss) const {
  double sum = 0.0;
  for (uint32_t task = 0; task < tasks(); ++task) sum += slot.host_loss_sums.data()[task];
  if (!std::isfinite(sum)) {
    return Status(ErrorCode::kNonFiniteLoss, "the loss is " + std::to_string(sum) +
                                                 "; nothing was applied; lower the learning rate or check the data");
  }
  *loss = sum;
  return Status::Ok();
}

template <typename T>
Status CudaFfnn<T>::Predict(uint32_t rows, const float* input, float* outputs) {
  if (rows == 0) return Status::Ok();
  PERSIA_RETURN_IF_ERROR(UseDevice());
  PERSIA_RETURN_IF_ERROR(Reserve(predict_, rows));
  PERSIA_RETURN_IF_ERROR(Upload(predict_, rows, input, nullptr));
  PERSIA_RETURN_IF_ERROR(EnqueueForward(*products_[rows], predict_.input.data()));
  LaunchHeadPredict(Heads(rows), losses_.data(), outputs_.data(), compute_);
  PERSIA_RETURN_IF_CUDA(cudaGetLastError(), "predict");
  PERSIA_RETURN_IF_CUDA(cudaMemcpyAsync(outputs, outputs_.data(), size_t{rows} * tasks() * sizeof(float),
                                        cudaMemcpyDeviceToHost, compute_),
                        "copy predictions to the host");
  return CudaStatus(cudaStreamSynchronize(compute_), "predict");
}

template <typename T>
Status CudaFfnn<T>::ReadTensors() {
  PERSIA_RETURN_IF_ERROR(UseDevice());
  return parameters_.ReadToHost(compute_);
}

template <typename T>
Status CudaFfnn<T>::WriteTensors() {
  PERSIA_RETURN_IF_ERROR(UseDevice());
  return parameters_.WriteFromHost(compute_);
}

Status Validate(const DenseModelConfig& config, const CudaOptions& options) {
  if (config.type != ModelType::kFfnn) {
    return Status(ErrorCode::kConfigUnsupported, "a GPU takes model type ffnn only; use device cpu for the others");
  }
  if (config.hidden.empty()) {
    return Status(ErrorCode::kConfigUnsupported, "a model without a hidden layer does not run on a GPU; use device cpu");
  }
  if (config.hidden.size() >= kCheckBlocks) {
    return Status(ErrorCode::kConfigUnsupported, "a GPU takes less than " + std::to_string(kCheckBlocks) + " layers");
  }
  if (config.tasks.size() > kMostTasks) {
    return Status(ErrorCode::kConfigUnsupported, "a GPU takes at most " + std::to_string(kMostTasks) + " tasks");
  }
  int count = 0;
  PERSIA_RETURN_IF_ERROR(CountDevices(&count));
  if (options.device >= 0 && options.device < count) return Status::Ok();
  return Status(ErrorCode::kDevice, "there is no GPU " + std::to_string(options.device) + "; this machine has " +
                                        std::to_string(count));
}

template <typename T>
Result<std::unique_ptr<DenseModel>> Make(const DenseModelConfig& config, const CudaOptions& options,
                                         const LtLibrary& lt) {
  auto model = std::make_unique<CudaFfnn<T>>(config, options, lt);
  PERSIA_RETURN_IF_ERROR(model->Create());
  return std::unique_ptr<DenseModel>(std::move(model));
}

}  // namespace

Result<std::unique_ptr<DenseModel>> MakeCudaFfnn(const DenseModelConfig& config, const CudaOptions& options) {
  PERSIA_RETURN_IF_ERROR(ValidateDenseModel(config));
  PERSIA_RETURN_IF_ERROR(Validate(config, options));
  const auto lt = LoadLt();
  if (!lt.ok()) return lt.status();
  if (options.precision == CudaPrecision::kBf16) return Make<__nv_bfloat16>(config, options, *lt.value());
  return Make<float>(config, options, *lt.value());
}

}  // namespace persia
