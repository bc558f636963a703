// A cluster of roles over an in-process network: it trains like one process, bounds staleness, saves and restores, and
// ends with the name of a role that is lost.
#include <chrono>

#include "cluster_fixtures.h"

namespace persia {
namespace {

// As in nn_workers_test.cc: adaptive optimizers start above zero, where rounding blows up.
TrainerConfig ClusterConfig(TrainerMode mode, uint32_t workers) {
  TrainerConfig config = SmallConfig(mode == TrainerMode::kSync ? 0 : 3, false);
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

void Rest(ModelTrainer& trainer) {
  REQUIRE(DrainAndWait(trainer).ok());
  Waiter paused;
  trainer.Pause(std::nullopt, paused.completion());
  REQUIRE(paused.Wait().ok());
}

using Rows = std::map<uint64_t, std::vector<float>>;

Rows TableOf(ModelTrainer& trainer, uint32_t row_class) {
  Rows rows;
  const Status status = trainer.store().Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge) {
    CHECK(rows.emplace(sign, std::vector<float>(row.begin(), row.end())).second);
  });
  REQUIRE_MESSAGE(status.ok(), status.message());
  return rows;
}

std::vector<float> DenseOf(DenseModel& model) {
  std::vector<float> values;
  for (const NamedTensor& tensor : model.Tensors()) {
    values.insert(values.end(), tensor.values.begin(), tensor.values.end());
  }
  return values;
}

double Farthest(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double farthest = 0;
  for (size_t i = 0; i < a.size(); ++i) farthest = std::max(farthest, std::abs(double{a[i]} - b[i]));
  return farthest;
}

double FarthestRows(ModelTrainer& a, ModelTrainer& b) {
  double farthest = 0;
  for (uint32_t c = 0; c < a.store().row_class_count(); ++c) {
    const Rows rows = TableOf(a, c), others = TableOf(b, c);
    REQUIRE(rows.size() == others.size());
    for (const auto& [sign, row] : rows) farthest = std::max(farthest, Farthest(row, others.at(sign)));
  }
  return farthest;
}

constexpr uint32_t kSizes[] = {64, 7, 64, 1, 2, 33, 64, 5, 64, 3};

void TrainSizes(ModelTrainer& trainer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step <= last; ++step) {
    const Status status = PushAndWait(trainer, MakeBatch(step, 50, kSizes[step % std::size(kSizes)]));
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
}

std::unique_ptr<Trainer> TrainedAlone(TrainerConfig config, uint64_t steps) {
  config.nn_workers = 1;
  auto trainer = Make(config);
  TrainSizes(*trainer, 1, steps);
  Rest(*trainer);
  return trainer;
}

}  // namespace

TEST_CASE("a cluster in mode sync trains like one process: weights and rows to 1e-5, whatever the sizes of batches") {
  for (const uint32_t workers : {1u, 2u, 3u}) {
    for (const uint32_t servers : {1u, 2u}) {
      CAPTURE(workers);
      CAPTURE(servers);
      const TrainerConfig config = ClusterConfig(TrainerMode::kSync, workers);
      const auto alone = TrainedAlone(config, 30);
      TestCluster cluster(config, {.parameter_servers = servers, .embedding_workers = 2});
      TrainSizes(*cluster.trainer, 1, 30);
      Rest(*cluster.trainer);
      CHECK(FarthestRows(*alone, *cluster.trainer) < 1e-5);
      for (const auto& worker : cluster.nn) {
        CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(worker->dense_model())) < 1e-5);
        CHECK(DenseOf(worker->dense_model()) == DenseOf(cluster.nn[0]->dense_model()));
      }
      const TrainerProgress one = alone->progress(), all = cluster.trainer->progress();
      CHECK(all.steps == 30);
      CHECK(all.samples == one.samples);
      CHECK(all.loss_sum == doctest::Approx(one.loss_sum).epsilon(1e-5));
      CHECK(all.most_staleness == 0);
      for (const auto& embedding_worker : cluster.ew) CHECK(embedding_worker->held() == 0);
    }
  }
}

}  // namespace persia
