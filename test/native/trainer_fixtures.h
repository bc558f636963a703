// Small trainers, batches that are functions of their number, and ways to wait: for all tests of the pipeline.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
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

// Adaptive optimizers divide by the size of gradients; where those are nearly 0 that blows rounding up without bound,
// so they start above it.
inline TrainerConfig WorkersConfig(TrainerMode mode, uint32_t workers, bool deterministic = true) {
  TrainerConfig config = SmallConfig(mode == TrainerMode::kSync ? 0 : 3, deterministic);
  config.mode = mode;
  config.nn_workers = workers;
  config.dense.optimizer.eps = 1e-4;
  for (TableOptions& table : config.tables) {
    table.optimizer.initial_accumulator = 0.01f;
    table.prefix_bits = config.schema.prefix_bits;
    table.group_count = config.schema.group_count;
  }
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

// For squared errors. Its last sample's dense features make gradients overflow at any scale, and no loss: the label is
// as far away.
inline std::shared_ptr<Batch> OverflowingBatch(uint64_t number) {
  auto batch = CopyOf(MakeBatch(number));
  auto dense = std::make_shared<std::vector<float>>(batch->dense.begin(), batch->dense.end());
  auto labels = std::make_shared<std::vector<float>>(batch->labels.begin(), batch->labels.end());
  dense->back() = 1e30f;
  labels->back() = -1e30f;
  batch->dense = *dense;
  batch->labels = *labels;
  batch->owner = std::make_shared<std::pair<decltype(dense), std::shared_ptr<const void>>>(
      dense, std::make_shared<std::pair<decltype(labels), std::shared_ptr<const void>>>(labels, batch->owner));
  return batch;
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

inline constexpr uint32_t kSizes[] = {64, 7, 64, 1, 2, 33, 64, 5, 64, 3};

// Batches of all sizes.
inline std::shared_ptr<const Batch> SizedBatch(uint64_t step) {
  return MakeBatch(step, 50, kSizes[step % std::size(kSizes)]);
}

inline void TrainSizes(ModelTrainer& trainer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step <= last; ++step) {
    const Status status = PushAndWait(trainer, SizedBatch(step));
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
}

// Rows with the state of their optimizer, by sign.
using TableRows = std::map<uint64_t, std::vector<float>>;

inline TableRows TableOf(ModelTrainer& trainer, uint32_t row_class) {
  TableRows rows;
  const Status status = trainer.store().Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge) {
    CHECK(rows.emplace(sign, std::vector<float>(row.begin(), row.end())).second);
  });
  REQUIRE_MESSAGE(status.ok(), status.message());
  return rows;
}

// Weights and the state of their optimizer.
inline std::vector<float> DenseOf(DenseModel& model) {
  std::vector<float> values;
  for (const NamedTensor& tensor : model.Tensors()) {
    values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  }
  return values;
}

inline double Farthest(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double farthest = 0;
  for (size_t i = 0; i < a.size(); ++i) farthest = std::max(farthest, std::abs(double{a[i]} - b[i]));
  return farthest;
}

inline double FarthestRows(ModelTrainer& a, ModelTrainer& b) {
  double farthest = 0;
  for (uint32_t c = 0; c < a.store().row_class_count(); ++c) {
    const TableRows rows = TableOf(a, c), others = TableOf(b, c);
    REQUIRE(rows.size() == others.size());
    for (const auto& [sign, row] : rows) farthest = std::max(farthest, Farthest(row, others.at(sign)));
  }
  return farthest;
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

// Applies what was pushed and pauses.
inline void Rest(ModelTrainer& trainer) {
  REQUIRE(DrainAndWait(trainer).ok());
  Waiter paused;
  trainer.Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
}

inline std::map<std::string, uint64_t> FinalState(ModelTrainer& trainer) {
  Rest(trainer);
  return Saved(trainer).Checksums();
}

using BatchOfStep = std::function<std::shared_ptr<const Batch>(uint64_t step)>;

// A run of `last` steps whose final state is `expected` is saved after step `stop`. It ends in that state, and so does
// another trainer which goes on from what was saved.
inline void CheckSavedInTheMiddle(const TrainerConfig& config, const BatchOfStep& batch, uint64_t stop, uint64_t last,
                                  const std::map<std::string, uint64_t>& expected) {
  CAPTURE(stop);
  auto first = Make(config);
  Waiter paused, drained;
  first->Pause(stop, paused.completion());
  // The pipeline looks ahead while it comes to rest, as in a run that goes on.
  for (uint64_t step = 1; step <= last; ++step) first->Push(batch(step), [](Status) {});
  first->Drain(drained.completion());
  REQUIRE(paused.Wait().ok());
  CHECK(first->progress().steps == stop);
  const Saved saved(*first);

  auto second = Make(config);
  REQUIRE(second->Restore(saved.path, saved.files).ok());
  CHECK(second->progress().steps == stop);
  for (uint64_t step = stop + 1; step <= last; ++step) REQUIRE(PushAndWait(*second, batch(step)).ok());
  CHECK(FinalState(*second) == expected);

  first->Resume();
  REQUIRE(drained.Wait().ok());
  CHECK(FinalState(*first) == expected);
}

// Twelve steps whose trainer is closed after batch `accepted` was taken in (0: at once): whatever waits is answered.
inline void CheckClosedInTheMiddle(const TrainerConfig& config, size_t accepted) {
  auto trainer = Make(config);
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (uint64_t step = 1; step <= 12; ++step) {
    waiters.push_back(std::make_unique<Waiter>());
    trainer->Push(MakeBatch(step), waiters.back()->completion());
  }
  Waiter drained;
  trainer->Drain(drained.completion());
  for (size_t i = 0; i < accepted; ++i) CHECK(waiters[i]->Wait().ok());
  trainer.reset();
  const auto ok_or_closed = [](Waiter& waiter) {
    const ErrorCode code = waiter.Wait().code();
    return code == ErrorCode::kOk || code == ErrorCode::kClosed;
  };
  for (size_t i = accepted; i < waiters.size(); ++i) CHECK(ok_or_closed(*waiters[i]));
  CHECK(ok_or_closed(drained));
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
