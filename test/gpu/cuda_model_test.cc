// The CUDA backend beside the CPU backend, which is the reference, and beside PyTorch's golden files. Runs on a GPU, or
// without one on the emulation (test/gpu/emulation), which PERSIA_CUDA_LIBRARY then names.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/rng.h"
#include "dense/cuda_backend.h"
#include "golden.h"

namespace persia {
namespace {

std::unique_ptr<DenseModel> Cuda(const DenseModelConfig& config, CudaPrecision precision = CudaPrecision::kFp32) {
  auto model = MakeCudaDenseModel(config, {.device = 0, .precision = precision, .tune = false});
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return std::move(*model);
}

std::unique_ptr<DenseModel> Cpu(const DenseModelConfig& config) {
  auto model = MakeCpuDenseModel(config);
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return std::move(*model);
}

// Widths that are no multiple of anything, several tasks of both kinds.
DenseModelConfig OddConfig() {
  DenseModelConfig config;
  config.embedding_width = 37;
  config.dense_count = 5;
  config.hidden = {70, 33};
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 0.5f}, {"like", Loss::kBce, 2.0f, 3.0f}};
  config.seed = 3;
  config.threads = 1;
  return config;
}

struct Batch {
  uint32_t rows;
  std::vector<float> input, labels, embedding_gradient;
};

Batch RandomBatch(const DenseModelConfig& config, uint32_t rows, uint64_t key) {
  Batch batch{rows, {}, {}, {}};
  Rng rng(key);
  for (size_t i = 0; i < size_t{rows} * config.input_width(); ++i) {
    batch.input.push_back(static_cast<float>(rng.Normal()));
  }
  for (size_t i = 0; i < rows * config.tasks.size(); ++i) batch.labels.push_back(rng.Uniform() < 0.5 ? 0.0f : 1.0f);
  batch.embedding_gradient.assign(size_t{rows} * config.embedding_width, std::nanf(""));
  return batch;
}

DenseStep StepOf(Batch& batch, uint64_t step) {
  return {.step = step, .rows = batch.rows, .input = batch.input.data(), .labels = batch.labels.data(),
          .embedding_gradient = batch.embedding_gradient.data()};
}

double TrainWhole(DenseModel& model, Batch& batch, uint64_t step) {
  DenseStep whole = StepOf(batch, step);
  REQUIRE(model.StartStep(&whole).ok());
  REQUIRE(model.FinishStep(&whole).ok());
  CHECK_FALSE(whole.skipped);
  return whole.loss;
}

// ‖a − b‖ / ‖b‖; a NaN anywhere gives NaN, which compares as different.
double Distance(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / std::max(norm, 1e-30));
}

// The largest distance of any tensor of two models.
double TensorDistance(DenseModel& a, DenseModel& b) {
  REQUIRE(a.ReadTensors().ok());
  REQUIRE(b.ReadTensors().ok());
  auto left = a.Tensors(), right = b.Tensors();
  REQUIRE(left.size() == right.size());
  double worst = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    REQUIRE(left[i].name == right[i].name);
    REQUIRE(left[i].shape == right[i].shape);
    const double distance = Distance(left[i].values, right[i].values);
    worst = distance <= worst ? worst : distance;  // NaN wins
  }
  return worst;
}

void CopyTensors(DenseModel& from, DenseModel& to) {
  REQUIRE(from.ReadTensors().ok());
  auto source = from.Tensors(), target = to.Tensors();
  for (size_t i = 0; i < source.size(); ++i) std::ranges::copy(source[i].values, target[i].values.begin());
  REQUIRE(to.WriteTensors().ok());
}

