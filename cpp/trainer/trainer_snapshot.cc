// How a trainer becomes files and comes back: one file for the pipeline, one for the network, one for each row class.
//
//   pipeline.bin     step u64 | samples u64 | applied requests: count u32, (worker u64, sequence u64)… |
//                    in flight: 2^31 + count u32,
//                      (step u64, rows of the step u32, first row u32, rows u32, embedding width u32, pooled f32…)… |
//                    seen ids: features u32, (registers of a HyperLogLog u8…)… |
//                    updates of the dense optimizer u64 | NN workers u32 |
//                    loss scale f32 | good steps since it changed u32 | skipped steps u64
//   dense.bin        tensors: count u32, (name, dimensions u32, sizes u64…, values f32…)…
//   embedding-C.bin  layout u32 | row class u32 | dim u32 | row width u32 | storage type u32 |
//                    state of the table: count u64, u64… | rows u64 | (sign u64, ticks u32, idle ms u64, row f32…)…
//
// The layout of embedding-C.bin is 2^31 + 2. The first release wrote no layout, storage type, state and ages: its files
// begin with the row class, which is below 2^31, and are still read; each of their rows, least recent first, counts as
// just looked up. It wrote no seen ids either: where pipeline.bin ends before them, counting them starts anew. Files of
// one NN worker only have no mark on the number of lookups in flight, which are (step, rows, width, pooled…), and end
// with the seen ids. Others end before the loss scale: then it starts as configured.
//
// Nothing in a snapshot depends on the number of NN workers but the order of its lookups in flight: those of a step are
// put together and shared out among the workers that there are.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "base/copy.h"
#include "trainer/trainer.h"

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
  PERSIA_RETURN_IF_ERROR(model.WriteTensors());
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

constexpr uint64_t kMostWorkers = 4096;

Status BadSamples() {
  return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has an impossible number of samples");
}

}  // namespace

// By step, then by row. At rest nothing changes what they point to.
std::vector<InFlight> Trainer::InFlightLookups() const {
  std::vector<InFlight> all;
  for (const auto& worker : workers_) std::ranges::copy(worker->in_flight(), std::back_inserter(all));
  std::ranges::stable_sort(all, {}, &InFlight::step);
  return all;
}

Result<SnapshotFile> Trainer::SavePipeline(const std::string& directory) const {
  const uint32_t width = config_.schema.embedding_width;
  const TrainerProgress totals = progress();
  SnapshotWriter writer(directory, kPipelineName, SnapshotKind::kPipeline);
  writer.Value(totals.steps);
  writer.Value(totals.samples);
  const std::vector<RequestId> applied = store_->AppliedRequests();
  writer.Value(static_cast<uint32_t>(applied.size()));
  for (const RequestId& request : applied) {
    writer.Value(request.worker);
    writer.Value(request.sequence);
  }
  const std::vector<InFlight> in_flight = InFlightLookups();
  writer.Value(kPartsMark + static_cast<uint32_t>(in_flight.size()));
  for (const InFlight& lookup : in_flight) {
    writer.Value(lookup.step);
    for (const uint32_t value : {lookup.global_rows, lookup.first_row, lookup.rows, width}) writer.Value(value);
    for (size_t row = 0; row < lookup.rows; ++row) writer.Floats({lookup.pooled + row * lookup.stride, width});
  }
  const size_t features = config_.schema.features.size();
  writer.Value(static_cast<uint32_t>(features));
  for (size_t f = 0; f < features; ++f) writer.Bytes(worker_.SaveSeen(f).data(), HyperLogLog::kRegisters);
  const LossScaler::State scaling = scalers_[0]->state();
  const uint64_t skipped = scaling.skipped - skipped_before_;
  writer.Value(dense_store_ != nullptr ? dense_store_->updates()
                                       : totals.steps + static_cast<uint64_t>(dense_ahead_) - skipped);
  writer.Value(workers());
  writer.Value(scaling.scale);
  writer.Value(scaling.good_steps);
  writer.Value(scaling.skipped);
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
  for (uint32_t i = 0; i < applied_count; ++i) {
    RequestId request;  // at rest every worker has applied all up to `step`: there is nothing more to know
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.worker));
    PERSIA_RETURN_IF_ERROR(reader->Value(&request.sequence));
  }
  PERSIA_RETURN_IF_ERROR(RestoreInFlight(*reader));
  PERSIA_RETURN_IF_ERROR(RestoreSeen(*reader));
  uint64_t dense_updates = step;
  uint32_t workers_before = 1;
  Result<bool> without = reader->AtEnd();
  if (!without.ok()) return without.status();
  if (!*without) {
    PERSIA_RETURN_IF_ERROR(reader->Value(&dense_updates));
    PERSIA_RETURN_IF_ERROR(reader->Value(&workers_before));
  }
  PERSIA_RETURN_IF_ERROR(RestoreScaling(*reader));
  PERSIA_RETURN_IF_ERROR(reader->ExpectEnd());
  StartAfter(step, dense_updates);
  std::lock_guard lock(mutex_);
  samples_ = samples;
  return Status::Ok();
}

