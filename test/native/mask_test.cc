// Masks of unpooled sequences: which places they mark, and training with them beside PyTorch.
#include "batch/mask.h"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "golden.h"
#include "trainer_fixtures.h"

namespace persia {
namespace {

FeatureSpec Sequence(const std::string& name, uint32_t dim, uint32_t group, uint32_t length, bool mask) {
  FeatureSpec feature;
  feature.name = name;
  feature.dim = dim;
  feature.pooling = Pooling::kNone;
  feature.group = group;
  feature.sequence_length = length;
  feature.mask = mask;
  return feature;
}

std::vector<float> MasksOf(const Batch& batch, const FeatureSchema& schema) {
  constexpr uint32_t kBefore = 1;  // floats in front of the masks of a sample
  const size_t stride = schema.mask_width + kBefore;
  std::vector<float> values(batch.rows * stride, 7.0f), masks;
  WriteMasks(batch, schema, values.data() + kBefore, stride);
  for (uint32_t row = 0; row < batch.rows; ++row) {
    CHECK(values[row * stride] == 7.0f);
    masks.insert(masks.end(), values.begin() + static_cast<ptrdiff_t>(row * stride + kBefore),
                 values.begin() + static_cast<ptrdiff_t>((row + 1) * stride));
  }
  return masks;
}

constexpr uint32_t kGoldenRows = 10, kBatches = 3, kSteps = 24, kGoldenIds = 7, kGoldenDim = 3, kGoldenDense = 2;

struct GoldenBatch {
  std::vector<uint64_t> visited, users;
  std::vector<uint32_t> offsets;
  std::vector<float> dense, labels;
  Batch batch;