// Steps of changing size, two in flight, on both backends.
void CheckParity(const DenseModelConfig& config, CudaPrecision precision, double loss_tolerance,
                 double gradient_tolerance, double tensor_tolerance) {
  constexpr uint32_t kSteps = 12;
  constexpr std::array<uint32_t, 6> kRows = {70, 70, 70, 70, 13, 129};
  const auto cpu = Cpu(config), cuda = Cuda(config, precision);
  std::vector<Batch> batches;
  for (uint32_t i = 0; i < kSteps; ++i) batches.push_back(RandomBatch(config, kRows[i % kRows.size()], i));
  std::vector<Batch> expected = batches;
  std::vector<DenseStep> steps;
  for (uint32_t i = 0; i < kSteps; ++i) steps.push_back(StepOf(batches[i], i + 1));
  for (uint32_t i = 0; i < kSteps; ++i) {
    REQUIRE(cuda->StartStep(&steps[i]).ok());
    if (i > 0) REQUIRE(cuda->FinishStep(&steps[i - 1]).ok());
  }
  REQUIRE(cuda->FinishStep(&steps.back()).ok());
  for (uint32_t i = 0; i < kSteps; ++i) {
    CAPTURE(i);
    const double loss = TrainWhole(*cpu, expected[i], i + 1);
    CHECK(std::abs(steps[i].loss - loss) <= loss_tolerance * std::abs(loss));
    CHECK(Distance(batches[i].embedding_gradient, expected[i].embedding_gradient) <= gradient_tolerance);
  }
  CHECK(TensorDistance(*cuda, *cpu) <= tensor_tolerance);
  std::vector<float> outputs(70 * config.tasks.size()), reference = outputs;
  REQUIRE(cuda->Predict(70, batches[0].input.data(), outputs.data()).ok());
  REQUIRE(cpu->Predict(70, batches[0].input.data(), reference.data()).ok());
  CHECK(Distance(outputs, reference) <= tensor_tolerance);
}

TEST_CASE("on a GPU in fp32, training with every optimizer ends where the CPU backend ends") {
  DenseModelConfig config = OddConfig();
  SUBCASE("Adam") {}
  SUBCASE("AdamW with a schedule") {
    config.optimizer.type = DenseOptimizerType::kAdamW;
    config.optimizer.weight_decay = 0.1;
    config.schedule = {.type = ScheduleType::kCosine, .warmup_steps = 3, .total_steps = 10, .final_factor = 0.1};
  }
  SUBCASE("Adam with clipping and L2") {
    config.optimizer.clip_norm = 0.05;
    config.optimizer.weight_decay = 0.01;
  }
  SUBCASE("SGD") {
    config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1, .weight_decay = 0.01};
  }
  SUBCASE("SGD with momentum") {
    config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.05, .momentum = 0.9};
  }
  CheckParity(config, CudaPrecision::kFp32, 1e-4, 2e-3, 2e-3);
}

TEST_CASE("on a GPU, wider layers, no dense features or no embeddings change nothing about parity") {
  DenseModelConfig config = OddConfig();
  config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1};
  SUBCASE("wider than one block of columns") { config.hidden = {272, 48}; }
  SUBCASE("no dense features") { config.dense_count = 0; }
  SUBCASE("no embeddings") { config.embedding_width = 0; }
  SUBCASE("one hidden layer") { config.hidden = {24}; }
  CheckParity(config, CudaPrecision::kFp32, 1e-4, 2e-3, 2e-3);
}

TEST_CASE("on a GPU in bf16, training stays within the rounding of bf16") {
  DenseModelConfig config = OddConfig();
  config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1};  // Adam's signs of tiny gradients flip by rounding
  CheckParity(config, CudaPrecision::kBf16, 2e-2, 0.2, 3e-2);  // a unit near 0 passes a gradient or none
}

TEST_CASE("on a GPU in fp32, fifty steps end where PyTorch ends") {
  constexpr uint32_t kSteps = 50, kBatches = 4, kRows = 12, kTasks = 2;
  const GoldenFile golden("dense_training.txt");
  DenseModelConfig config;
  config.embedding_width = 8;
  config.dense_count = 3;
  config.hidden = {16, 8};
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 0.5f}};
  config.optimizer = {.type = DenseOptimizerType::kAdam, .lr = 0.01, .weight_decay = 0.01, .clip_norm = 0.5};
  config.schedule = {.type = ScheduleType::kCosine, .warmup_steps = 5, .total_steps = 40, .final_factor = 0.1};
  const auto model = Cuda(config);
  for (auto& tensor : model->Tensors()) {
    if (tensor.name.ends_with(".weight") || tensor.name.ends_with(".bias")) {
      std::ranges::copy(golden["start." + tensor.name].values, tensor.values.begin());
    }
  }
  REQUIRE(model->WriteTensors().ok());
  const float* inputs = golden["inputs"].values.data();
  const float* labels = golden["labels"].values.data();
  std::vector<float> embedding_gradient(kRows * config.embedding_width), predictions(kRows * kTasks);
  for (uint32_t i = 0; i < kSteps; ++i) {
    const uint32_t batch = i % kBatches;
    DenseStep step{.step = i + 1,
                   .rows = kRows,
                   .input = inputs + batch * kRows * config.input_width(),
                   .labels = labels + batch * kRows * kTasks,
                   .embedding_gradient = embedding_gradient.data()};
    REQUIRE(model->StartStep(&step).ok());
    REQUIRE(model->FinishStep(&step).ok());
    CHECK(std::abs(step.loss - golden["adam.losses"].values[i]) < 1e-5);
  }
  REQUIRE(model->Predict(kRows, inputs, predictions.data()).ok());
  CHECK(Distance(embedding_gradient, golden["adam.embedding_gradient"].values) < 1e-4);
  CHECK(Distance(predictions, golden["adam.predictions"].values) < 1e-5);
}

