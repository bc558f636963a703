#include "trainer/nn_messages.h"

#include <cmath>
#include <cstring>

#include "batch/mask.h"
#include "net/rpc_session.h"

namespace persia {
namespace {

constexpr size_t kMostNameBytes = 256;

// The length of a list; 0, and the reader failed, when it can't be there.
size_t ReadCount(WireReader& reader, size_t bytes_each) {
  const auto count = reader.Value<uint32_t>();
  if (count <= reader.left() / bytes_each) return count;
  reader.Fail("a list of " + std::to_string(count) + " entries in " + std::to_string(reader.left()) + " bytes");
  return 0;
}

void WriteNumbers(WireWriter& writer, std::span<const uint64_t> numbers) {
  writer.Value(static_cast<uint32_t>(numbers.size()));
  for (const uint64_t number : numbers) writer.Value(number);
}

std::vector<uint64_t> ReadNumbers(WireReader& reader) {
  std::vector<uint64_t> numbers(ReadCount(reader, sizeof(uint64_t)));
  for (uint64_t& number : numbers) number = reader.Value<uint64_t>();
  return numbers;
}

void WriteStage(WireWriter& writer, const StageReport& stage) {
  writer.Text(stage.name);
  writer.Value(stage.worker);
  for (const double seconds : stage.totals.seconds) writer.Value(seconds);
  writer.Value(stage.totals.steps);
  writer.Value(stage.totals.queued);
  writer.Value(stage.totals.most_queue);
}

StageReport ReadStage(WireReader& reader) {
  StageReport stage;
  stage.name = reader.Text(kMostNameBytes);
  stage.worker = reader.Value<uint32_t>();
  for (double& seconds : stage.totals.seconds) seconds = reader.Value<double>();
  stage.totals.steps = reader.Value<uint64_t>();
  stage.totals.queued = reader.Value<uint64_t>();
  stage.totals.most_queue = reader.Value<uint64_t>();
  return stage;
}

void WriteScaling(WireWriter& writer, const LossScaler::State& scaling) {
  writer.Value(scaling.scale);
  writer.Value(scaling.good_steps);
  writer.Value(scaling.skipped);
}

LossScaler::State ReadScaling(WireReader& reader) {
  LossScaler::State scaling;
  scaling.scale = reader.Value<float>();
  scaling.good_steps = reader.Value<uint32_t>();
  scaling.skipped = reader.Value<uint64_t>();
  if (!std::isfinite(scaling.scale)) reader.Fail("an impossible loss scale");
  return scaling;
}

template <typename T>
const T* ReadView(WireReader& reader, size_t count) {
  return reinterpret_cast<const T*>(reader.Raw(count * sizeof(T)).data());
}

}  // namespace

// ---- parts ----------------------------------------------------------------------------------------------------------

void WriteStepPart(WireWriter& writer, const StepPart& part) {
  writer.Value(part.step);
  for (const uint32_t value : {part.first_row, part.rows, part.global_rows, uint32_t{0}}) writer.Value(value);
}

Result<StepPart> DecodeStepPart(Bytes bytes, const TrainerConfig& config) {
  WireReader reader(bytes);
  StepPart part;
  part.step = reader.Value<uint64_t>();
  part.first_row = reader.Value<uint32_t>();
  part.rows = reader.Value<uint32_t>();
  part.global_rows = reader.Value<uint32_t>();
  (void)reader.Value<uint32_t>();  // keeps what follows aligned
  if (uint64_t{part.first_row} + part.rows > part.global_rows) reader.Fail("more rows than the step has");
  part.dense = ReadView<float>(reader, size_t{part.rows} * config.dense_columns());
  part.labels = ReadView<float>(reader, part.rows * config.dense.tasks.size());
  part.filled = ReadView<uint32_t>(reader, size_t{part.rows} * MaskedFeatures(config.schema));
  PERSIA_RETURN_IF_ERROR(reader.End());
  return part;
}

// ---- state and control ----------------------------------------------------------------------------------------------

Buffer EncodeControl(const NnControl& control) {
  WireWriter writer;
  writer.Value(control.number);
  writer.Value(static_cast<uint8_t>(control.pause_at ? 1 : 0));
  writer.Value(control.pause_at.value_or(0));
  writer.Value(control.drained_to);
  return writer.Take();
}

Result<NnControl> DecodeControl(Bytes bytes) {
  WireReader reader(bytes);
  NnControl control;
  control.number = reader.Value<uint64_t>();
  const bool pauses = reader.Value<uint8_t>() != 0;
  const auto pause_at = reader.Value<uint64_t>();
  if (pauses) control.pause_at = pause_at;
  control.drained_to = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return control;
}

Buffer EncodeState(const NnState& state) {
  WireWriter writer;
  for (const uint64_t value : {state.version, state.control, state.applied, state.staleness, state.samples,
                               state.dense_staleness.pushes, state.dense_staleness.sum, state.dense_staleness.most,
                               state.dense_updates}) {
    writer.Value(value);
  }
  writer.Value(static_cast<uint8_t>(state.at_rest ? 1 : 0));
  writer.Value(static_cast<uint8_t>(state.ended ? 1 : 0));
  writer.Value(state.loss_sum);
  writer.Value(state.loss_steps);
  WriteScaling(writer, state.scaling);
  WriteNumbers(writer, state.histogram);
  writer.Value(static_cast<uint32_t>(state.stages.size()));
  for (const StageReport& stage : state.stages) WriteStage(writer, stage);
  if (!state.failure.ok()) writer.Raw(EncodeStatus(state.failure).bytes());  // to the end
  return writer.Take();
}

Result<NnState> DecodeState(Bytes bytes) {
  WireReader reader(bytes);
  NnState state;
  for (uint64_t* value : {&state.version, &state.control, &state.applied, &state.staleness, &state.samples,
                          &state.dense_staleness.pushes, &state.dense_staleness.sum, &state.dense_staleness.most,
                          &state.dense_updates}) {
    *value = reader.Value<uint64_t>();
  }
  state.at_rest = reader.Value<uint8_t>() != 0;
  state.ended = reader.Value<uint8_t>() != 0;
  state.loss_sum = reader.Value<double>();
  state.loss_steps = reader.Value<double>();
  state.scaling = ReadScaling(reader);
  state.histogram = ReadNumbers(reader);
  const size_t stages = ReadCount(reader, sizeof(uint32_t));
  for (size_t i = 0; i < stages; ++i) state.stages.push_back(ReadStage(reader));
  if (reader.status().ok() && reader.left() > 0) state.failure = DecodeStatus(reader.Raw(reader.left()));
  PERSIA_RETURN_IF_ERROR(reader.End());
  return state;
}

Buffer EncodeSpans(const std::vector<StageSpans>& stages) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(stages.size()));
  for (const StageSpans& stage : stages) {
    writer.Text(stage.name);
    writer.Value(stage.worker);
    writer.Value(static_cast<uint32_t>(stage.spans.size()));
    for (const StageMeter::Span& span : stage.spans) {
      writer.Value(span.step);
      writer.Value(span.begin);
      writer.Value(span.end);
    }
  }
  return writer.Take();
}

