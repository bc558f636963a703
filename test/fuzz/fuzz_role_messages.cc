// Fuzz target of the payloads that roles of a cluster send each other: to parameter servers, embedding workers, NN workers
// and data loaders, and their answers. Whatever comes is taken whole or refused.
//
// The first byte of an input picks the decoder, the second one the formats of floats and ids. What a decoder takes is
// encoded again, and must then come out as it was.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/hyperloglog.h"
#include "batch/batch.h"
#include "seeds.h"
#include "store/store_messages.h"
#include "trainer/loader_messages.h"
#include "trainer/nn_messages.h"
#include "worker/embedding_messages.h"

namespace persia {
namespace {

constexpr uint32_t kDims[] = {2, 8}, kWidths[] = {4, 17};
constexpr size_t kFeatures = 2;

WireFlags FlagsOf(uint8_t byte) { return {WireFormat(byte % 4), IdCodec(byte / 4 % 3)}; }
uint8_t ByteOf(WireFlags flags) {
  return static_cast<uint8_t>(static_cast<unsigned>(flags.format) + 4 * static_cast<unsigned>(flags.codec));
}

FeatureSchema Schema() {
  return *BuildFeatureSchema({{"a", 2, Pooling::kSum, 0, 0, 0}, {"b", 2, Pooling::kMean, 1, 0, 0}}, 8);
}

TrainerConfig Config() {
  TrainerConfig config;
  config.schema = Schema();
  config.dense.embedding_width = config.schema.embedding_width;
  config.dense.dense_count = 2;
  config.dense.hidden = {2};
  config.dense.tasks = {{"click", Loss::kBce, 1.0f}};
  return config;
}

bool Same(const Buffer& a, const Buffer& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0; }

// What is decoded, encoded and decoded again is the same.
template <typename Decode, typename Encode>
void CheckStable(Bytes bytes, Decode decode, Encode encode) {
  const auto value = decode(bytes);
  if (!value.ok()) return;
  const Buffer once = encode(value.value());
  const auto again = decode(once.bytes());
  PERSIA_CHECK(again.ok() && Same(encode(again.value()), once));
}

// ---- parameter servers ----------------------------------------------------------------------------------------------

void CheckSigns(Bytes bytes, WireFlags flags, bool with_rows) {
  WireReader reader(bytes);
  for (const ClassRows& one : ReadSigns(reader, flags, kDims, with_rows)) {
    if (!reader.status().ok()) return;
    PERSIA_CHECK(one.rows.size() == (with_rows ? one.signs.size() * kDims[one.row_class] : 0));
  }
}

void CheckWholeRows(Bytes bytes, WireFlags flags) {
  const auto decode = [&](Bytes from) { return DecodeWholeRows(from, flags, kWidths); };
  CheckStable(bytes, decode, [&](const WholeRows& rows) {
    PERSIA_CHECK(rows.rows.size() == rows.signs.size() * kWidths[rows.row_class]);
    PERSIA_CHECK(rows.ages.empty() || rows.ages.size() == rows.signs.size());
    return EncodeWholeRows(rows.row_class, rows.signs, rows.rows, rows.ages, flags);
  });
}

void CheckStore(Bytes bytes) {
  CheckStable(bytes, DecodeCounters, EncodeCounters);
  CheckStable(bytes, DecodeRequestIds, [](const std::vector<RequestId>& ids) { return EncodeRequestIds(ids); });
}

// ---- embedding workers ----------------------------------------------------------------------------------------------

void CheckIds(Bytes bytes, WireFlags flags) {
  static const FeatureSchema schema = Schema();
  WireReader reader(bytes);
  const PartHead part = ReadPart(reader);
  const auto ids = ReadIds(reader, flags.codec, part.rows, kFeatures);
  if (!reader.End().ok() || !ValidateBatch(ids->batch, schema, 0, 0).ok()) return;
  WireWriter writer;
  WritePart(writer, part);
  WriteIds(writer, flags.codec, ids->batch);
  const Buffer again = writer.Take();
  WireReader reread(again.bytes());
  PERSIA_CHECK(ReadPart(reread).ref.step == part.ref.step);
  const auto same = ReadIds(reread, flags.codec, part.rows, kFeatures);
  PERSIA_CHECK(reread.End().ok());
  for (size_t f = 0; f < kFeatures; ++f) {
    PERSIA_CHECK(same->columns[f].ids == ids->columns[f].ids && same->columns[f].offsets == ids->columns[f].offsets);
  }
}

void CheckSeen(Bytes bytes) {
  CheckStable(bytes, [](Bytes from) { return DecodeSeen(from, kFeatures); }, EncodeSeen);
}

// ---- NN workers -----------------------------------------------------------------------------------------------------

void CheckPart(Bytes bytes) {
  static const TrainerConfig config = Config();
  // As it comes: at an address that floats may have.
  const Buffer copy = Buffer::CopyOf(bytes);
  const auto part = DecodeStepPart(copy.bytes(), config);
  if (!part.ok()) return;
  const size_t dense = size_t{part.value().rows} * config.dense_columns();
  volatile float sum = 0;
  for (size_t i = 0; i < dense; ++i) sum = sum + part.value().dense[i];
  for (size_t i = 0; i < part.value().rows; ++i) sum = sum + part.value().labels[i];
}

void CheckState(Bytes bytes) {
  CheckStable(bytes, DecodeControl, EncodeControl);
  CheckStable(bytes, DecodeState, EncodeState);
  CheckStable(bytes, DecodeStart, EncodeStart);
}

void CheckTrace(Bytes bytes) { CheckStable(bytes, DecodeSpans, EncodeSpans); }

void CheckTensors(Bytes bytes) {
  CheckStable(bytes, DecodeTensors, [](const std::vector<TensorShape>& shapes) {
    std::vector<NamedTensor> tensors;
    for (const TensorShape& shape : shapes) tensors.push_back({shape.name, shape.shape, {}});
    return EncodeTensors(tensors);
  });
  WireReader reader(bytes);
  const TensorRange range = ReadTensorRange(reader);
  WireWriter writer;
  WriteTensorRange(writer, range);
  PERSIA_CHECK(!reader.status().ok() || std::memcmp(writer.Take().data(), bytes.data(), bytes.size() - reader.left()) == 0);
}

void CheckInFlight(Bytes bytes) {
  CheckStable(bytes, DecodeInFlight, [](const std::vector<InFlightHead>& heads) {
    std::vector<InFlight> lookups;
    for (const InFlightHead& head : heads) {
      lookups.push_back({head.step, head.global_rows, head.first_row, head.rows, nullptr, 0});
    }
    return EncodeInFlight(lookups);
  });
}

// ---- data loaders ---------------------------------------------------------------------------------------------------

void CheckLoaders(Bytes bytes) {
  CheckStable(bytes, DecodePass, EncodePass);
  CheckStable(bytes, DecodePlace, EncodePlace);
  CheckStable(bytes, DecodeAskReply, EncodeAskReply);
  CheckStable(bytes, DecodeSendOrder, EncodeSendOrder);
}

constexpr void (*kChecks[])(Bytes, WireFlags) = {
    [](Bytes bytes, WireFlags flags) { CheckSigns(bytes, flags, false); },
    [](Bytes bytes, WireFlags flags) { CheckSigns(bytes, flags, true); },
    CheckWholeRows,
    [](Bytes bytes, WireFlags) { CheckStore(bytes); },
    CheckIds,
    [](Bytes bytes, WireFlags) { CheckSeen(bytes); },
    [](Bytes bytes, WireFlags) { CheckPart(bytes); },
    [](Bytes bytes, WireFlags) { CheckState(bytes); },
    [](Bytes bytes, WireFlags) { CheckTrace(bytes); },
    [](Bytes bytes, WireFlags) { CheckTensors(bytes); },
    [](Bytes bytes, WireFlags) { CheckInFlight(bytes); },
    [](Bytes bytes, WireFlags) { CheckLoaders(bytes); },
};

void CheckInput(Bytes input) {
  if (input.size() < 2) return;
  const auto check = std::to_integer<size_t>(input[0]), flags = std::to_integer<size_t>(input[1]);
  kChecks[check % std::size(kChecks)](input.subspan(2), FlagsOf(static_cast<uint8_t>(flags)));
}

// ---- seeds ----------------------------------------------------------------------------------------------------------

std::string Seed(uint8_t check, WireFlags flags, const Buffer& payload) {
  return std::string{static_cast<char>(check), static_cast<char>(ByteOf(flags))} + TextOf(payload);
}

Buffer SignsPayload(WireFlags flags, bool with_rows) {
  WireWriter writer;
  writer.Value(uint32_t{1});
  const std::vector<uint64_t> signs(40, 7);
  const std::vector<float> rows(signs.size() * kDims[1], 0.5f);
  WriteSigns(writer, flags, 1, signs);
  if (with_rows) writer.Rows(flags.format, rows.data(), signs.size(), kDims[1]);
  return writer.Take();
}

Buffer IdsPayload(WireFlags flags) {
  const std::vector<uint64_t> one = {1, 2, 3}, many = {4, 5, 6, 7};
  const std::vector<uint32_t> offsets = {0, 2, 2, 4};
  Batch batch;
  batch.rows = 3;
  batch.id_columns = {{{}, one}, {offsets, many}};
  WireWriter writer;
  WritePart(writer, {{5, 1}, batch.rows});
  WriteIds(writer, flags.codec, batch);
  return writer.Take();
}

Buffer PartPayload() {
  WireWriter writer;
  StepPart part;
  part.step = 3;
  part.first_row = 2;
  part.rows = 2;
  part.global_rows = 4;
  WriteStepPart(writer, part);
  for (int i = 0; i < 6; ++i) writer.Value(1.0f);  // dense, labels
  return writer.Take();
}

Buffer StatePayload() {
  NnState state;
  state.version = 9;
  state.histogram = {4, 1};
  state.stages = {{"train", 0, {}}};
  state.failure = Status(ErrorCode::kPeerLost, "embedding worker 1 was lost").With("rank", "1");
  return EncodeState(state);
}

Seeds MakeSeeds() {
  Seeds seeds;
  for (const IdCodec codec : {IdCodec::kRaw, IdCodec::kLz4, IdCodec::kZstd}) {
    const WireFlags flags{WireFormat::kInt8, codec};
    const std::string name = IdCodecName(codec);
    seeds["signs-" + name] = Seed(0, flags, SignsPayload(flags, false));
    seeds["rows-" + name] = Seed(1, flags, SignsPayload(flags, true));
    const std::vector<uint64_t> signs = {1, 2};
    const std::vector<float> rows(2 * kWidths[0], 0.25f);
    const std::vector<RowAge> ages(2);
    seeds["whole-rows-" + name] = Seed(2, flags, EncodeWholeRows(0, signs, rows, ages, flags));
    seeds["ids-" + name] = Seed(4, flags, IdsPayload(flags));
  }
  StoreCounters counters;
  counters.classes = {{TableCounters{}, TableCounters{}}};
  seeds["counters"] = Seed(3, {}, EncodeCounters(counters));
  seeds["request-ids"] = Seed(3, {}, EncodeRequestIds(std::vector<RequestId>{{0, 7}, {1, 8}}));
  const std::vector<std::vector<uint8_t>> unseen(kFeatures, std::vector<uint8_t>(HyperLogLog::kRegisters));
  seeds["seen"] = Seed(5, {}, EncodeSeen(unseen)).substr(0, 64);  // cut off: whole ones are all zeros
  seeds["part"] = Seed(6, {}, PartPayload());
  seeds["control"] = Seed(7, {}, EncodeControl({3, 12, 10}));
  seeds["state"] = Seed(7, {}, StatePayload());
  seeds["start"] = Seed(7, {}, EncodeStart({5, 6, LossScaler::State{}}));
  seeds["spans"] = Seed(8, {}, EncodeSpans({{"train", 0, {{1, 0.5, 0.75}}}}));
  seeds["tensors"] = Seed(9, {}, EncodeTensors({{"layer.0.weight", {2, 6}, {}}, {"layer.0.bias", {2}, {}}}));
  seeds["in-flight"] = Seed(10, {}, EncodeInFlight({{4, 6, 0, 3, nullptr, 0}}));
  seeds["loader-pass"] = Seed(11, {}, EncodePass({}));
  seeds["loader-place"] = Seed(11, {}, EncodePlace({}));
  seeds["loader-ask-reply"] = Seed(11, {}, EncodeAskReply(64));
  seeds["loader-send"] = Seed(11, {}, EncodeSendOrder({{}, 7}));
  return seeds;
}

}  // namespace
}  // namespace persia

#include "entry_points.h"