TEST_CASE("on a GPU, a step in halves changes the same bits as a whole step, by graph and without") {
  for (const CudaPrecision precision : {CudaPrecision::kFp32, CudaPrecision::kBf16}) {
    const DenseModelConfig config = OddConfig();
    const auto whole = Cuda(config, precision), halves = Cuda(config, precision);
    for (uint64_t step = 1; step <= 4; ++step) {
      Batch batch = RandomBatch(config, 40, step), same = batch;
      const double loss = TrainWhole(*whole, batch, step);
      double other = 0;
      REQUIRE(halves->ForwardBackward(40, same.input.data(), same.labels.data(), same.embedding_gradient.data(),
                                      &other).ok());
      REQUIRE(halves->ApplyGradients(step).ok());
      CHECK(loss == other);
      CHECK(batch.embedding_gradient == same.embedding_gradient);
    }
    CHECK(TensorDistance(*whole, *halves) == 0.0);
  }
}

// Adds up two workers' gradients, bucket by bucket.
struct Adder final : GradientSink {
  void BucketReady(size_t bucket, std::span<float> gradients) override {
    CHECK(bucket == buckets.size());
    buckets.push_back(gradients);
  }
  std::vector<std::span<float>> buckets;
};

TEST_CASE("on a GPU, two workers with halves of a global batch train like one with all of it, and stay equal") {
  DenseModelConfig config = OddConfig();
  config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1};
  const auto one = Cuda(config), left = Cuda(config), right = Cuda(config);
  for (uint64_t step = 1; step <= 3; ++step) {
    Batch all = RandomBatch(config, 48, step);
    double sum = 0;
    std::array<Adder, 2> sinks;
    DenseModel* workers[2] = {left.get(), right.get()};
    for (uint32_t i = 0; i < 2; ++i) {
      double loss = 0;
      std::vector<float> gradient(size_t{24} * config.embedding_width);
      REQUIRE(workers[i]->ForwardBackward(24, all.input.data() + i * 24 * config.input_width(),
                                          all.labels.data() + i * 24 * config.tasks.size(), gradient.data(), &loss,
                                          {.rows = 48, .sink = &sinks[i]}).ok());
      sum += loss;
    }
    REQUIRE(sinks[0].buckets.size() == left->Gradients().size());
    for (size_t bucket = 0; bucket < sinks[0].buckets.size(); ++bucket) {
      for (size_t i = 0; i < sinks[0].buckets[bucket].size(); ++i) {
        const float total = sinks[0].buckets[bucket][i] + sinks[1].buckets[bucket][i];
        sinks[0].buckets[bucket][i] = sinks[1].buckets[bucket][i] = total;
      }
    }
    for (DenseModel* worker : workers) REQUIRE(worker->ApplyGradients(step).ok());
    CHECK(sum == doctest::Approx(TrainWhole(*one, all, step)).epsilon(1e-5));
  }
  CHECK(TensorDistance(*left, *right) == 0.0);
  CHECK(TensorDistance(*left, *one) < 1e-4);
}

