// Small trainers, batches that are functions of their number, and ways to wait: for all tests of the pipeline.
#pragma once

#include <cmath>
#include <filesystem>
#include <future>
#include <map>

#include <doctest/doctest.h>
#include <unistd.h>

#include "base/rng.h"
#include "trainer/trainer.h"

namespace persia {

inline constexpr uint32_t kRows = 64, kDense = 3, kFeatures = 4, kDim = 8;

inline TrainerConfig SmallConfig(uint64_t staleness, bool deterministic) {
  TrainerConfig config;
  std::vector<FeatureSpec> features;
  for (uint32_t f = 0; f < kFeatures; ++f) {
    const Pooling pooling = f == 1 ? Pooling::kMean : Pooling::kSum;
    features.push_back({"f" + std::to_string(f), f == 3 ? 2 * kDim : kDim, pooling, f, 0, 0});
  }
  config.schema = *BuildFeatureSchema(features, 8);
  for (uint32_t dim : config.schema.row_class_dims) {
    TableOptions table;
    table.dim = dim;
    table.optimizer.lr = 0.1f;
    table.optimizer.weight_bound = 10;
    table.capacity_rows = 10'000;
    table.seed = 5;
    config.tables.push_back(table);
  }
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count = kDense;
  config.dense.hidden = {16, 8};
  config.dense.tasks = {{"click", Loss::kBce, 1.0f}};
  config.dense.optimizer.lr = 0.01f;
  config.dense.seed = 5;
  config.dense.threads = 1;
  config.staleness = staleness;
  config.deterministic = deterministic;
  return config;
}

// A batch of its own memory, a pure function of its number; the label follows from the first feature's id.
inline std::shared_ptr<const Batch> MakeBatch(uint64_t number, uint64_t distinct_ids = 50, uint32_t rows = kRows) {
  struct Storage {
    Batch batch;
    std::vector<std::vector<uint64_t>> ids;
    std::vector<float> dense, labels;
  };
  auto storage = std::make_shared<Storage>();
  Rng rng(RandomKey(number, 99));
  storage->ids.resize(kFeatures);
  for (uint32_t row = 0; row < rows; ++row) {
    for (auto& column : storage->ids) column.push_back(rng.Next() % distinct_ids);
    for (uint32_t d = 0; d < kDense; ++d) storage->dense.push_back(static_cast<float>(rng.Uniform(-1, 1)));
    storage->labels.push_back(storage->ids[0].back() % 3 == 0 ? 1.0f : 0.0f);
  }
  Batch& batch = storage->batch;
  batch.rows = rows;
  batch.dense_count = kDense;
  batch.label_count = 1;
  for (const auto& column : storage->ids) batch.id_columns.push_back({{}, column});
  batch.dense = storage->dense;
  batch.labels = storage->labels;
  return {storage, &batch};
}

// A batch to change, on the memory of another.
inline std::shared_ptr<Batch> CopyOf(std::shared_ptr<const Batch> source) {
  auto copy = std::make_shared<Batch>(*source);
  copy->owner = std::move(source);
  return copy;
}

// A completion to wait for.
struct Waiter {
  std::promise<Status> promise;
  std::future<Status> future = promise.get_future();
  Completion completion() {
    return [this](Status status) { promise.set_value(std::move(status)); };
  }
  Status Wait() { return future.get(); }
};

inline Status PushAndWait(ModelTrainer& trainer, std::shared_ptr<const Batch> batch) {
  Waiter accepted;
  trainer.Push(std::move(batch), accepted.completion());
  return accepted.Wait();
}

inline Status DrainAndWait(ModelTrainer& trainer) {
  Waiter done;
  trainer.Drain(done.completion());
  return done.Wait();
}

inline void Train(ModelTrainer& trainer, uint64_t first, uint64_t last, uint64_t distinct_ids = 50) {
  for (uint64_t step = first; step <= last; ++step) REQUIRE(PushAndWait(trainer, MakeBatch(step, distinct_ids)).ok());
}

inline std::unique_ptr<Trainer> Make(const TrainerConfig& config) {
  Result<std::unique_ptr<Trainer>> trainer = Trainer::Create(config);
  REQUIRE(trainer.ok());
  return std::move(*trainer);
}

// Saves a paused trainer into a fresh folder; the files by name.
struct Saved {
  explicit Saved(ModelTrainer& trainer) {
    char name[] = "/tmp/persia-trainer-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
    Result<std::vector<SnapshotFile>> result = trainer.Save(path);
    REQUIRE(result.ok());
    files = *result;
  }
  ~Saved() { std::filesystem::remove_all(path); }
  std::map<std::string, uint64_t> Checksums() const {
    std::map<std::string, uint64_t> checksums;
    for (const SnapshotFile& file : files) checksums[file.name] = file.checksum;
    return checksums;
  }
  std::string path;
  std::vector<SnapshotFile> files;
};

inline std::map<std::string, uint64_t> FinalState(ModelTrainer& trainer) {
  REQUIRE(DrainAndWait(trainer).ok());
  Waiter paused;
  trainer.Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
  return Saved(trainer).Checksums();
}

// Trains 320 steps, all applied at the end, and checks that the last twenty lose less than half of the first twenty.
inline TrainerProgress CheckLearns(ModelTrainer& trainer) {
  const auto after = [&](uint64_t begin, uint64_t end) {
    Train(trainer, begin, end);
    REQUIRE(DrainAndWait(trainer).ok());
    return trainer.progress();
  };
  const double early = after(1, 20).loss_sum / 20;
  const double middle = after(21, 300).loss_sum;
  const TrainerProgress end = after(301, 320);
  CHECK((end.loss_sum - middle) / 20 < 0.5 * early);
  CHECK(end.steps == 320);
  CHECK(end.samples == 320 * kRows);
  return end;
}

}  // namespace persia
