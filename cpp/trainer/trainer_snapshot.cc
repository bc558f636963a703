// How a trainer becomes files and comes back: one file for the pipeline, one for the network, one for each row class.
//
//   pipeline.bin     step u64 | samples u64 | applied requests: count u32, (worker u64, sequence u64)… |
//                    in flight: count u32, (step u64, rows u32, embedding width u32, pooled f32…)… |
//                    seen ids: features u32, (registers of a HyperLogLog u8…)…
//   dense.bin        tensors: count u32, (name, dimensions u32, sizes u64…, values f32…)…
//   embedding-C.bin  layout u32 | row class u32 | dim u32 | row width u32 | storage type u32 |
//                    state of the table: count u64, u64… | rows u64 | (sign u64, ticks u32, idle ms u64, row f32…)…
//
// The layout of embedding-C.bin is 2^31 + 2. The first release wrote no layout, storage type, state and ages: its files
// begin with the row class, which is below 2^31, and are still read; each of their rows, least recent first, counts as
// just looked up. It wrote no seen ids either: where pipeline.bin ends before them, counting them starts anew.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "trainer/trainer.h"

namespace persia {
namespace {

constexpr char kPipelineName[] = "pipeline.bin";
constexpr char kDenseName[] = "dense.bin";
constexpr uint32_t kMostNameBytes = 256;
constexpr uint32_t kLayoutMark = uint32_t{1} << 31;  // above it layouts, below it row classes
constexpr uint32_t kLayout = kLayoutMark + 2;

std::string EmbeddingName(uint32_t row_class) { return "embedding-" + std::to_string(row_class) + ".bin"; }

Status Mismatch(const std::string& path, const std::string& what) {
  return Status(ErrorCode::kCheckpointMismatch, path + ": " + what).With("file", path);
}

Result<SnapshotFile> SaveDense(const std::string& directory, DenseModel& model) {
  SnapshotWriter writer(directory, kDenseName, SnapshotKind::kDense);
  const std::vector<NamedTensor> tensors = model.Tensors();
  writer.Value(static_cast<uint32_t>(tensors.size()));
  for (const NamedTensor& tensor : tensors) {
    writer.Text(tensor.name);
    writer.Value(static_cast<uint32_t>(tensor.shape.size()));
    for (uint64_t size : tensor.shape) writer.Value(size);
    writer.Floats(tensor.values);
  }
  return writer.Finish();
}

Status RestoreTensor(SnapshotReader& reader, const std::string& path, const NamedTensor& tensor) {
  std::string name;
  uint32_t dimensions;
  PERSIA_RETURN_IF_ERROR(reader.Text(&name, kMostNameBytes));
  PERSIA_RETURN_IF_ERROR(reader.Value(&dimensions));
  if (name != tensor.name || dimensions != tensor.shape.size()) {
    return Mismatch(path, "expected tensor " + tensor.name + ", found " + name);
  }
  for (uint64_t expected : tensor.shape) {
    uint64_t size;
    PERSIA_RETURN_IF_ERROR(reader.Value(&size));
    if (size != expected) {
      return Mismatch(path, "tensor " + name + " has a side of " + std::to_string(size) + ", the model " +
                                std::to_string(expected));
    }
  }
  return reader.Floats(tensor.values);
}

Status RestoreDense(const std::string& directory, DenseModel& model) {
  const std::string path = directory + "/" + kDenseName;
  auto reader = SnapshotReader::Open(path, SnapshotKind::kDense);
  if (!reader.ok()) return reader.status();
  const std::vector<NamedTensor> tensors = model.Tensors();
  uint32_t count;
  PERSIA_RETURN_IF_ERROR(reader->Value(&count));
  if (count != tensors.size()) {
    return Mismatch(path, std::to_string(count) + " tensors, the model has " + std::to_string(tensors.size()));
  }
  for (const NamedTensor& tensor : tensors) PERSIA_RETURN_IF_ERROR(RestoreTensor(*reader, path, tensor));
  return reader->ExpectEnd();
}

Result<SnapshotFile> SaveClass(const std::string& directory, const ParameterStore& store, uint32_t row_class,
                               const TableOptions& table) {
  Result<std::vector<uint64_t>> state = store.SaveState(row_class);
  if (!state.ok()) return state.status();
  SnapshotWriter writer(directory, EmbeddingName(row_class), SnapshotKind::kEmbedding);
  writer.Value(kLayout);
  writer.Value(row_class);
  writer.Value(table.dim);
  writer.Value(store.row_width(row_class));
  writer.Value(static_cast<uint32_t>(table.storage));
  writer.Value(uint64_t{state->size()});
  writer.Bytes(state->data(), state->size() * sizeof(uint64_t));
  const uint64_t rows = store.counters(row_class).rows;
  writer.Value(rows);
  uint64_t written = 0;
  PERSIA_RETURN_IF_ERROR(store.Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge age) {
    writer.Value(sign);
    writer.Value(age.ticks);
    writer.Value(age.idle_ms);
    writer.Floats(row);
    ++written;
  }));
  PERSIA_CHECK(written == rows);  // at rest nobody inserts or evicts
  return writer.Finish();
}

