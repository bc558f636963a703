// Saving and restoring a cluster through its driver: snapshot_files.h has the formats, which are those of a trainer in
// one process. Rows are read and written in pieces, so that nothing here takes the memory of a table.
#include <algorithm>
#include <utility>

#include "base/copy.h"
#include "base/hyperloglog.h"
#include "dense/layout.h"
#include "trainer/cluster_trainer.h"
#include "worker/embedding_messages.h"

namespace persia {
namespace {

template <typename... Values>
Payload Request(Values... values) {
  WireWriter writer;
  (writer.Value(values), ...);
  return Payload(writer.Take());
}

}  // namespace

// ---- dense network --------------------------------------------------------------------------------------------------

Status ClusterTrainer::ReadShapes(DenseCopy* dense) const {
  const auto response = nn_workers_.Call(0, {nn_request::kTensors}, Payload());
  if (!response.ok()) return response.status();
  const auto shapes = DecodeTensors(response.value().payload.bytes());
  if (!shapes.ok()) return shapes.status();
  // Parameters, the state of their optimizer, and some numbers beside: what is more is not of this model.
  uint64_t left = 4 * MakeLayout(config_.dense).size + 1024;
  for (const TensorShape& shape : shapes.value()) {
    uint64_t count = 1;
    for (const uint64_t size : shape.shape) count = size == 0 || count <= left / size ? count * size : left + 1;
    if (count > left) return Status(ErrorCode::kProtocol, "NN worker 0 has tensors of another model: " + shape.name);
    left -= count;
    dense->values.emplace_back(count);
    dense->tensors.push_back({shape.name, shape.shape, dense->values.back().span()});
  }
  return Status::Ok();
}

Status ClusterTrainer::ReadValues(DenseCopy* dense) const {
  for (uint32_t tensor = 0; tensor < dense->tensors.size(); ++tensor) {
    const std::span<float> values = dense->tensors[tensor].values;
    for (uint64_t begin = 0; begin < values.size(); begin += kTensorPiece) {
      const uint64_t count = std::min<uint64_t>(kTensorPiece, values.size() - begin);
      WireWriter writer;
      WriteTensorRange(writer, {tensor, begin, count});
      const auto response = nn_workers_.Call(0, {nn_request::kReadTensor}, Payload(writer.Take()));
      if (!response.ok()) return response.status();
      WireReader reader(response.value().payload.bytes());
      reader.Rows(WireFormat::kFp32, count, 1, values.data() + begin);
      PERSIA_RETURN_IF_ERROR(reader.End());
    }
  }
  return Status::Ok();
}

// To every NN worker that has a network: in async there is one.
Status ClusterTrainer::WriteValues(const DenseCopy& dense) const {
  const uint32_t networks = config_.mode == TrainerMode::kAsync ? 1 : workers();
  for (uint32_t tensor = 0; tensor < dense.tensors.size(); ++tensor) {
    const std::span<const float> values = dense.tensors[tensor].values;
    for (uint64_t begin = 0; begin < values.size(); begin += kTensorPiece) {
      const uint64_t count = std::min<uint64_t>(kTensorPiece, values.size() - begin);
      std::vector<std::optional<Payload>> requests(workers());
      for (uint32_t rank = 0; rank < networks; ++rank) {
        WireWriter writer;
        WriteTensorRange(writer, {tensor, begin, count});
        writer.Raw(std::as_bytes(values.subspan(begin, count)));
        requests[rank] = Payload(writer.Take());
      }
      PERSIA_RETURN_IF_ERROR(nn_workers_.CallMany({nn_request::kWriteTensor}, std::move(requests)).status());
    }
  }
  return Status::Ok();
}

// ---- pipeline -------------------------------------------------------------------------------------------------------

// What all embedding workers have seen together.
Result<std::vector<std::vector<uint8_t>>> ClusterTrainer::Seen(std::optional<uint64_t> deadline_ms) const {
  const RoleCall call{embedding_request::kSeen, {}, true, deadline_ms};
  const auto responses = embedding_workers_.CallAll(call, [] { return Payload(); });
  if (!responses.ok()) return responses.status();
  const size_t features = config_.schema.features.size();
  std::vector<std::vector<uint8_t>> all(features, std::vector<uint8_t>(HyperLogLog::kRegisters));
  for (const RpcResponse& response : responses.value()) {
    const auto seen = DecodeSeen(response.payload.bytes(), features);
    if (!seen.ok()) return seen.status();
    for (size_t f = 0; f < features; ++f) {
      std::ranges::transform(all[f], seen.value()[f], all[f].begin(), [](uint8_t a, uint8_t b) { return std::max(a, b); });
    }
  }
  return all;
}

Status ClusterTrainer::ReadInFlight(InFlightRows* in_flight) const {
  const uint32_t width = config_.schema.embedding_width;
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    const auto response = nn_workers_.Call(rank, {nn_request::kInFlight}, Payload());
    if (!response.ok()) return response.status();
    const auto heads = DecodeInFlight(response.value().payload.bytes());
    if (!heads.ok()) return heads.status();
    for (const InFlightHead& head : heads.value()) {
      const auto rows = nn_workers_.Call(rank, {nn_request::kReadInFlight}, Request(head.step));
      if (!rows.ok()) return rows.status();
      WireReader reader(rows.value().payload.bytes());
      if (reader.left() != WireRowBytes(WireFormat::kFp32, head.rows, width)) reader.Fail("has another number of rows");
      PERSIA_RETURN_IF_ERROR(reader.status());
      AlignedBuffer<float>& pooled = in_flight->rows.emplace_back(size_t{head.rows} * width);
      reader.Rows(WireFormat::kFp32, head.rows, width, pooled.data());
      PERSIA_RETURN_IF_ERROR(reader.End());
      in_flight->lookups.push_back({head.step, head.global_rows, head.first_row, head.rows, pooled.data(), width});
    }
  }
  std::ranges::stable_sort(in_flight->lookups, {}, &InFlight::step);
  return Status::Ok();
}

