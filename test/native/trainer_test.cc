// The pipeline as a whole: learning, determinism, pauses, snapshots, failure.
#include "trainer_fixtures.h"

namespace persia {

TEST_CASE("training lowers the loss in sync and hybrid mode and respects the staleness bound") {
  for (uint64_t staleness : {0, 4}) {
    auto trainer = Make(SmallConfig(staleness, false));
    const TrainerProgress end = CheckLearns(*trainer);
    CHECK(end.most_staleness <= staleness);
    CHECK(end.staleness == 0);
  }
}

TEST_CASE("two deterministic runs end in the same bytes, for any staleness") {
  std::map<uint64_t, std::map<std::string, uint64_t>> states;
  for (uint64_t staleness : {0, 1, 3}) {
    for (int run = 0; run < 2; ++run) {
      auto trainer = Make(SmallConfig(staleness, true));
      Train(*trainer, 1, 40);
      const auto state = FinalState(*trainer);
      if (run == 0) states[staleness] = state;
      CHECK(state == states[staleness]);
    }
  }
  CHECK(states[0] != states[3]);  // staleness is real: it changes what is learnt
}

TEST_CASE("a run that was saved in the middle, at any step, ends like one that was not") {
  for (uint64_t staleness : {0, 2, 5}) {
    auto undisturbed = Make(SmallConfig(staleness, true));
    Train(*undisturbed, 1, 24);
    const auto expected = FinalState(*undisturbed);
    for (uint64_t stop : {1, 7, 19, 24}) {
      const auto batch = [](uint64_t step) { return MakeBatch(step); };
      CheckSavedInTheMiddle(SmallConfig(staleness, true), batch, stop, 24, expected);
    }
  }
}

namespace {

// Ways to keep rows that have more to remember than rows: each must leave a mark on the table.
struct TableVariant {
  const char* name;
  void (*set)(TableOptions& table);
  bool (*left_its_mark)(const TableCounters& counters);
  uint64_t distinct_ids = 50;  // a feature
};
const TableVariant kVariants[] = {
    {"least recent evicted", [](TableOptions& table) { table.capacity_rows = 40; },
     [](const TableCounters& counters) { return counters.evictions > 0 && counters.missed_updates > 0; }},
    {"least recent evicted from many", [](TableOptions& table) { table.capacity_rows = 1'200; },
     [](const TableCounters& counters) { return counters.evictions > 0; }, 1'000'000},
    {"least frequent evicted",
     [](TableOptions& table) {
       table.capacity_rows = 40;
       table.eviction = EvictionPolicy::kLfu;
     },
     [](const TableCounters& counters) { return counters.evictions > 0; }},
    {"capacity in bytes",
     [](TableOptions& table) {
       table.capacity_rows = 0;
       table.capacity_bytes = 4'096;
     },
     [](const TableCounters& counters) { return counters.evictions > 0 && counters.rows > 0; }},
    {"a capacity of its own for a group",
     [](TableOptions& table) { table.group_capacities = {{table.dim == kDim ? 1u : 3u, 10}}; },
     [](const TableCounters& counters) { return counters.evictions > 0; }},
    {"bf16", [](TableOptions& table) { table.storage = StorageType::kBf16; },
     [](const TableCounters& counters) { return counters.evictions == 0; }},
    {"fp16 and evicted",
     [](TableOptions& table) {
       table.storage = StorageType::kFp16;
       table.capacity_rows = 40;
     },
     [](const TableCounters& counters) { return counters.evictions > 0; }},
    {"admitted by frequency", [](TableOptions& table) { table.admit_frequency = 4; },
     [](const TableCounters& counters) { return counters.refused > 0 && counters.inserts > 0; }},
    {"admitted by probability", [](TableOptions& table) { table.admit_probability = 0.3; },
     [](const TableCounters& counters) { return counters.refused > 0 && counters.inserts > 0; }},
    {"bias correction by group",
     [](TableOptions& table) {
       table.optimizer.type = RowOptimizerType::kAdam;
       table.optimizer.bias_correction = BiasCorrection::kGroup;
       table.optimizer.eps = 1e-8f;
     },
     [](const TableCounters& counters) { return counters.inserts > 0; }},
};

TrainerConfig VariantConfig(const TableVariant& variant, uint64_t staleness) {
  TrainerConfig config = SmallConfig(staleness, true);
  for (TableOptions& table : config.tables) {
    table.prefix_bits = config.schema.prefix_bits;
    table.group_count = config.schema.group_count;
    variant.set(table);
  }
  return config;
}

// A trainer at rest after step `last`.
std::unique_ptr<Trainer> Trained(const TrainerConfig& config, uint64_t last) {
  auto trainer = Make(config);
  Train(*trainer, 1, last);
  Rest(*trainer);
  return trainer;
}

}  // namespace

TEST_CASE("a run that was saved in the middle ends like one that was not, however rows are kept") {
  for (const TableVariant& variant : kVariants) {
    const std::string name = variant.name;
    CAPTURE(name);
    for (uint64_t staleness : {0, 3}) {
      CAPTURE(staleness);
      const TrainerConfig config = VariantConfig(variant, staleness);
      auto undisturbed = Make(config);
      Train(*undisturbed, 1, 30, variant.distinct_ids);
      const auto expected = FinalState(*undisturbed);
      for (uint32_t c : {0, 1}) CHECK(variant.left_its_mark(undisturbed->store().counters(c)));
      for (uint64_t stop : {1, 17}) {
        const auto batch = [&](uint64_t step) { return MakeBatch(step, variant.distinct_ids); };
        CheckSavedInTheMiddle(config, batch, stop, 30, expected);
      }
    }
  }
}

TEST_CASE("an invalid batch is refused alone and training goes on") {
  auto trainer = Make(SmallConfig(2, false));
  Train(*trainer, 1, 3);
  auto bad = CopyOf(MakeBatch(4));
  bad->id_columns.pop_back();
  CHECK(PushAndWait(*trainer, bad).code() == ErrorCode::kBatchInvalid);
  Train(*trainer, 4, 6);
  REQUIRE(DrainAndWait(*trainer).ok());
  CHECK(trainer->progress().steps == 6);
}

TEST_CASE("a loss that is not finite stops the trainer after the steps before it were applied") {
  TrainerConfig config = SmallConfig(3, false);
  config.dense.optimizer.type = DenseOptimizerType::kSgd;
  config.dense.optimizer.lr = 1e30f;  // overflows after a step or two
  auto trainer = Make(config);
  for (uint64_t step = 1; step <= 10; ++step) trainer->Push(MakeBatch(step), [](Status) {});
  const Status failure = DrainAndWait(*trainer);
  REQUIRE(failure.code() == ErrorCode::kNonFiniteLoss);
  REQUIRE(failure.details().size() == 1);
  const uint64_t failed = std::stoull(failure.details()[0].second);
  CHECK(failed > 1);
  CHECK(failure.message().find("step " + std::to_string(failed)) != std::string::npos);
  CHECK(trainer->progress().steps == failed - 1);
  CHECK(PushAndWait(*trainer, MakeBatch(11)).code() == ErrorCode::kNonFiniteLoss);
  CHECK(trainer->Save("/tmp").status().code() == ErrorCode::kNonFiniteLoss);
}

TEST_CASE("prediction changes nothing and does not see ids that were never trained") {
  auto trainer = Make(SmallConfig(0, true));
  Train(*trainer, 1, 10);
  REQUIRE(DrainAndWait(*trainer).ok());
  const uint64_t rows_before = trainer->store().counters(0).rows;
  auto unknown = CopyOf(MakeBatch(11));
  const std::vector<uint64_t> ids(kRows, 123'456'789);
  for (IdColumn& column : unknown->id_columns) column.ids = ids;
  std::vector<float> first, second;
  REQUIRE(trainer->Predict(*unknown, &first).ok());
  REQUIRE(trainer->Predict(*unknown, &second).ok());
  CHECK(first == second);
  CHECK(first.size() == kRows);
  CHECK(trainer->store().counters(0).rows == rows_before);
}

TEST_CASE("prediction while training is running is safe") {
  auto trainer = Make(SmallConfig(4, false));
  std::thread predicting([&] {
    std::vector<float> outputs;
    for (int i = 0; i < 50; ++i) CHECK(trainer->Predict(*MakeBatch(1000), &outputs).ok());
  });
  Train(*trainer, 1, 60);
  predicting.join();
  CHECK(DrainAndWait(*trainer).ok());
}

TEST_CASE("a trainer that is closed in the middle ends everything that waits with PERSIA_CLOSED") {
  for (const size_t accepted : {0, 1, 5}) CheckClosedInTheMiddle(SmallConfig(1, true), accepted);
}

TEST_CASE("a drain after which more batches come leaves pauses at later steps alone") {
  auto trainer = Make(SmallConfig(2, true));
  Waiter paused, drained;
  trainer->Pause(5, paused.completion());
  Train(*trainer, 1, 3);
  trainer->Drain(drained.completion(), true);
  CHECK(drained.Wait().ok());
  for (uint64_t step = 4; step <= 8; ++step) trainer->Push(MakeBatch(step), [](Status) {});
  CHECK(paused.Wait().ok());
  CHECK(trainer->progress().steps == 5);
  trainer->Resume();
  CHECK(DrainAndWait(*trainer).ok());
}

TEST_CASE("saving is refused unless the trainer is at rest") {
  auto trainer = Make(SmallConfig(0, false));
  CHECK(trainer->Save("/tmp").status().code() == ErrorCode::kUsage);
}

TEST_CASE("several pauses are reached in the order of their steps and each is ended by itself") {
  auto trainer = Make(SmallConfig(2, true));
  Waiter at_five, at_two, again_at_two, now;
  trainer->Pause(5, at_five.completion());
  trainer->Pause(2, at_two.completion());
  trainer->Pause(2, again_at_two.completion());
  for (uint64_t step = 1; step <= 12; ++step) trainer->Push(MakeBatch(step), [](Status) {});
  CHECK(at_two.Wait().ok());
  CHECK(again_at_two.Wait().ok());
  CHECK(trainer->progress().steps == 2);
  trainer->Resume();
  CHECK(trainer->at_rest());  // the other pause at step 2 still holds
  trainer->Pause(std::nullopt, now.completion());
  CHECK(now.Wait().ok());
  trainer->Resume();
  trainer->Resume();
  CHECK(at_five.Wait().ok());
  CHECK(trainer->progress().steps == 5);
  trainer->Resume();
  CHECK(DrainAndWait(*trainer).ok());
  CHECK(trainer->progress().steps == 12);
}

TEST_CASE("a drain withdraws the pauses at steps that were not pushed") {
  auto trainer = Make(SmallConfig(0, false));
  Waiter reachable, unreachable;
  trainer->Pause(7, unreachable.completion());
  trainer->Pause(2, reachable.completion());
  Train(*trainer, 1, 2);
  Waiter drained;
  trainer->Drain(drained.completion());
  CHECK(unreachable.Wait().code() == ErrorCode::kAborted);
  CHECK(reachable.Wait().ok());
  trainer->Resume();
  CHECK(drained.Wait().ok());
  Train(*trainer, 3, 9);
  CHECK(DrainAndWait(*trainer).ok());
}

TEST_CASE("what is pushed while a trainer is saved is looked up afterwards") {
  for (bool deterministic : {false, true}) {
    auto trainer = Make(SmallConfig(5, deterministic));
    Train(*trainer, 1, 3);
    REQUIRE(DrainAndWait(*trainer).ok());
    Waiter paused;
    trainer->Pause(std::nullopt, paused.completion());
    REQUIRE(paused.Wait().ok());
    for (uint64_t step = 4; step <= 9; ++step) trainer->Push(MakeBatch(1000 + step), [](Status) {});
    for (int round = 0; round < 20; ++round) {
      Saved saved(*trainer);
      CHECK(Make(SmallConfig(5, deterministic))->Restore(saved.path, saved.files).ok());
    }
    trainer->Resume();
    REQUIRE(DrainAndWait(*trainer).ok());
    CHECK(trainer->progress().steps == 9);
  }
}

TEST_CASE("a restored trainer that is saved again before it goes on keeps what was in flight") {
  auto undisturbed = Make(SmallConfig(4, true));
  Train(*undisturbed, 1, 20);
  const auto expected = FinalState(*undisturbed);
  auto first = Make(SmallConfig(4, true));
  Waiter paused;
  first->Pause(6, paused.completion());
  for (uint64_t step = 1; step <= 20; ++step) first->Push(MakeBatch(step), [](Status) {});
  REQUIRE(paused.Wait().ok());
  Saved saved(*first);
  for (uint64_t handed_in : {0, 2}) {
    auto second = Make(SmallConfig(4, true));
    REQUIRE(second->Restore(saved.path, saved.files).ok());
    Waiter rest;
    second->Pause(6, rest.completion());
    for (uint64_t step = 7; step < 7 + handed_in; ++step) second->Push(MakeBatch(step), [](Status) {});
    REQUIRE(rest.Wait().ok());
    Saved again(*second);
    CHECK(again.Checksums() == saved.Checksums());
    auto third = Make(SmallConfig(4, true));
    REQUIRE(third->Restore(again.path, again.files).ok());
    Train(*third, 7, 20);
    CHECK(FinalState(*third) == expected);
  }
}

TEST_CASE("a closed trainer refuses everything with PERSIA_CLOSED") {
  auto trainer = Make(SmallConfig(0, false));
  Train(*trainer, 1, 2);
  trainer->Close();
  trainer->Close();
  std::vector<float> outputs;
  CHECK(PushAndWait(*trainer, MakeBatch(3)).code() == ErrorCode::kClosed);
  CHECK(DrainAndWait(*trainer).code() == ErrorCode::kClosed);
  CHECK(trainer->Predict(*MakeBatch(3), &outputs).code() == ErrorCode::kClosed);
  CHECK(trainer->Save("/tmp").status().code() == ErrorCode::kClosed);
}

TEST_CASE("a label of a bce task outside of 0 to 1 is refused with its sample") {
  auto trainer = Make(SmallConfig(0, false));
  auto bad = CopyOf(MakeBatch(1));
  std::vector<float> labels(kRows, 1.0f);
  labels[3] = 5.0f;
  bad->labels = labels;
  const Status status = PushAndWait(*trainer, bad);
  CHECK(status.code() == ErrorCode::kBatchInvalid);
  CHECK(status.message().find("click of sample 3") != std::string::npos);
}

TEST_CASE("a snapshot of another model is refused with what differs") {
  auto trainer = Make(SmallConfig(0, true));
  Train(*trainer, 1, 3);
  Rest(*trainer);
  Saved saved(*trainer);
  TrainerConfig other = SmallConfig(0, true);
  other.dense.hidden = {16, 9};
  const Status status = Make(other)->Restore(saved.path, saved.files);
  CHECK(status.code() == ErrorCode::kCheckpointMismatch);
  CHECK(status.message().find("layer.1.weight") != std::string::npos);
}

namespace {

std::map<uint64_t, std::vector<float>> RowsOf(Trainer& trainer, uint32_t row_class) {
  std::map<uint64_t, std::vector<float>> rows;
  REQUIRE(trainer.store().Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge) {
    rows[sign] = {row.begin(), row.end()};
  }).ok());
  return rows;
}

// Writes a file of a saved snapshot anew.
template <typename Write>
void Rewrite(Saved& saved, const std::string& name, SnapshotKind kind, Write write) {
  std::filesystem::remove(saved.path + "/" + name);
  SnapshotWriter writer(saved.path, name, kind);
  write(writer);
  for (SnapshotFile& file : saved.files) {
    if (file.name == name) file = *writer.Finish();
  }
}

}  // namespace