// What stands in front of the rows of a row class.
struct ClassHead {
  bool has_ages = false;  // and a state
  uint32_t row_class = 0, dim = 0, width = 0;
  std::vector<uint64_t> state;
  uint64_t rows = 0;
};

Status ReadState(SnapshotReader& reader, const std::string& path, std::vector<uint64_t>* state) {
  uint64_t words;
  PERSIA_RETURN_IF_ERROR(reader.Value(&words));
  if (words > reader.file_bytes() / sizeof(uint64_t)) {
    return Status(ErrorCode::kCheckpointDamaged, path + " is damaged: it has an impossible number of state words")
        .With("file", path);
  }
  state->resize(words);
  return reader.Bytes(state->data(), words * sizeof(uint64_t));
}

Status ReadClassHead(SnapshotReader& reader, const std::string& path, ClassHead* head) {
  uint32_t first;
  PERSIA_RETURN_IF_ERROR(reader.Value(&first));
  if (first > kLayout) return Mismatch(path, "a later release wrote it; this one does not know its layout");
  if (first != kLayout && first >= kLayoutMark) return Mismatch(path, "its layout is one that no release wrote");
  head->has_ages = first == kLayout;
  head->row_class = first;
  if (head->has_ages) PERSIA_RETURN_IF_ERROR(reader.Value(&head->row_class));
  PERSIA_RETURN_IF_ERROR(reader.Value(&head->dim));
  PERSIA_RETURN_IF_ERROR(reader.Value(&head->width));
  if (head->has_ages) {
    uint32_t storage;  // of the table that was saved; the rows are f32 here and are rounded to ours
    PERSIA_RETURN_IF_ERROR(reader.Value(&storage));
    PERSIA_RETURN_IF_ERROR(ReadState(reader, path, &head->state));
  }
  return reader.Value(&head->rows);
}

Status RestoreClass(const std::string& directory, ParameterStore& store, uint32_t row_class, uint32_t dim) {
  const std::string path = directory + "/" + EmbeddingName(row_class);
  auto reader = SnapshotReader::Open(path, SnapshotKind::kEmbedding);
  if (!reader.ok()) return reader.status();
  ClassHead head;
  PERSIA_RETURN_IF_ERROR(ReadClassHead(*reader, path, &head));
  const uint32_t width = store.row_width(row_class);
  if (head.row_class != row_class || head.dim != dim || head.width != width) {
    return Mismatch(path, "rows of dim " + std::to_string(head.dim) + " and width " + std::to_string(head.width) +
                              ", the model has dim " + std::to_string(dim) + " and width " + std::to_string(width));
  }
  if (head.has_ages) {
    // The state of a table of another shape (capacity, say) is left out; the rows' ages still tell which are recent.
    const Result<bool> restored = store.RestoreState(row_class, head.state);
    if (!restored.ok()) return restored.status();
  }
  std::vector<float> row(width);
  for (uint64_t i = 0; i < head.rows; ++i) {
    uint64_t sign;
    std::optional<RowAge> age;
    PERSIA_RETURN_IF_ERROR(reader->Value(&sign));
    if (head.has_ages) {
      age.emplace();
      PERSIA_RETURN_IF_ERROR(reader->Value(&age->ticks));
      PERSIA_RETURN_IF_ERROR(reader->Value(&age->idle_ms));
    }
    PERSIA_RETURN_IF_ERROR(reader->Floats(row));
    PERSIA_RETURN_IF_ERROR(store.Write(row_class, sign, row, age));
  }
  return reader->ExpectEnd();
}

}  // namespace

// At rest nothing changes what is written here, so the lock is held only to look it up, not while the disk works.
Result<SnapshotFile> Trainer::SavePipeline(const std::string& directory) const {
  struct InFlight {
    const float* pooled;
    size_t rows, stride;
  };
  const size_t width = config_.schema.embedding_width;
  std::map<uint64_t, InFlight> in_flight;
  TrainerProgress totals;
  {
    std::lock_guard lock(mutex_);
    totals = totals_;
    for (const auto& [step, slot] : looked_up_) {
      in_flight[step] = {slot->input.data(), slot->rows, config_.dense.input_width()};
    }
    for (const auto& [step, pooled] : restored_lookups_) {
      in_flight[step] = {pooled.data(), pooled.size() / width, width};
    }
  }
  SnapshotWriter writer(directory, kPipelineName, SnapshotKind::kPipeline);
  writer.Value(totals.steps);
  writer.Value(totals.samples);
  const std::vector<RequestId> applied = store_->AppliedRequests();
  writer.Value(static_cast<uint32_t>(applied.size()));
  for (const RequestId& request : applied) {
    writer.Value(request.worker);
    writer.Value(request.sequence);
  }
  writer.Value(static_cast<uint32_t>(in_flight.size()));
  for (const auto& [step, lookup] : in_flight) {
    writer.Value(step);
    writer.Value(static_cast<uint32_t>(lookup.rows));
    writer.Value(static_cast<uint32_t>(width));
    for (size_t row = 0; row < lookup.rows; ++row) writer.Floats({lookup.pooled + row * lookup.stride, width});
  }
  const size_t features = config_.schema.features.size();
  writer.Value(static_cast<uint32_t>(features));
  for (size_t f = 0; f < features; ++f) writer.Bytes(worker_.SaveSeen(f).data(), HyperLogLog::kRegisters);
  return writer.Finish();
}