Status ClusterTrainer::RestorePipeline(const RestoredPipeline& state) {
  for (const RestoredLookup& lookup : state.lookups) {
    std::vector<std::optional<Payload>> requests(workers());
    for (uint32_t rank = 0; rank < workers(); ++rank) {
      const auto part = lookup.PartOf(rank, workers());
      if (!part) continue;
      WireWriter writer;
      writer.Value(lookup.step);
      writer.Value(lookup.global_rows);
      writer.Raw(std::as_bytes(part->span()));
      requests[rank] = Payload(writer.Take());
    }
    PERSIA_RETURN_IF_ERROR(nn_workers_.CallMany({nn_request::kRestoreLookup}, std::move(requests)).status());
  }
  if (!state.seen.empty()) {
    // One of them remembers for all.
    const RoleCall call{embedding_request::kRestoreSeen};
    PERSIA_RETURN_IF_ERROR(embedding_workers_.Call(0, call, Payload(EncodeSeen(state.seen))).status());
  }
  std::vector<RequestId> applied;
  const uint32_t senders = config_.mode == TrainerMode::kAsync ? workers() : 1;  // else parts are applied together
  for (uint32_t rank = 0; state.steps > 0 && rank < senders; ++rank) applied.push_back({rank, state.steps});
  PERSIA_RETURN_IF_ERROR(store_.RestoreAppliedRequests(applied));
  PERSIA_RETURN_IF_ERROR(SendStart(state));
  std::lock_guard lock(mutex_);
  step_before_ = forwarded_ = drained_to_ = state.steps;
  samples_before_ = state.samples;
  return Status::Ok();
}

// In async, where each NN worker counts the parts that it skipped, those before count as worker 0's.
Status ClusterTrainer::SendStart(const RestoredPipeline& state) {
  std::vector<std::optional<Payload>> requests;
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    NnStart start{state.steps, state.dense_updates, state.scaling};
    if (start.scaling && rank > 0 && config_.mode == TrainerMode::kAsync) start.scaling->skipped = 0;
    requests.push_back(Payload(EncodeStart(start)));
  }
  return nn_workers_.CallMany({nn_request::kStartAfter}, std::move(requests)).status();
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

Result<std::vector<SnapshotFile>> ClusterTrainer::Save(const std::string& directory) {
  if (Status status = failure(); !status.ok()) return status;
  if (!at_rest()) return Status(ErrorCode::kUsage, "a trainer can be saved only while it is at rest");
  std::vector<SnapshotFile> files;
  const auto add = [&](Result<SnapshotFile> file) {
    if (file.ok()) files.push_back(*file);
    return file.status();
  };
  const TrainerProgress totals = progress();
  PipelineState state;
  state.steps = totals.steps;
  state.samples = totals.samples;
  state.workers = workers();
  Result<std::vector<RequestId>> applied = store_.AppliedRequests();
  if (!applied.ok()) return applied.status();
  state.applied = std::move(*applied);
  InFlightRows in_flight;
  PERSIA_RETURN_IF_ERROR(ReadInFlight(&in_flight));
  state.in_flight = in_flight.lookups;
  Result<std::vector<std::vector<uint8_t>>> seen = Seen(std::nullopt);
  if (!seen.ok()) return seen.status();
  state.seen = std::move(*seen);
  {
    std::lock_guard lock(mutex_);
    state.dense_updates = workers_[0].state.dense_updates;
    state.scaling = Scaling();
  }
  PERSIA_RETURN_IF_ERROR(add(WritePipeline(directory, state, config_.schema.embedding_width)));
  DenseCopy dense;
  PERSIA_RETURN_IF_ERROR(ReadShapes(&dense));
  PERSIA_RETURN_IF_ERROR(ReadValues(&dense));
  PERSIA_RETURN_IF_ERROR(add(WriteDense(directory, dense.tensors)));
  for (uint32_t c = 0; c < store_.row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(add(WriteClass(directory, store_, c, config_.tables[c])));
  }
  return files;
}

Status ClusterTrainer::Restore(const std::string& directory, const std::vector<SnapshotFile>& files) {
  for (const SnapshotFile& file : files) PERSIA_RETURN_IF_ERROR(SnapshotReader::Verify(directory, file));
  PERSIA_RETURN_IF_ERROR(store_.Clear());
  DenseCopy dense;
  PERSIA_RETURN_IF_ERROR(ReadShapes(&dense));
  PERSIA_RETURN_IF_ERROR(ReadDense(directory, dense.tensors));
  PERSIA_RETURN_IF_ERROR(WriteValues(dense));
  for (uint32_t c = 0; c < store_.row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(ReadClass(directory, store_, c, config_.schema.row_class_dims[c]));
  }
  Result<RestoredPipeline> state = ReadPipeline(directory, config_.schema);
  return state.ok() ? RestorePipeline(*state) : state.status();
}

}  // namespace persia
