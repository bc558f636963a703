#include "trainer/snapshot_files.h"

#include <algorithm>
#include <cmath>

#include "base/copy.h"
#include "base/hyperloglog.h"

namespace persia {
namespace {

constexpr char kPipelineName[] = "pipeline.bin";
constexpr char kDenseName[] = "dense.bin";
constexpr uint32_t kMostNameBytes = 256;
constexpr uint32_t kLayoutMark = uint32_t{1} << 31;  // above it layouts, below it row classes
constexpr uint32_t kLayout = kLayoutMark + 2;
constexpr uint32_t kPartsMark = uint32_t{1} << 31;  // on the number of lookups in flight: they are parts of steps

std::string EmbeddingName(uint32_t row_class) { return "embedding-" + std::to_string(row_class) + ".bin"; }

Status Mismatch(const std::string& path, const std::string& what) {
  return Status(ErrorCode::kCheckpointMismatch, path + ": " + what).With("file", path);
}

}  // namespace

Result<SnapshotFile> WriteDense(const std::string& directory, std::span<const NamedTensor> tensors) {
  SnapshotWriter writer(directory, kDenseName, SnapshotKind::kDense);
  writer.Value(static_cast<uint32_t>(tensors.size()));
  for (const NamedTensor& tensor : tensors) {
    writer.Text(tensor.name);
    writer.Value(static_cast<uint32_t>(tensor.shape.size()));
    for (uint64_t size : tensor.shape) writer.Value(size);
    writer.Floats(tensor.values);
  }
  return writer.Finish();
}

namespace {

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

}  // namespace

Status ReadDense(const std::string& directory, std::span<const NamedTensor> tensors) {
  const std::string path = directory + "/" + kDenseName;
  auto reader = SnapshotReader::Open(path, SnapshotKind::kDense);
  if (!reader.ok()) return reader.status();
  uint32_t count;
  PERSIA_RETURN_IF_ERROR(reader->Value(&count));
  if (count != tensors.size()) {
    return Mismatch(path, std::to_string(count) + " tensors, the model has " + std::to_string(tensors.size()));
  }
  for (const NamedTensor& tensor : tensors) PERSIA_RETURN_IF_ERROR(RestoreTensor(*reader, path, tensor));
  return reader->ExpectEnd();
}

namespace {

}  // namespace

Result<SnapshotFile> WriteClass(const std::string& directory, const ParameterStore& store, uint32_t row_class,
                               const TableOptions& table) {
  const Result<uint64_t> rows = store.RowCount(row_class);
  if (!rows.ok()) return rows.status();
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
  writer.Value(rows.value());
  uint64_t written = 0;
  PERSIA_RETURN_IF_ERROR(store.Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge age) {
    writer.Value(sign);
    writer.Value(age.ticks);
    writer.Value(age.idle_ms);
    writer.Floats(row);
    ++written;
  }));
  PERSIA_CHECK(written == rows.value());  // at rest nobody inserts or evicts
  return writer.Finish();
}

namespace {

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

constexpr size_t kRowsAtOnce = 1024;

Status ReadRows(SnapshotReader& reader, const ClassHead& head, ParameterStore& store) {
  std::vector<uint64_t> signs;
  std::vector<float> rows;
  std::vector<RowAge> ages;
  for (uint64_t left = head.rows; left > 0; left -= signs.size()) {
    signs.resize(std::min<uint64_t>(left, kRowsAtOnce));
    rows.resize(signs.size() * head.width);
    ages.resize(head.has_ages ? signs.size() : 0);
    for (size_t i = 0; i < signs.size(); ++i) {
      PERSIA_RETURN_IF_ERROR(reader.Value(&signs[i]));
      if (head.has_ages) {
        PERSIA_RETURN_IF_ERROR(reader.Value(&ages[i].ticks));
        PERSIA_RETURN_IF_ERROR(reader.Value(&ages[i].idle_ms));
      }
      PERSIA_RETURN_IF_ERROR(reader.Floats(std::span(rows).subspan(i * head.width, head.width)));
    }
    PERSIA_RETURN_IF_ERROR(store.WriteMany(head.row_class, signs, rows, ages));
  }
  return Status::Ok();
}

}  // namespace

Status ReadClass(const std::string& directory, ParameterStore& store, uint32_t row_class, uint32_t dim) {
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
  PERSIA_RETURN_IF_ERROR(ReadRows(*reader, head, store));
  return reader->ExpectEnd();
}

namespace {

constexpr uint64_t kMostWorkers = 4096;

Status BadSamples() {
  return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has an impossible number of samples");
}

}  // namespace

std::optional<AlignedBuffer<float>> RestoredLookup::PartOf(uint32_t rank, uint32_t workers) const {
  const PartRows part = PartOfWorker(global_rows, rank, workers);
  const auto begin = known.begin() + part.begin;
  if (std::find(begin, begin + part.rows, false) != begin + part.rows) return std::nullopt;
  const size_t width = global_rows == 0 ? 0 : pooled.size() / global_rows;
  AlignedBuffer<float> rows(part.rows * width);
  CopyFloats(rows.data(), pooled.data() + part.begin * width, rows.size());
  return rows;
}

