// DenseModel: the dense network of one NN worker behind one interface; the CPU backend here, the CUDA twin later.
//
// Input of a sample is one row: [pooled embeddings (embedding_width) | dense features (dense_count)], f32; masks of
// sequences are dense features like others. The
// network is input -> hidden layers with ReLU -> one linear output a task; a ModelType may put an interaction of the
// input's fields below the hidden layers or beside them (dense/interaction.h). Loss of a batch: sum over tasks of
// weight · mean over samples. A step is ForwardBackward, then ApplyGradients.
//
// With several NN workers a step trains on one global batch, of which each worker has a part: every worker divides by
// the rows of all parts, and between the two calls gradients are summed over the workers. A GradientSink hears of
// them bucket by bucket, so that summing begins while backward still computes. Then n workers train like one with all
// rows.
//
// Thread-safety: externally synchronised; inside, products run on the model's own threads. Results are
// deterministic for a given number of threads, and with `deterministic` for any.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/host_memory.h"
#include "base/status.h"

namespace persia {

enum class Loss { kBce, kMse };  // kBce: sigmoid + binary cross-entropy on the logit; kMse: squared error of the output

struct TaskSpec {
  std::string label;
  Loss loss = Loss::kBce;
  float weight = 1.0f;
  float positive_weight = 1.0f;  // kBce: factor on the loss of a positive label, torch's pos_weight
  double kept_negatives = 1.0;  // share of the negatives that training sees: calibration.h corrects predictions for it
};

enum class DenseOptimizerType { kSgd, kAdam, kAdamW };

// Formulas and meaning of each field are those of torch.optim.SGD / Adam / AdamW.
struct DenseOptimizerConfig {
  DenseOptimizerType type = DenseOptimizerType::kAdam;
  double lr = 1e-3;
  double momentum = 0.0;  // sgd
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0.0;  // sgd, adam: L2; adamw: decoupled
  double clip_norm = 0.0;     // global L2 norm of all gradients (torch clip_grad_norm_); 0: off
};

enum class ScheduleType { kConstant, kStep, kCosine, kLinear };

// lr(step) = lr · min(1, step / warmup_steps) · decay, step counts from 1.
// step: gamma^((step - 1) / every_steps), whole periods. cosine and linear: from 1 at the end of warm-up down to
// final_factor at total_steps, constant afterwards.
struct ScheduleConfig {
  ScheduleType type = ScheduleType::kConstant;
  uint64_t warmup_steps = 0;
  uint64_t every_steps = 1;
  double gamma = 0.1;
  uint64_t total_steps = 0;
  double final_factor = 0.0;
};

// The factor on lr at `step` (>= 1).
double ScheduleFactor(const ScheduleConfig& config, uint64_t step);

// kFfnn: hidden layers alone. The others have an interaction of the input's fields too:
//   kDeepFm  beside: a factorization machine (Guo et al. 2017, "DeepFM")
//   kDcn     below or beside: cross layers (Wang et al. 2021, "DCN V2")
//   kDlrm    below: dot products of all pairs, dense features through a bottom MLP (Naumov et al. 2019, "DLRM")
enum class ModelType { kFfnn, kDeepFm, kDcn, kDlrm };

enum class CrossStructure { kStacked, kParallel };  // below the hidden layers or beside them

struct CrossConfig {
  uint32_t layers = 3;
  uint32_t rank = 0;  // of a cross layer's matrix, as a product of two; 0: a full matrix
  CrossStructure structure = CrossStructure::kParallel;
};

// A vector among the pooled embeddings.
struct EmbeddingField {
  std::string name;  // for messages
  uint32_t dim = 0;
};

// Number format of the products of hidden layers, heads and DLRM's bottom MLP. kBf16: their factors are rounded to
// bf16; sums, weights, their gradients and everything else are float32.
enum class Precision { kFp32, kTf32, kBf16 };

struct DenseModelConfig {
  ModelType type = ModelType::kFfnn;
  Precision precision = Precision::kFp32;
  uint32_t embedding_width = 0;
  std::vector<EmbeddingField> fields;  // side by side they are the embeddings; kDeepFm and kDlrm need them, of one dim
  uint32_t dense_count = 0;
  std::vector<uint32_t> hidden;  // may be empty: the outputs are linear in what is below
  CrossConfig cross;             // kDcn
  std::vector<uint32_t> bottom;  // kDlrm: widths of the bottom MLP; a last layer of the fields' dim comes after them
  std::vector<TaskSpec> tasks;
  DenseOptimizerConfig optimizer;
  ScheduleConfig schedule;
  uint64_t seed = 0;
  uint32_t threads = 0;  // 0: one per core
  bool deterministic = false;  // products are cut alike for any number of threads: their results have the same bits

  uint32_t input_width() const { return embedding_width + dense_count; }
};

// A named view on one tensor of the model or its optimizer, row-major f32.
struct NamedTensor {
  std::string name;            // "layer.0.weight", "cross.1.bias.exp_avg", …
  std::vector<uint64_t> shape;
  std::span<float> values;
};

// Hears of gradients as backward finishes them.
class GradientSink {
 public:
  virtual ~GradientSink() = default;