void Trainer::StartAfter(uint64_t step, uint64_t dense_updates) {
  std::vector<RequestId> applied;
  const uint32_t senders = config_.mode == TrainerMode::kAsync ? workers() : 1;  // else parts are applied together
  for (uint32_t rank = 0; step > 0 && rank < senders; ++rank) applied.push_back({rank, step});
  store_->RestoreAppliedRequests(applied);
  prepared_ = step;
  turns_.StartAt((step + 1) * workers());
  dense_ahead_ = static_cast<int64_t>(dense_updates - step);
  if (dense_store_ != nullptr) dense_store_->RestoreUpdates(dense_updates);
  for (const auto& worker : workers_) worker->StartAfter(step, dense_ahead_);
}

// Puts the parts of each step together as they come: by step, then by row.
Status Trainer::RestoreInFlight(SnapshotReader& reader) {
  uint32_t count;
  PERSIA_RETURN_IF_ERROR(reader.Value(&count));
  const bool parts = count >= kPartsMark;
  uint64_t last_step = 0;
  uint32_t last_rows = 0;
  AlignedBuffer<float> pooled;
  std::vector<bool> known;  // by row of the step
  for (uint32_t i = 0; i < count % kPartsMark; ++i) {
    uint64_t step;
    uint32_t global_rows, first_row = 0, rows, width;
    PERSIA_RETURN_IF_ERROR(reader.Value(&step));
    PERSIA_RETURN_IF_ERROR(reader.Value(&global_rows));
    rows = global_rows;
    if (parts) PERSIA_RETURN_IF_ERROR(reader.Value(&first_row));
    if (parts) PERSIA_RETURN_IF_ERROR(reader.Value(&rows));
    PERSIA_RETURN_IF_ERROR(reader.Value(&width));
    if (width != config_.schema.embedding_width) {
      return Mismatch(kPipelineName, "embeddings of width " + std::to_string(width) + ", the model has " +
                                         std::to_string(config_.schema.embedding_width));
    }
    if (i == 0 || step != last_step || global_rows != last_rows) {
      if (i > 0) ShareOutInFlight(last_step, last_rows, pooled, known);
      // As many parts as there were workers: more rows than this can't come from the file.
      if (uint64_t{global_rows} * width > kMostWorkers * (reader.file_bytes() / sizeof(float))) return BadSamples();
      pooled.Resize(size_t{global_rows} * width);
      known.assign(global_rows, false);
    }
    if (uint64_t{first_row} + rows > global_rows) return BadSamples();
    PERSIA_RETURN_IF_ERROR(reader.Floats(pooled.span().subspan(size_t{first_row} * width, size_t{rows} * width)));
    std::fill_n(known.begin() + first_row, rows, true);
    last_step = step;
    last_rows = global_rows;
  }
  if (count % kPartsMark > 0) ShareOutInFlight(last_step, last_rows, pooled, known);
  return Status::Ok();
}

// Gives a worker the embeddings of its part of a step when all of them are there; else it looks its part up again.
void Trainer::ShareOutInFlight(uint64_t step, uint32_t global_rows, const AlignedBuffer<float>& pooled,
                               const std::vector<bool>& known) {
  const size_t width = config_.schema.embedding_width;
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    const PartRows part = PartOfWorker(global_rows, rank, workers());
    const auto begin = known.begin() + part.begin;
    if (std::find(begin, begin + part.rows, false) != begin + part.rows) continue;
    AlignedBuffer<float> rows(part.rows * width);
    CopyFloats(rows.data(), pooled.data() + part.begin * width, rows.size());
    workers_[rank]->RestoreLookup(step, global_rows, std::move(rows));
  }
}

Status Trainer::RestoreSeen(SnapshotReader& reader) {
  Result<bool> without = reader.AtEnd();
  if (!without.ok()) return without.status();
  if (*without) return Status::Ok();
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
  return Status::Ok();
}

Status Trainer::RestoreScaling(SnapshotReader& reader) {
  Result<bool> without = reader.AtEnd();
  if (!without.ok()) return without.status();
  if (*without) return Status::Ok();
  LossScaler::State state;
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.scale));
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.good_steps));
  PERSIA_RETURN_IF_ERROR(reader.Value(&state.skipped));
  if (!std::isfinite(state.scale)) {
    return Status(ErrorCode::kCheckpointDamaged, std::string(kPipelineName) + " has an impossible loss scale");
  }
  for (const auto& scaler : scalers_) scaler->Restore(state);
  skipped_before_ = state.skipped;
  return Status::Ok();
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
  PERSIA_RETURN_IF_ERROR(add(SaveDense(directory, workers_[0]->dense().model())));
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(add(SaveClass(directory, *store_, c, config_.tables[c])));
  }
  return files;
}

Status Trainer::Restore(const std::string& directory, const std::vector<SnapshotFile>& files) {
  for (const SnapshotFile& file : files) PERSIA_RETURN_IF_ERROR(SnapshotReader::Verify(directory, file));
  PERSIA_RETURN_IF_ERROR(store_->Clear());
  for (const auto& worker : workers_) {
    PERSIA_RETURN_IF_ERROR(RestoreDense(directory, worker->dense().model()));
    if (config_.mode == TrainerMode::kAsync) break;  // the workers have one model
  }
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(RestoreClass(directory, *store_, c, config_.schema.row_class_dims[c]));
  }
  return RestorePipeline(directory);
}

}  // namespace persia