Result<SnapshotFile> WritePipeline(const std::string& directory, const PipelineState& state, uint32_t width) {
  SnapshotWriter writer(directory, kPipelineName, SnapshotKind::kPipeline);
  writer.Value(state.steps);
  writer.Value(state.samples);
  writer.Value(static_cast<uint32_t>(state.applied.size()));
  for (const RequestId& request : state.applied) {
    writer.Value(request.worker);
    writer.Value(request.sequence);
  }
  writer.Value(kPartsMark + static_cast<uint32_t>(state.in_flight.size()));
  for (const InFlight& lookup : state.in_flight) {
    writer.Value(lookup.step);
    for (const uint32_t value : {lookup.global_rows, lookup.first_row, lookup.rows, width}) writer.Value(value);
    for (size_t row = 0; row < lookup.rows; ++row) writer.Floats({lookup.pooled + row * lookup.stride, width});
  }
  writer.Value(static_cast<uint32_t>(state.seen.size()));
  for (const auto& registers : state.seen) writer.Bytes(registers.data(), registers.size());
  writer.Value(state.dense_updates);
  writer.Value(state.workers);
  writer.Value(state.scaling.scale);
  writer.Value(state.scaling.good_steps);
  writer.Value(state.scaling.skipped);
  return writer.Finish();
}

namespace {

// Puts the parts of each step together as they come: by step, then by row.
Status ReadInFlight(SnapshotReader& reader, uint32_t embedding_width, std::vector<RestoredLookup>* lookups) {
  uint32_t count;
  PERSIA_RETURN_IF_ERROR(reader.Value(&count));
  const bool parts = count >= kPartsMark;
  for (uint32_t i = 0; i < count % kPartsMark; ++i) {
    uint64_t step;
    uint32_t global_rows, first_row = 0, rows, width;
    PERSIA_RETURN_IF_ERROR(reader.Value(&step));
    PERSIA_RETURN_IF_ERROR(reader.Value(&global_rows));
    rows = global_rows;
    if (parts) PERSIA_RETURN_IF_ERROR(reader.Value(&first_row));
    if (parts) PERSIA_RETURN_IF_ERROR(reader.Value(&rows));
    PERSIA_RETURN_IF_ERROR(reader.Value(&width));
    if (width != embedding_width) {
      return Mismatch(kPipelineName, "embeddings of width " + std::to_string(width) + ", the model has " +
                                         std::to_string(embedding_width));
    }
    if (lookups->empty() || step != lookups->back().step || global_rows != lookups->back().global_rows) {
      // As many parts as there were workers: more rows than this can't come from the file.
      if (uint64_t{global_rows} * width > kMostWorkers * (reader.file_bytes() / sizeof(float))) return BadSamples();
      lookups->push_back({step, global_rows, AlignedBuffer<float>(size_t{global_rows} * width),
                          std::vector<bool>(global_rows)});
    }
    if (uint64_t{first_row} + rows > global_rows) return BadSamples();
    RestoredLookup& lookup = lookups->back();
    PERSIA_RETURN_IF_ERROR(
        reader.Floats(lookup.pooled.span().subspan(size_t{first_row} * width, size_t{rows} * width)));
    std::fill_n(lookup.known.begin() + first_row, rows, true);
  }
  return Status::Ok();
}

Status ReadSeen(SnapshotReader& reader, size_t expected, std::vector<std::vector<uint8_t>>* seen) {
  Result<bool> without = reader.AtEnd();
  if (!without.ok()) return without.status();
  if (*without) return Status::Ok();
  uint32_t features;
  PERSIA_RETURN_IF_ERROR(reader.Value(&features));
  if (features != expected) {
    return Mismatch(kPipelineName, "seen ids of " + std::to_string(features) + " features, the model has " +
                                       std::to_string(expected));
  }
  for (size_t f = 0; f < features; ++f) {
    seen->emplace_back(HyperLogLog::kRegisters);
    PERSIA_RETURN_IF_ERROR(reader.Bytes(seen->back().data(), seen->back().size()));
  }
  return Status::Ok();
}

Status ReadScaling(SnapshotReader& reader, std::optional<LossScaler::State>* scaling) {
  Result<bool> without = reader.AtEnd();
  if (!without.ok()) return without.status();
  if (*without) return Status::Ok();
  LossScaler::State& state = scaling->emplace();
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.scale));
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.good_steps));
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.skipped));
  if (std::isfinite(state.scale)) return Status::Ok();
  return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has an impossible loss scale");
}

}  // namespace

Status ImpossibleSeen() {
  return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has impossible numbers of seen ids");
}

Result<RestoredPipeline> ReadPipeline(const std::string& directory, const FeatureSchema& schema) {
  auto reader = SnapshotReader::Open(directory + "/" + kPipelineName, SnapshotKind::kPipeline);
  if (!reader.ok()) return reader.status();
  RestoredPipeline state;
  uint32_t applied;
  PERSIA_RETURN_IF_ERROR(reader->Value(&state.steps));
  PERSIA_RETURN_IF_ERROR(reader->Value(&state.samples));
  PERSIA_RETURN_IF_ERROR(reader->Value(&applied));
  for (uint32_t i = 0; i < applied; ++i) {
    RequestId request;  // at rest every worker has applied all up to `steps`: there is nothing more to know
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.worker));
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.sequence));
  }
  PERSIA_RETURN_IF_ERROR(ReadInFlight(*reader, schema.embedding_width, &state.lookups));
  PERSIA_RETURN_IF_ERROR(ReadSeen(*reader, schema.features.size(), &state.seen));
  state.dense_updates = state.steps;
  Result<bool> without = reader->AtEnd();
  if (!without.ok()) return without.status();
  if (!*without) {
    uint32_t workers_before;
    PERSIA_RETURN_IF_ERROR(reader->Value(&state.dense_updates));
    PERSIA_RETURN_IF_ERROR(reader->Value(&workers_before));
  }
  PERSIA_RETURN_IF_ERROR(ReadScaling(*reader, &state.scaling));
  PERSIA_RETURN_IF_ERROR(reader->ExpectEnd());
  return state;
}

}  // namespace persia