  // Gradients()[bucket] is final: nothing reads or writes it before ApplyGradients. Called once a bucket in the order
  // of Gradients(), on the thread that called ForwardBackward, which waits for it.
  virtual void BucketReady(size_t bucket, std::span<float> gradients) = 0;
};

// A worker's part in a step of several; the default is a worker of its own.
struct GlobalBatch {
  uint64_t rows = 0;             // of all workers' parts; 0: of this one alone
  GradientSink* sink = nullptr;
  float loss_scale = 1.0f;       // factor on the loss in backward (dense/loss_scaler.h)
};

// What a step reads and writes: shapes as in DenseModel::ForwardBackward.
struct DenseStep {
  uint64_t step = 0;
  uint64_t update = 0;       // as in ApplyGradients
  uint32_t rows = 0;         // may be 0 where the model sums over workers
  uint64_t global_rows = 0;  // of all workers' parts, where the model sums over them; 0: of this one alone
  const float* input = nullptr;
  const float* labels = nullptr;
  float* embedding_gradient = nullptr;
  float loss_scale = 1.0f;
  double loss = 0.0;     // when finished
  bool skipped = false;  // when finished: gradients were not finite, nothing was changed
};

class DenseModel {
 public:
  virtual ~DenseModel() = default;

  virtual const DenseModelConfig& config() const = 0;

  // Forward, loss and backward over `rows` samples. `input` is (rows, input_width), `labels` (rows, tasks). Writes
  // the gradient of the loss with respect to the pooled embeddings to `embedding_gradient` (rows, embedding_width)
  // and the mean loss to `loss`. Of a part of a global batch, means are over the rows of all parts: adding up the
  // losses of all workers gives that of the global batch. kNonFiniteLoss: no gradient was computed, the sink not
  // called, nothing changed; peers that wait for this worker's buckets must be told. kBatchInvalid: no rows, or more
  // than the global batch has.
  // Weight gradients come multiplied by loss_scale, those of the embeddings don't. Where one of the latter is not
  // finite, one of the weights' is made so too: whoever sums them over the workers sees it.
  virtual Status ForwardBackward(uint32_t rows, const float* input, const float* labels, float* embedding_gradient,
                                 double* loss, const GlobalBatch& global = {}) = 0;

  // All weight gradients in buckets, in the order in which backward finishes them. The spans stay the same for the
  // model's life; values are valid between ForwardBackward and ApplyGradients.
  virtual std::span<const std::span<float>> Gradients() const = 0;

  // Divides Gradients() by the scale that they come with. False: one of them is not finite, don't apply them. This
  // implementation is for backends whose Gradients() are where they compute.
  virtual bool UnscaleGradients(float loss_scale);

  // Clips and applies the gradients; `step` (1, 2, …) sets the learning rate, `update` Adam's bias correction: which
  // update of the optimizer this is, where it makes more or fewer than one a step (0: one a step).
  virtual Status ApplyGradients(uint64_t step, uint64_t update = 0) = 0;

  // A whole step, from ForwardBackward to ApplyGradients, in two halves: a backend that computes
  // elsewhere returns from StartStep at once, and up to steps_in_flight() steps may be started before the first is
  // finished. Steps are finished in the order in which they were started; `step` and its buffers must stay until then.
  // An error of StartStep means that the step was not started.
  virtual uint32_t steps_in_flight() const { return 1; }
  virtual Status StartStep(DenseStep* step);
  virtual Status FinishStep(DenseStep* step);

  // Whether whole steps sum gradients over all workers by themselves (GPUs by NCCL): then a step's `loss` is the worker's
  // share in that of the global batch, and all workers step, or skip a step, alike. Without, a whole step is one of a
  // worker of its own.
  virtual bool sums_over_workers() const { return false; }
  // Ends the waiting of such steps for other workers, with this reason. Any thread.
  virtual void AbortSums(const Status& /*reason*/) {}

  // Writes the tasks' outputs (rows, tasks): probabilities for kBce, values for kMse.
  virtual Status Predict(uint32_t rows, const float* input, float* outputs) = 0;

  // Weights and optimizer state in the host's memory, where the spans stay the same for the model's life. A backend that
  // keeps them elsewhere fills them in ReadTensors; what was written through them counts after WriteTensors.
  virtual std::vector<NamedTensor> Tensors() = 0;
  virtual Status ReadTensors() { return Status::Ok(); }
  virtual Status WriteTensors() { return Status::Ok(); }

  // Steps whose gradients were not all finite, and which therefore changed nothing.
  virtual uint64_t skipped_steps() const { return 0; }

  // What the buffers of steps are best taken from, for as long as the model lives; null: any memory.
  virtual HostMemory* host_memory() { return nullptr; }
};

// What every backend refuses. kConfigInvalid: no tasks, a width or a period of 0, fields that the model type can't
// combine.
Status ValidateDenseModel(const DenseModelConfig& config);

// What weights, with their packed copies for own products, gradients and optimizer state of a valid model take.
double DenseModelBytes(const DenseModelConfig& config);
// kOutOfMemory: the machine has less.
Status CheckDenseMemory(double bytes);

// The CPU backend: products by OpenBLAS on own threads, or by own kernels for AVX-512, AVX512-BF16 and AMX
// (dense/product_unit.h); fused bias, activation and optimizer passes.
// Weights start as torch.nn.Linear's: uniform in ±1/sqrt(fan_in), from (seed, layer).
// Errors: those of ValidateDenseModel. kOutOfMemory: more weights than the machine has memory for. kConfigUnsupported:
// bf16 on a CPU that has neither.
Result<std::unique_ptr<DenseModel>> MakeCpuDenseModel(const DenseModelConfig& config);

}  // namespace persia