Result<std::vector<StageSpans>> DecodeSpans(Bytes bytes) {
  WireReader reader(bytes);
  std::vector<StageSpans> stages(ReadCount(reader, 3 * sizeof(uint32_t)));
  for (StageSpans& stage : stages) {
    stage.name = reader.Text(kMostNameBytes);
    stage.worker = reader.Value<uint32_t>();
    stage.spans.resize(ReadCount(reader, sizeof(StageMeter::Span)));
    for (StageMeter::Span& span : stage.spans) {
      span.step = reader.Value<uint64_t>();
      span.begin = reader.Value<double>();
      span.end = reader.Value<double>();
    }
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return stages;
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

Buffer EncodeStart(const NnStart& start) {
  WireWriter writer;
  writer.Value(start.step);
  writer.Value(start.dense_updates);
  writer.Value(static_cast<uint8_t>(start.scaling ? 1 : 0));
  if (start.scaling) WriteScaling(writer, *start.scaling);
  return writer.Take();
}

Result<NnStart> DecodeStart(Bytes bytes) {
  WireReader reader(bytes);
  NnStart start;
  start.step = reader.Value<uint64_t>();
  start.dense_updates = reader.Value<uint64_t>();
  if (reader.Value<uint8_t>() != 0) start.scaling = ReadScaling(reader);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return start;
}

void WriteTensorRange(WireWriter& writer, const TensorRange& range) {
  writer.Value(range.tensor);
  writer.Value(range.begin);
  writer.Value(range.count);
}

TensorRange ReadTensorRange(WireReader& reader) {
  TensorRange range;
  range.tensor = reader.Value<uint32_t>();
  range.begin = reader.Value<uint64_t>();
  range.count = reader.Value<uint64_t>();
  return range;
}

Buffer EncodeTensors(const std::vector<NamedTensor>& tensors) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(tensors.size()));
  for (const NamedTensor& tensor : tensors) {
    writer.Text(tensor.name);
    WriteNumbers(writer, tensor.shape);
  }
  return writer.Take();
}

Result<std::vector<TensorShape>> DecodeTensors(Bytes bytes) {
  WireReader reader(bytes);
  std::vector<TensorShape> tensors(ReadCount(reader, 2 * sizeof(uint32_t)));
  for (TensorShape& tensor : tensors) {
    tensor.name = reader.Text(kMostNameBytes);
    tensor.shape = ReadNumbers(reader);
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return tensors;
}

Buffer EncodeInFlight(const std::vector<InFlight>& lookups) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(lookups.size()));
  for (const InFlight& lookup : lookups) {
    writer.Value(lookup.step);
    for (const uint32_t value : {lookup.global_rows, lookup.first_row, lookup.rows}) writer.Value(value);
  }
  return writer.Take();
}

Result<std::vector<InFlightHead>> DecodeInFlight(Bytes bytes) {
  WireReader reader(bytes);
  std::vector<InFlightHead> lookups(ReadCount(reader, sizeof(uint64_t) + 3 * sizeof(uint32_t)));
  for (InFlightHead& lookup : lookups) {
    lookup.step = reader.Value<uint64_t>();
    lookup.global_rows = reader.Value<uint32_t>();
    lookup.first_row = reader.Value<uint32_t>();
    lookup.rows = reader.Value<uint32_t>();
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return lookups;
}

}  // namespace persia
