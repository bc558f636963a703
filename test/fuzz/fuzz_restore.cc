// Fuzz target of Trainer::Restore: a snapshot whose files are intact but whose contents are anything is taken or
// refused, and a trainer that took it can predict.
//
// An input is the number of a file of the snapshot and that file's payload; the other files are right. The mutator
// turns an empty input into a right one, as this release or the first one wrote it, so no seeds are needed.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <vector>

#include <unistd.h>

#include "base/rng.h"
#include "trainer/trainer.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t bytes, size_t most_bytes);

namespace persia {
namespace {

constexpr uint32_t kRows = 4, kDim = 2;
constexpr SnapshotKind kKinds[] = {SnapshotKind::kPipeline, SnapshotKind::kDense, SnapshotKind::kEmbedding};
constexpr size_t kPipelineFile = 0, kEmbeddingFile = 2;  // places of files

std::unique_ptr<Trainer> MakeTrainer() {
  TrainerConfig config;
  config.schema = *BuildFeatureSchema({{"id", kDim, Pooling::kSum, 0, 0, 0}}, 8);
  config.tables.resize(1);
  config.tables[0].dim = kDim;
  config.tables[0].capacity_rows = 64;
  config.tables[0].group_count = config.schema.group_count;
  config.tables[0].time_to_live_ms = 1'000;
  config.tables[0].now_ms = [] { return uint64_t{1'000'000}; };
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.hidden = {2};
  config.dense.tasks = {{"click", Loss::kBce, 1.0f}};
  config.dense.threads = 1;
  config.staleness = 2;
  config.deterministic = true;
  return std::move(*Trainer::Create(config));
}

struct SampleBatch {
  std::vector<uint64_t> ids = {1, 2, 3, 1};
  std::vector<float> labels = {0, 1, 0, 1};
  Batch batch;
  SampleBatch() {
    batch.rows = kRows;
    batch.label_count = 1;
    batch.id_columns = {{{}, ids}};
    batch.labels = labels;
  }
};

// A folder with the snapshot of a trainer in the middle of its work, and the payloads of its files.
struct Snapshot {
  std::string folder = "/dev/shm/persia-fuzz-XXXXXX";
  std::vector<SnapshotFile> files;
  std::vector<std::vector<uint8_t>> payloads;
  std::vector<std::vector<uint8_t>> right;  // inputs that are to be taken: those payloads, and of the first release

  Snapshot() {
    PERSIA_CHECK(mkdtemp(folder.data()) != nullptr);
    Save();
    for (size_t i = 0; i < files.size(); ++i) {
      payloads.push_back(ReadPayload(folder + "/" + files[i].name, kKinds[i]));
      right.push_back(Input(i, payloads[i]));
    }
    // Without what later releases appended: loss scaling, dense updates and NN workers, the seen ids of the one feature.
    constexpr size_t kScalingBytes = sizeof(float) + sizeof(uint32_t) + sizeof(uint64_t);
    constexpr size_t kWorkersBytes = sizeof(uint64_t) + sizeof(uint32_t);
    constexpr size_t kSeenBytes = sizeof(uint32_t) + HyperLogLog::kRegisters;
    std::vector<uint8_t> pipeline = payloads[kPipelineFile];
    for (const size_t bytes : {kScalingBytes, kWorkersBytes, kSeenBytes}) {
      pipeline.resize(pipeline.size() - bytes);
      right.push_back(Input(kPipelineFile, pipeline));
    }
    right.push_back(Input(kEmbeddingFile, FirstEmbedding()));
  }
  ~Snapshot() { std::filesystem::remove_all(folder); }

  bool IsRight(const uint8_t* data, size_t bytes) const {
    return std::any_of(right.begin(), right.end(), [&](const auto& one) {
      return std::equal(data, data + bytes, one.begin(), one.end());
    });
  }

  SnapshotFile Replace(size_t i, const uint8_t* payload, size_t bytes) const {
    std::filesystem::remove(folder + "/" + files[i].name);
    SnapshotWriter writer(folder, files[i].name, kKinds[i]);
    writer.Bytes(payload, bytes);
    return *writer.Finish();
  }

 private:
  void Save() {
    const SampleBatch sample;
    const std::shared_ptr<const Batch> batch(std::shared_ptr<void>(), &sample.batch);
    auto trainer = MakeTrainer();
    std::promise<Status> paused;
    trainer->Pause(2, [&](Status status) { paused.set_value(std::move(status)); });
    for (int step = 1; step <= 4; ++step) {
      std::promise<Status> accepted;
      trainer->Push(batch, [&](Status status) { accepted.set_value(std::move(status)); });
      PERSIA_CHECK(accepted.get_future().get().ok());
    }
    PERSIA_CHECK(paused.get_future().get().ok());
    files = *trainer->Save(folder);
    PERSIA_CHECK(files.size() == std::size(kKinds));
  }

  static std::vector<uint8_t> Input(size_t file, const std::vector<uint8_t>& payload) {
    std::vector<uint8_t> input{static_cast<uint8_t>(file)};
    input.insert(input.end(), payload.begin(), payload.end());
    return input;
  }

  // Two rows as the first release wrote them: without layout, storage type, state and ages (trainer_snapshot.cc).
  static std::vector<uint8_t> FirstEmbedding() {
    std::vector<uint8_t> payload;
    const auto put = [&](auto value) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
      payload.insert(payload.end(), bytes, bytes + sizeof(value));
    };
    const uint32_t width = MakeTrainer()->store().row_width(0);
    for (const uint32_t head : {uint32_t{0}, kDim, width}) put(head);
    put(uint64_t{2});
    for (const uint64_t sign : {uint64_t{1}, uint64_t{2}}) {
      put(sign);
      for (uint32_t i = 0; i < width; ++i) put(0.5f);
    }
    return payload;
  }

  static std::vector<uint8_t> ReadPayload(const std::string& path, SnapshotKind kind) {
    auto reader = SnapshotReader::Open(path, kind);
    std::vector<uint8_t> payload;
    for (uint8_t byte; reader->Bytes(&byte, 1).ok();) payload.push_back(byte);
    return payload;
  }
};

const Snapshot& Base() {
  static const Snapshot snapshot;
  return snapshot;
}

void CheckInput(const uint8_t* data, size_t bytes) {
  if (bytes == 0) return;
  const Snapshot& base = Base();
  const size_t i = data[0] % base.files.size();
  std::vector<SnapshotFile> files = base.files;
  files[i] = base.Replace(i, data + 1, bytes - 1);

  auto trainer = MakeTrainer();
  const Status restored = trainer->Restore(base.folder, files);
  PERSIA_CHECK(restored.ok() || !base.IsRight(data, bytes));
  if (restored.ok()) {
    std::vector<float> outputs;
    PERSIA_CHECK(trainer->Predict(SampleBatch().batch, &outputs).ok());
    PERSIA_CHECK(outputs.size() == kRows);
  }
  base.Replace(i, base.payloads[i].data(), base.payloads[i].size());
}

}  // namespace
}  // namespace persia

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most_bytes, unsigned int seed) {
  const auto& right = persia::Base().right;
  const auto& input = right[seed % right.size()];
  if (bytes > 1 || input.size() > most_bytes) return LLVMFuzzerMutate(data, bytes, most_bytes);
  std::memcpy(data, input.data(), input.size());
  return input.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  persia::CheckInput(data, bytes);
  return 0;
}