  GoldenBatch(const GoldenFile& golden, uint32_t number) {
    const auto values = [&](const std::string& name) {
      return golden["batch." + std::to_string(number) + "." + name].values;
    };
    for (const float id : values("ids")) visited.push_back(static_cast<uint64_t>(id));
    for (const float id : values("users")) users.push_back(static_cast<uint64_t>(id));
    for (const float offset : values("offsets")) offsets.push_back(static_cast<uint32_t>(offset));
    dense = values("dense");
    labels = values("labels");
    batch.rows = kGoldenRows;
    batch.dense_count = kGoldenDense;
    batch.label_count = 1;
    batch.id_columns = {{offsets, visited}, {{}, users}};
    batch.dense = dense;
    batch.labels = labels;
  }
};

TrainerConfig GoldenConfig(uint32_t workers) {
  TrainerConfig config;
  config.schema = *BuildFeatureSchema(
      {Sequence("visited", kGoldenDim, 0, 3, true), {"user", kGoldenDim, Pooling::kSum, 1, 0, 0}}, 8);
  config.tables.resize(1);
  config.tables[0].dim = kGoldenDim;
  config.tables[0].capacity_rows = 100;
  config.tables[0].optimizer.type = RowOptimizerType::kSgd;
  config.tables[0].optimizer.lr = 0.5f;
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count = kGoldenDense + config.schema.mask_width;
  config.dense.hidden = {8};
  config.dense.tasks = {{"click", Loss::kBce}};
  config.dense.optimizer = {.type = DenseOptimizerType::kSgd, .lr = 0.1};
  config.dense.threads = 1;
  config.mode = TrainerMode::kSync;
  config.nn_workers = workers;
  return config;
}

constexpr const char* kTables[] = {"visited", "user"};  // by group

// Calls use(sign, name of the table's tensor, place of the row in it).
template <typename Use>
void ForEachRow(Use use) {
  for (uint32_t group = 0; group < 2; ++group) {
    for (uint64_t id = 1; id <= kGoldenIds; ++id) {
      use(MakeSign(id, group, 8), std::string("rows.") + kTables[group], id * kGoldenDim);
    }
  }
}

void SetStart(const GoldenFile& golden, Trainer& trainer) {
  ForEachRow([&](uint64_t sign, const std::string& name, size_t place) {
    const float* row = golden["start." + name].values.data() + place;
    REQUIRE(trainer.store().Write(0, sign, {row, kGoldenDim}, std::nullopt).ok());
  });
  for (uint32_t rank = 0; rank < trainer.config().nn_workers; ++rank) {
    for (NamedTensor& tensor : trainer.dense_model(rank).Tensors()) {
      std::ranges::copy(golden["start." + tensor.name].values, tensor.values.begin());
    }
  }
}

void CheckEnd(const GoldenFile& golden, Trainer& trainer) {
  for (const NamedTensor& tensor : trainer.dense_model(0).Tensors()) {
    CheckClose(golden, "end." + tensor.name, tensor.values, 1e-5);
  }
  std::map<uint64_t, std::vector<float>> rows;
  REQUIRE(trainer.store().Scan(0, [&](uint64_t sign, std::span<const float> row, RowAge) {
    rows[sign] = {row.begin(), row.end()};
  }).ok());
  CHECK(rows.size() == 2 * kGoldenIds);
  ForEachRow([&](uint64_t sign, const std::string& name, size_t place) {
    for (uint32_t d = 0; d < kGoldenDim; ++d) {
      CHECK(std::abs(rows[sign][d] - golden["end." + name].values[place + d]) < 1e-5);
    }
  });
}

}  // namespace

TEST_CASE("a mask marks the places that a sample fills, of long sequences all") {
  const FeatureSchema schema = *BuildFeatureSchema(
      {Sequence("a", 2, 0, 3, true), Sequence("b", 2, 1, 2, false), Sequence("c", 4, 2, 2, true)}, 8);
  CHECK(schema.mask_width == 5);
  const std::vector<uint32_t> offsets{0, 0, 1, 3, 8};
  const std::vector<uint64_t> ids{1, 2, 2, 4, 5, 6, 7, 8}, one(4, 9);
  Batch batch;
  batch.rows = 4;
  batch.id_columns = {{offsets, ids}, {offsets, ids}, {{}, one}};
  CHECK(MasksOf(batch, schema) == std::vector<float>{0, 0, 0, 1, 0,  //
                                                     1, 0, 0, 1, 0,  //
                                                     1, 1, 0, 1, 0,  //
                                                     1, 1, 1, 1, 0});
  CHECK(MasksOf(PartOf(batch, 2, 2), schema) == std::vector<float>{1, 1, 0, 1, 0,  //
                                                                   1, 1, 1, 1, 0});
}

TEST_CASE("what is pooled has no mask") {
  FeatureSpec pooled = Sequence("a", 2, 0, 3, true);
  pooled.pooling = Pooling::kMean;
  CHECK(BuildFeatureSchema({pooled}, 8).status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("training on a masked sequence equals PyTorch in losses, weights, rows and predictions") {
  const GoldenFile golden("sequence_training.txt");
  for (const uint32_t workers : {1u, 2u}) {
    CAPTURE(workers);
    auto trainer = Make(GoldenConfig(workers));
    SetStart(golden, *trainer);
    std::vector<std::shared_ptr<GoldenBatch>> batches;
    for (uint32_t i = 0; i < kBatches; ++i) batches.push_back(std::make_shared<GoldenBatch>(golden, i));
    std::vector<float> losses;
    double sum = 0;
    for (uint32_t step = 0; step < kSteps; ++step) {
      const auto& batch = batches[step % kBatches];
      REQUIRE(PushAndWait(*trainer, {batch, &batch->batch}).ok());
      REQUIRE(DrainAndWait(*trainer).ok());
      losses.push_back(static_cast<float>(trainer->progress().loss_sum - sum));
      sum = trainer->progress().loss_sum;
    }
    CheckClose(golden, "losses", losses, 1e-5);
    CheckEnd(golden, *trainer);
    std::vector<float> predictions;
    REQUIRE(trainer->Predict(batches[0]->batch, &predictions).ok());
    CheckClose(golden, "predictions", predictions, 1e-5);
  }
}

TEST_CASE("an unknown id fills its place, so that the network tells it from no id") {
  TrainerConfig config = GoldenConfig(1);
  config.dense.hidden = {};
  auto trainer = Make(config);
  for (NamedTensor& tensor : trainer->dense_model(0).Tensors()) {
    std::ranges::fill(tensor.values, 0.0f);
    if (tensor.name == "layer.0.weight") tensor.values.back() = 1.0f;  // that of the last place
  }
  const std::vector<uint64_t> ids{1, 2, 3, 4}, users{5, 6};
  const std::vector<uint32_t> offsets{0, 1, 4};
  const std::vector<float> dense(2 * kGoldenDense);
  Batch batch;
  batch.rows = 2;
  batch.dense_count = kGoldenDense;
  batch.id_columns = {{offsets, ids}, {{}, users}};
  batch.dense = dense;
  std::vector<float> outputs;
  REQUIRE(trainer->Predict(batch, &outputs).ok());
  CHECK(outputs[0] == 0.5f);
  CHECK(outputs[1] == doctest::Approx(1 / (1 + std::exp(-1.0))));
  batch.dense_count += 3;  // the masks are no columns of a batch
  CHECK(trainer->Predict(batch, &outputs).code() == ErrorCode::kBatchInvalid);
}

}  // namespace persia
