#include "collective/ring_message.h"

#include "net/wire.h"

namespace persia {
namespace {

constexpr size_t kMostSecretTextBytes = 256;

}  // namespace

MessageHeader RingStep::ToHeader() const {
  MessageHeader header;
  header.kind = MessageKind::kChunk;
  header.type = static_cast<uint16_t>(RingMessage::kData);
  header.request_id = bucket;
  header.done_below = uint64_t{block} << 41 | uint64_t{f64} << 40 | uint64_t{step} << 32 | count;
  return header;
}

RingStep RingStep::FromHeader(const MessageHeader& header) {
  const uint64_t packed = header.done_below;
  RingStep step;
  step.bucket = header.request_id;
  step.block = static_cast<uint32_t>(packed >> 41);
  step.f64 = (packed >> 40 & 1) != 0;
  step.step = static_cast<uint32_t>(packed >> 32 & 255);
  step.count = static_cast<uint32_t>(packed);
  return step;
}

Buffer EncodeJoin(const RingJoin& join) {
  WireWriter writer;
  writer.Value(join.rank);
  writer.Value(join.ranks);
  writer.Text(join.secret);
  return writer.Take();
}

Buffer EncodeLeft(const RingLeft& left) {
  WireWriter writer;
  writer.Value(left.rank);
  writer.Value(left.finished);
  return writer.Take();
}

Buffer EncodeAsk(const RingAsk& ask) {
  WireWriter writer;
  writer.Value(ask.asker);
  writer.Value(static_cast<uint32_t>(ask.missing.size()));
  for (const uint32_t rank : ask.missing) writer.Value(rank);
  return writer.Take();
}

Result<RingJoin> DecodeJoin(Bytes bytes) {
  WireReader reader(bytes);
  RingJoin join;
  join.rank = reader.Value<uint32_t>();
  join.ranks = reader.Value<uint32_t>();
  join.secret = reader.Text(kMostSecretTextBytes);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return join;
}

Result<RingLeft> DecodeLeft(Bytes bytes) {
  WireReader reader(bytes);
  RingLeft left;
  left.rank = reader.Value<uint32_t>();
  left.finished = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return left;
}

Result<RingAsk> DecodeAsk(Bytes bytes) {
  WireReader reader(bytes);
  RingAsk ask;
  ask.asker = reader.Value<uint32_t>();
  const auto count = reader.Value<uint32_t>();
  if (count > kMostRingRanks) reader.Fail("names too many ranks");
  for (uint32_t i = 0; i < count && reader.status().ok(); ++i) ask.missing.push_back(reader.Value<uint32_t>());
  PERSIA_RETURN_IF_ERROR(reader.End());
  return ask;
}

}  // namespace persia