TEST_CASE("a snapshot loads into tables of more room, and of another storage type within its precision") {
  const auto trainer = Trained(SmallConfig(0, true), 30);
  const Saved saved(*trainer);
  for (StorageType storage : {StorageType::kFp32, StorageType::kBf16}) {
    TrainerConfig config = SmallConfig(0, true);
    for (TableOptions& table : config.tables) {
      table.storage = storage;
      table.capacity_rows = 50'000;
    }
    auto loaded = Make(config);
    REQUIRE(loaded->Restore(saved.path, saved.files).ok());
    const float tolerance = storage == StorageType::kFp32 ? 0.0f : 0x1.0p-8f;  // bf16 has 8 bits
    for (uint32_t c : {0, 1}) {
      const auto expected = RowsOf(*trainer, c), found = RowsOf(*loaded, c);
      REQUIRE(found.size() == expected.size());
      for (const auto& [sign, row] : expected) {
        REQUIRE(found.contains(sign));
        for (size_t i = 0; i < row.size(); ++i) {
          CHECK(std::abs(found.at(sign)[i] - row[i]) <= tolerance * std::abs(row[i]));
        }
      }
    }
    Train(*loaded, 31, 40);
    CHECK(DrainAndWait(*loaded).ok());
  }
}

TEST_CASE("a snapshot loads into tables of less room, which then are full") {
  const auto trainer = Trained(SmallConfig(0, true), 30);
  const Saved saved(*trainer);
  TrainerConfig config = SmallConfig(0, true);
  for (TableOptions& table : config.tables) table.capacity_rows = 30;
  auto loaded = Make(config);
  REQUIRE(loaded->Restore(saved.path, saved.files).ok());
  for (uint32_t c : {0, 1}) {
    const auto before = RowsOf(*trainer, c), kept = RowsOf(*loaded, c);
    REQUIRE(before.size() > 30);
    CHECK(kept.size() <= 30);
    CHECK(kept.size() > 15);
    for (const auto& [sign, row] : kept) CHECK(before.at(sign) == row);
  }
  Train(*loaded, 31, 40);
  CHECK(DrainAndWait(*loaded).ok());
}

