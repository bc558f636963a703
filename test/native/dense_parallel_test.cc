// Several NN workers that train on parts of a global batch, as the trainer runs them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "collective/local_collective.h"
#include "dense/dense_model.h"
#include "dense_data.h"

namespace persia {
namespace {

constexpr uint32_t kSteps = 20;
constexpr double kNoLoss = -1.0;

// More than one bucket of gradients.
DenseModelConfig Config(DenseOptimizerType type) {
  DenseModelConfig config;
  config.embedding_width = 20;
  config.dense_count = 5;
  config.hidden = {1000, 1100};
  config.tasks = {{"click", Loss::kBce, 1.0f}, {"rating", Loss::kMse, 0.5f}};
  config.optimizer.type = type;
  config.optimizer.clip_norm = 0.5;
  config.optimizer.eps = 1e-4;  // Adam's division by tiny gradients would blow rounding up
  config.seed = 11;
  config.threads = 1;
  return config;
}

std::unique_ptr<DenseModel> Make(const DenseModelConfig& config) {
  auto model = MakeCpuDenseModel(config);
  REQUIRE(model.ok());
  return std::move(*model);
}

std::vector<float> Values(DenseModel& model) {
  std::vector<float> values;
  for (const auto& tensor : model.Tensors()) values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  return values;
}

// Hands buckets on to the collective.
class Summing final : public GradientSink {
 public:
  explicit Summing(Collective& collective) : collective_(collective) {}
  void BucketReady(size_t, std::span<float> gradients) override { last_ = collective_.Start(gradients); }
  Status Wait() { return collective_.Wait(last_); }

 private:
  Collective& collective_;
  uint64_t last_ = 0;
};

// Rows [begin, begin + rows) of the global batch of each step.
struct Part {
  uint32_t begin, rows;
};

struct Trained {
  std::vector<float> weights, embedding_gradient;
  double loss = kNoLoss;  // of the last step, summed over workers
};

Trained TrainPart(const DenseModelConfig& config, uint32_t global_rows, Part part, Collective& collective) {
  auto model = Make(config);
  Summing summing(collective);
  Trained trained;
  trained.embedding_gradient.resize(size_t{part.rows} * config.embedding_width);
  for (uint32_t step = 1; step <= kSteps; ++step) {
    const Data data = RandomData(config, global_rows, step);
    double numbers[] = {static_cast<double>(part.rows)};
    if (!collective.Sum(numbers).ok()) return {};
    const GlobalBatch global{static_cast<uint64_t>(numbers[0]), &summing};
    const Status status = model->ForwardBackward(
        part.rows, data.input.data() + size_t{part.begin} * config.input_width(),
        data.labels.data() + part.begin * config.tasks.size(), trained.embedding_gradient.data(), numbers, global);
    if (!status.ok() || !summing.Wait().ok() || !model->ApplyGradients(step).ok()) return {};
    if (!collective.Sum(numbers).ok()) return {};
    trained.loss = numbers[0];
  }
  trained.weights = Values(*model);
  return trained;
}

std::vector<Trained> TrainParts(const DenseModelConfig& config, const std::vector<uint32_t>& rows) {
  const uint32_t global_rows = std::accumulate(rows.begin(), rows.end(), 0u);
  auto collectives = MakeLocalCollectives(static_cast<uint32_t>(rows.size()));
  std::vector<Trained> trained(rows.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    const Part part{std::accumulate(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(rank), 0u), rows[rank]};
    threads.emplace_back([&, rank, part] { trained[rank] = TrainPart(config, global_rows, part, *collectives[rank]); });
  }
  for (auto& thread : threads) thread.join();
  return trained;
}

double WorstDifference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

TEST_CASE("Workers with parts of a batch keep identical weights and train like one worker with the whole batch") {
  for (const auto type : {DenseOptimizerType::kSgd, DenseOptimizerType::kAdam}) {
    const auto config = Config(type);
    const auto parts = TrainParts(config, {30, 7, 43});
    const auto whole = TrainParts(config, {80});
    REQUIRE(whole[0].loss != kNoLoss);
    std::vector<float> embedding_gradient;
    for (const Trained& part : parts) {
      REQUIRE(part.weights.size() == whole[0].weights.size());
      CHECK(std::memcmp(part.weights.data(), parts[0].weights.data(), part.weights.size() * sizeof(float)) == 0);
      CHECK(part.loss == parts[0].loss);
      const auto& gradient = part.embedding_gradient;
      embedding_gradient.insert(embedding_gradient.end(), gradient.begin(), gradient.end());
    }
    CHECK(parts[0].loss == doctest::Approx(whole[0].loss).epsilon(1e-5));
    CHECK(WorstDifference(parts[0].weights, whole[0].weights) < 1e-5);
    CHECK(WorstDifference(embedding_gradient, whole[0].embedding_gradient) < 1e-6);
  }
}

// Keeps what it is told.
class Recording final : public GradientSink {
 public:
  void BucketReady(size_t bucket, std::span<float> gradients) override {
    order.push_back(bucket);
    values.emplace_back(gradients.begin(), gradients.end());
  }
  std::vector<size_t> order;
  std::vector<std::vector<float>> values;
};

TEST_CASE("Gradients come in contiguous buckets, last layer first, each final when it is handed out") {
  auto config = Config(DenseOptimizerType::kAdam);
  config.hidden = {1100, 1000, 1000};
  auto model = Make(config);
  const Data data = RandomData(config, 50, 1);
  std::vector<float> embedding_gradient(50 * config.embedding_width);
  double loss = 0;
  Recording recording;
  for (const uint32_t repeat : {1u, 2u}) {
    const GlobalBatch global{50, &recording};
    REQUIRE(model->ForwardBackward(50, data.input.data(), data.labels.data(), embedding_gradient.data(), &loss, global)
                .ok());
    const auto buckets = model->Gradients();
    REQUIRE(buckets.size() == 3);
    REQUIRE(recording.order.size() == repeat * buckets.size());
    for (size_t i = 0; i < buckets.size(); ++i) {
      const size_t at = recording.order.size() - buckets.size() + i;
      CHECK(recording.order[at] == i);
      CHECK(std::ranges::equal(recording.values[at], buckets[i]));
      CHECK(buckets[i].size_bytes() <= size_t{4} << 20);
      if (i > 0) CHECK(buckets[i].data() + buckets[i].size() == buckets[i - 1].data());
    }
  }
}

TEST_CASE("A worker's part of a global batch has no more rows than that") {
  auto model = Make(Config(DenseOptimizerType::kSgd));
  const Data data = RandomData(model->config(), 3, 1);
  std::vector<float> embedding_gradient(3 * 20);
  double loss = 0;
  const GlobalBatch global{2, nullptr};
  const Status status =
      model->ForwardBackward(3, data.input.data(), data.labels.data(), embedding_gradient.data(), &loss, global);
  CHECK(status.code() == ErrorCode::kBatchInvalid);
}

}  // namespace
}  // namespace persia