TEST_CASE("on a GPU, a loss scale that is a power of two changes no bit, in whole steps and in halves, with clipping too") {
  for (const CudaPrecision precision : {CudaPrecision::kFp32, CudaPrecision::kBf16}) {
    DenseModelConfig config = OddConfig();
    config.optimizer.clip_norm = 0.05;
    const auto plain = Cuda(config, precision), scaled = Cuda(config, precision), halves = Cuda(config, precision);
    for (uint64_t step = 1; step <= 4; ++step) {
      Batch batch = RandomBatch(config, 40, step), same = batch, again = batch;
      const double loss = TrainWhole(*plain, batch, step);
      DenseStep whole = StepOf(same, step);
      whole.loss_scale = 1024.0f;
      REQUIRE(scaled->StartStep(&whole).ok());
      REQUIRE(scaled->FinishStep(&whole).ok());
      CHECK(whole.loss == loss);
      double other = 0;
      Adder sink;
      REQUIRE(halves->ForwardBackward(40, again.input.data(), again.labels.data(), again.embedding_gradient.data(),
                                      &other, {.rows = 40, .sink = &sink, .loss_scale = 64.0f}).ok());
      REQUIRE(halves->UnscaleGradients(64.0f));
      REQUIRE(halves->ApplyGradients(step).ok());
      CHECK(other == loss);
      CHECK(same.embedding_gradient == batch.embedding_gradient);
      CHECK(again.embedding_gradient == batch.embedding_gradient);
    }
    CHECK(TensorDistance(*scaled, *plain) == 0.0);
    CHECK(TensorDistance(*halves, *plain) == 0.0);
  }
}

TEST_CASE("on a GPU, a step is skipped when only the gradient of the embeddings overflows") {
  DenseModelConfig config;
  config.embedding_width = 1;
  config.hidden = {16};
  config.tasks = {{"rating", Loss::kMse, 1.0f}};
  const auto model = Cuda(config), twin = Cuda(config);
  for (DenseModel* each : {model.get(), twin.get()}) {
    for (auto& tensor : each->Tensors()) {
      // h is 1, the output 16; the gradient of the embedding, 16 times 1e30 times 1e18, doesn't fit a float.
      if (tensor.name == "layer.0.weight") std::ranges::fill(tensor.values, 1e30f);
      if (tensor.name == "layer.1.weight") std::ranges::fill(tensor.values, 1.0f);
    }
    REQUIRE(each->WriteTensors().ok());
  }
  Batch overflows{1, {1e-30f}, {-1e18f}, {0.0f}}, ordinary{1, {1e-30f}, {16.0f}, {0.0f}};
  for (uint64_t step = 1; step <= 3; ++step) {
    DenseStep bad = StepOf(overflows, step);
    REQUIRE(model->StartStep(&bad).ok());
    REQUIRE(model->FinishStep(&bad).ok());
    CHECK(bad.skipped);
    Adder sink;
    double loss = 0;
    REQUIRE(model->ForwardBackward(1, overflows.input.data(), overflows.labels.data(),
                                   overflows.embedding_gradient.data(), &loss, {.rows = 1, .sink = &sink}).ok());
    CHECK_FALSE(model->UnscaleGradients(1.0f));
  }
  CHECK(TensorDistance(*model, *twin) == 0.0);
  TrainWhole(*model, ordinary, 4);
}

CudaOptions InGroup(uint32_t rank, uint32_t size, CudaPrecision precision) {
  const auto id = MakeCudaGroupId();
  REQUIRE_MESSAGE(id.ok(), id.status().message());
  return {.precision = precision, .tune = false, .group = CudaGroup{id.value(), rank, size, 2000}};
}

TEST_CASE("on a GPU, a group of one rank changes the same bits as no group, by graph and without") {
  for (const CudaPrecision precision : {CudaPrecision::kFp32, CudaPrecision::kBf16}) {
    const DenseModelConfig config = OddConfig();
    const auto alone = Cuda(config, precision);
    auto grouped = MakeCudaDenseModel(config, InGroup(0, 1, precision));
    REQUIRE_MESSAGE(grouped.ok(), grouped.status().message());
    CHECK((*grouped)->sums_over_workers());
    for (uint64_t step = 1; step <= 4; ++step) {
      Batch batch = RandomBatch(config, 40, step), same = batch;
      CHECK(TrainWhole(*alone, batch, step) == TrainWhole(**grouped, same, step));
      CHECK(batch.embedding_gradient == same.embedding_gradient);
    }
    CHECK(TensorDistance(**grouped, *alone) == 0.0);
  }
}

TEST_CASE("on a GPU, a rank without rows takes part in a step of its group with gradients of zero") {
  DenseModelConfig config = OddConfig();
  config.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1};
  const auto twin = Cuda(config);
  auto grouped = MakeCudaDenseModel(config, InGroup(0, 1, CudaPrecision::kFp32));
  REQUIRE_MESSAGE(grouped.ok(), grouped.status().message());
  for (uint64_t step = 1; step <= 3; ++step) {
    DenseStep empty{.step = step, .global_rows = 8};
    REQUIRE((*grouped)->StartStep(&empty).ok());
    REQUIRE((*grouped)->FinishStep(&empty).ok());
    CHECK(empty.loss == 0.0);
    CHECK_FALSE(empty.skipped);
  }
  CHECK(TensorDistance(**grouped, *twin) == 0.0);
}