TEST_CASE("the ids that training has seen are counted on after a restore, each once") {
  const TrainerConfig config = SmallConfig(0, true);
  const auto undisturbed = Trained(config, 40), first = Trained(config, 20);
  const Saved saved(*first);
  auto resumed = Make(config);
  REQUIRE(resumed->Restore(saved.path, saved.files).ok());
  for (size_t f = 0; f < kFeatures; ++f) {
    CHECK(first->counters().distinct[f] > 40);
    CHECK(resumed->counters().distinct[f] == first->counters().distinct[f]);
  }
  Train(*resumed, 21, 40);
  REQUIRE(DrainAndWait(*resumed).ok());
  for (size_t f = 0; f < kFeatures; ++f) {
    CHECK(resumed->counters().distinct[f] == undisturbed->counters().distinct[f]);
  }
}

TEST_CASE("a pipeline file of the first release, without seen ids, still loads, wrong ones are refused") {
  const auto trainer = Trained(SmallConfig(0, true), 20);
  Saved saved(*trainer);
  const auto restored = [&](uint32_t features, size_t registers, uint8_t rank) {
    Rewrite(saved, "pipeline.bin", SnapshotKind::kPipeline, [&](SnapshotWriter& writer) {
      for (const uint64_t total : {uint64_t{20}, uint64_t{20 * kRows}}) writer.Value(total);
      for (const uint32_t count : {0u, 0u}) writer.Value(count);  // applied requests, batches in flight
      if (features == 0) return;
      writer.Value(features);
      const std::vector<uint8_t> ranks(registers, rank);
      writer.Bytes(ranks.data(), ranks.size());
    });
    auto loaded = Make(SmallConfig(0, true));
    const Status status = loaded->Restore(saved.path, saved.files);
    if (status.ok()) {
      CHECK(loaded->progress().steps == 20);
      CHECK(loaded->counters().distinct[0] == 0);
    }
    return status.code();
  };
  constexpr size_t kAll = kFeatures * HyperLogLog::kRegisters;
  CHECK(restored(0, 0, 0) == ErrorCode::kOk);
  CHECK(restored(kFeatures, kAll, 0) == ErrorCode::kOk);
  CHECK(restored(kFeatures + 1, kAll, 0) == ErrorCode::kCheckpointMismatch);
  CHECK(restored(kFeatures, kAll - 1, 0) == ErrorCode::kCheckpointDamaged);
  CHECK(restored(kFeatures, kAll + 1, 0) == ErrorCode::kCheckpointDamaged);
  CHECK(restored(kFeatures, kAll, HyperLogLog::kMostRank + 1) == ErrorCode::kCheckpointDamaged);
}