Status Trainer::RestorePipeline(const std::string& directory) {
  auto reader = SnapshotReader::Open(directory + "/" + kPipelineName, SnapshotKind::kPipeline);
  if (!reader.ok()) return reader.status();
  uint64_t step, samples;
  uint32_t applied_count;
  PERSIA_RETURN_IF_ERROR(reader->Value(&step));
  PERSIA_RETURN_IF_ERROR(reader->Value(&samples));
  PERSIA_RETURN_IF_ERROR(reader->Value(&applied_count));
  std::vector<RequestId> applied;
  for (uint32_t i = 0; i < applied_count; ++i) {
    RequestId request;
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.worker));
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.sequence));
    applied.push_back(request);
  }
  PERSIA_RETURN_IF_ERROR(RestoreInFlight(*reader));
  PERSIA_RETURN_IF_ERROR(RestoreSeen(*reader));
  store_->RestoreAppliedRequests(applied);
  prepared_ = step;
  gate_.StartAfter(step);
  std::lock_guard lock(mutex_);
  totals_.steps = step;
  totals_.samples = samples;
  return Status::Ok();
}

Status Trainer::RestoreInFlight(SnapshotReader& reader) {
  uint32_t count;
  PERSIA_RETURN_IF_ERROR(reader.Value(&count));
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t step;
    uint32_t rows, width;
    PERSIA_RETURN_IF_ERROR(reader.Value(&step));
    PERSIA_RETURN_IF_ERROR(reader.Value(&rows));
    PERSIA_RETURN_IF_ERROR(reader.Value(&width));
    if (width != config_.schema.embedding_width) {
      return Mismatch(kPipelineName, "embeddings of width " + std::to_string(width) + ", the model has " +
                                         std::to_string(config_.schema.embedding_width));
    }
    if (uint64_t{rows} * width > reader.file_bytes() / sizeof(float)) {
      return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has an impossible number of samples");
    }
    AlignedBuffer<float> pooled(size_t{rows} * width);
    PERSIA_RETURN_IF_ERROR(reader.Floats(pooled.span()));
    std::lock_guard lock(mutex_);
    restored_lookups_[step] = std::move(pooled);
  }
  return Status::Ok();
}

Status Trainer::RestoreSeen(SnapshotReader& reader) {
  Result<bool> without = reader.AtEnd();
  if (!without.ok()) return without.status();
  if (*without) return reader.ExpectEnd();
  uint32_t features;
  PERSIA_RETURN_IF_ERROR(reader.Value(&features));
  if (features != config_.schema.features.size()) {
    return Mismatch(kPipelineName, "seen ids of " + std::to_string(features) + " features, the model has " +
                                       std::to_string(config_.schema.features.size()));
  }
  std::vector<uint8_t> registers(HyperLogLog::kRegisters);
  for (size_t f = 0; f < features; ++f) {
    PERSIA_RETURN_IF_ERROR(reader.Bytes(registers.data(), registers.size()));
    if (worker_.RestoreSeen(f, registers)) continue;
    return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has impossible numbers of seen ids");
  }
  return reader.ExpectEnd();
}

Result<std::vector<SnapshotFile>> Trainer::Save(const std::string& directory) {
  if (Status status = failure(); !status.ok()) return status;
  if (!at_rest()) return Status(ErrorCode::kUsage, "a trainer can be saved only while it is at rest");
  std::vector<SnapshotFile> files;
  auto add = [&](Result<SnapshotFile> file) {
    if (file.ok()) files.push_back(*file);
    return file.status();
  };
  PERSIA_RETURN_IF_ERROR(add(SavePipeline(directory)));
  PERSIA_RETURN_IF_ERROR(add(SaveDense(directory, *model_)));
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(add(SaveClass(directory, *store_, c, config_.tables[c])));
  }
  return files;
}

Status Trainer::Restore(const std::string& directory, const std::vector<SnapshotFile>& files) {
  for (const SnapshotFile& file : files) PERSIA_RETURN_IF_ERROR(SnapshotReader::Verify(directory, file));
  std::lock_guard lock(model_mutex_);
  PERSIA_RETURN_IF_ERROR(store_->Clear());
  PERSIA_RETURN_IF_ERROR(RestoreDense(directory, *model_));
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(RestoreClass(directory, *store_, c, config_.schema.row_class_dims[c]));
  }
  return RestorePipeline(directory);
}

}  // namespace persia
