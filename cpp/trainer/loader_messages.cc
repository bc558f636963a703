#include "trainer/loader_messages.h"

namespace persia {
namespace {

constexpr size_t kMostTextBytes = 1u << 24;  // statistics of some hundred thousand dense columns

void WritePlace(WireWriter& writer, const BatchPlace& place) {
  writer.Value(place.pass);
  writer.Value(place.batch);
}

BatchPlace ReadPlace(WireReader& reader) {
  BatchPlace place;
  place.pass = reader.Value<uint64_t>();
  place.batch = reader.Value<uint64_t>();
  return place;
}

}  // namespace

Buffer EncodePass(const LoaderQueue::Pass& pass) {
  WireWriter writer;
  writer.Value(pass.number);
  writer.Text(pass.text);
  return writer.Take();
}

Result<LoaderQueue::Pass> DecodePass(Bytes bytes) {
  WireReader reader(bytes);
  LoaderQueue::Pass pass;
  pass.number = reader.Value<uint64_t>();
  pass.text = reader.Text(kMostTextBytes);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return pass;
}

Buffer EncodePlace(const BatchPlace& place) {
  WireWriter writer;
  WritePlace(writer, place);
  return writer.Take();
}

Result<BatchPlace> DecodePlace(Bytes bytes) {
  WireReader reader(bytes);
  const BatchPlace place = ReadPlace(reader);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return place;
}

Buffer EncodeAskReply(std::optional<uint32_t> rows) {
  WireWriter writer;
  writer.Value(static_cast<uint8_t>(rows ? 1 : 0));
  writer.Value(rows.value_or(0));
  return writer.Take();
}

Result<std::optional<uint32_t>> DecodeAskReply(Bytes bytes) {
  WireReader reader(bytes);
  const bool there = reader.Value<uint8_t>() != 0;
  const auto rows = reader.Value<uint32_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return there ? std::optional(rows) : std::nullopt;
}

Buffer EncodeSendOrder(const SendOrder& order) {
  WireWriter writer;
  WritePlace(writer, order.place);
  writer.Value(order.step);
  return writer.Take();
}

Result<SendOrder> DecodeSendOrder(Bytes bytes) {
  WireReader reader(bytes);
  SendOrder order;
  order.place = ReadPlace(reader);
  order.step = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return order;
}

}  // namespace persia