namespace {

template <typename T>
T Copied(SnapshotReader& from, SnapshotWriter* to) {
  T value;
  REQUIRE(from.Value(&value).ok());
  if (to != nullptr) to->Value(value);
  return value;
}

// A pipeline file of one worker as it was before there were several: without mark and first rows, and what follows the
// seen ids.
void WriteAsOfOneWorker(const std::string& path, SnapshotWriter& writer) {
  auto opened = SnapshotReader::Open(path, SnapshotKind::kPipeline);
  SnapshotReader& reader = *opened;
  for (int i = 0; i < 2; ++i) Copied<uint64_t>(reader, &writer);  // step, samples
  for (auto left = 2 * Copied<uint32_t>(reader, &writer); left > 0; --left) Copied<uint64_t>(reader, &writer);
  const uint32_t lookups = Copied<uint32_t>(reader, nullptr) - (uint32_t{1} << 31);
  REQUIRE(lookups > 0);
  writer.Value(lookups);
  for (uint32_t i = 0; i < lookups; ++i) {
    Copied<uint64_t>(reader, &writer);
    const auto rows = Copied<uint32_t>(reader, &writer);
    CHECK(Copied<uint32_t>(reader, nullptr) == 0);  // first row
    CHECK(Copied<uint32_t>(reader, nullptr) == rows);
    const auto width = Copied<uint32_t>(reader, &writer);
    for (uint32_t value = 0; value < rows * width; ++value) Copied<float>(reader, &writer);
  }
  for (auto left = Copied<uint32_t>(reader, &writer) * HyperLogLog::kRegisters; left > 0; --left) {
    Copied<uint8_t>(reader, &writer);
  }
}

}  // namespace