TEST_CASE("on a GPU, a group whose other rank does not come fails within its deadline") {
  const DenseModelConfig config = OddConfig();
  auto waiting = MakeCudaDenseModel(config, InGroup(0, 2, CudaPrecision::kFp32));
  REQUIRE_MESSAGE(waiting.ok(), waiting.status().message());
  Batch batch = RandomBatch(config, 8, 1);
  DenseStep step = StepOf(batch, 1);
  CHECK((*waiting)->StartStep(&step).code() == ErrorCode::kPeerLost);
}

TEST_CASE("on a GPU, a step whose gradients overflow is skipped and counted, at any step") {
  DenseModelConfig config;
  config.dense_count = 1;
  config.embedding_width = 1;
  config.hidden = {16};
  config.tasks = {{"rating", Loss::kMse, 1.0f}};
  const auto model = Cuda(config), twin = Cuda(config);
  for (DenseModel* each : {model.get(), twin.get()}) {
    for (auto& tensor : each->Tensors()) {
      if (tensor.name == "layer.0.weight") std::ranges::fill(tensor.values, 1.0f);
      if (tensor.name == "layer.1.weight") std::ranges::fill(tensor.values, 1e-20f);
    }
    REQUIRE(each->WriteTensors().ok());
  }
  // h is 1e20, the output 16; the loss 1e38 fits a float, the gradient of the head's weight, 2e39, doesn't.
  Batch overflows{1, {0.0f, 1e20f}, {-1e19f}, {0.0f}}, ordinary{1, {1.0f, 1.0f}, {1.0f}, {0.0f}};
  uint64_t counted = 0;
  for (uint64_t step = 1; step <= 4; ++step) {
    DenseStep bad = StepOf(overflows, step);
    REQUIRE(model->StartStep(&bad).ok());
    REQUIRE(model->FinishStep(&bad).ok());
    CHECK(bad.skipped);
    CHECK(model->skipped_steps() == ++counted);
    TrainWhole(*model, ordinary, step);
    TrainWhole(*twin, ordinary, step);
  }
  CHECK(TensorDistance(*model, *twin) == 0.0);
}

TEST_CASE("on a GPU, a loss that is not finite is an error and changes nothing") {
  const DenseModelConfig config = OddConfig();
  const auto model = Cuda(config), twin = Cuda(config);
  Batch batch = RandomBatch(config, 8, 1);
  batch.labels[5] = std::numeric_limits<float>::quiet_NaN();
  DenseStep bad = StepOf(batch, 1);
  REQUIRE(model->StartStep(&bad).ok());
  CHECK(model->FinishStep(&bad).code() == ErrorCode::kNonFiniteLoss);
  CHECK(TensorDistance(*model, *twin) == 0.0);
  Batch good = RandomBatch(config, 8, 2);
  TrainWhole(*model, good, 1);
}

TEST_CASE("a network goes from the CPU to a GPU and back with its optimizer's state") {
  const DenseModelConfig config = OddConfig();
  const auto cpu = Cpu(config), cuda = Cuda(config), back = Cpu(config);
  Batch batch = RandomBatch(config, 32, 1);
  for (uint64_t step = 1; step <= 3; ++step) TrainWhole(*cpu, batch, step);
  CopyTensors(*cpu, *cuda);
  CHECK(TensorDistance(*cuda, *cpu) == 0.0);
  CopyTensors(*cuda, *back);
  CHECK(TensorDistance(*back, *cpu) == 0.0);
}

TEST_CASE("on a GPU, a batch without rows, a model without hidden layers and a GPU that isn't there are refused") {
  DenseModelConfig config = OddConfig();
  const auto model = Cuda(config);
  Batch batch = RandomBatch(config, 1, 1);
  DenseStep step = StepOf(batch, 1);
  step.rows = 0;
  CHECK(model->StartStep(&step).code() == ErrorCode::kBatchInvalid);
  CHECK(MakeCudaDenseModel(config, {.device = 99}).status().code() == ErrorCode::kDevice);
  config.hidden = {};
  CHECK(MakeCudaDenseModel(config, {}).status().code() == ErrorCode::kConfigUnsupported);
}

}  // namespace
}  // namespace persia