TEST_CASE("a pipeline file from before there were several NN workers, with lookups in flight, still loads") {
  const TrainerConfig config = SmallConfig(3, true);
  auto undisturbed = Make(config);
  Train(*undisturbed, 1, 20);
  auto first = Make(config);
  Waiter paused;
  first->Pause(6, paused.completion());
  for (uint64_t step = 1; step <= 20; ++step) first->Push(MakeBatch(step), [](Status) {});
  REQUIRE(paused.Wait().ok());
  Saved saved(*first);
  std::filesystem::copy(saved.path + "/pipeline.bin", saved.path + "/new.bin");
  Rewrite(saved, "pipeline.bin", SnapshotKind::kPipeline,
          [&](SnapshotWriter& writer) { WriteAsOfOneWorker(saved.path + "/new.bin", writer); });
  auto second = Make(config);
  REQUIRE(second->Restore(saved.path, saved.files).ok());
  Train(*second, 7, 20);
  CHECK(FinalState(*second) == FinalState(*undisturbed));
}

TEST_CASE("embedding files of the first release, without ages and state, still load") {
  const auto trainer = Trained(SmallConfig(0, true), 20);
  Saved saved(*trainer);
  for (uint32_t c : {0, 1}) {
    const auto rows = RowsOf(*trainer, c);
    Rewrite(saved, "embedding-" + std::to_string(c) + ".bin", SnapshotKind::kEmbedding, [&](SnapshotWriter& writer) {
      writer.Value(c);
      writer.Value(trainer->config().tables[c].dim);
      writer.Value(trainer->store().row_width(c));
      writer.Value(uint64_t{rows.size()});
      for (const auto& [sign, row] : rows) {
        writer.Value(sign);
        writer.Floats(row);
      }
    });
  }
  auto loaded = Make(SmallConfig(0, true));
  REQUIRE(loaded->Restore(saved.path, saved.files).ok());
  for (uint32_t c : {0, 1}) CHECK(RowsOf(*loaded, c) == RowsOf(*trainer, c));
  std::vector<float> expected, found;
  REQUIRE(trainer->Predict(*MakeBatch(1'000), &expected).ok());
  REQUIRE(loaded->Predict(*MakeBatch(1'000), &found).ok());
  CHECK(found == expected);
}

TEST_CASE("an embedding file of a layout that this release does not know, or with an impossible state, is refused") {
  const auto trainer = Trained(SmallConfig(0, true), 3);
  Saved saved(*trainer);
  const auto refusal = [&](auto write) {
    Rewrite(saved, "embedding-0.bin", SnapshotKind::kEmbedding, write);
    return Make(SmallConfig(0, true))->Restore(saved.path, saved.files);
  };
  constexpr uint32_t kMark = uint32_t{1} << 31;
  const Status later = refusal([](SnapshotWriter& writer) { writer.Value(kMark + 3); });
  CHECK(later.code() == ErrorCode::kCheckpointMismatch);
  CHECK(later.message().find("a later release") != std::string::npos);
  CHECK(refusal([](SnapshotWriter& writer) { writer.Value(kMark + 1); }).code() == ErrorCode::kCheckpointMismatch);
  const Status damaged = refusal([](SnapshotWriter& writer) {
    for (uint32_t word : {kMark + 2, 0u, kDim, 2 * kDim, 0u}) writer.Value(word);
    writer.Value(uint64_t{1} << 60);
  });
  CHECK(damaged.code() == ErrorCode::kCheckpointDamaged);
  CHECK(damaged.message().find("state words") != std::string::npos);
}

}  // namespace persia
