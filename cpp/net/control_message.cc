#include "net/control_message.h"

#include <cstring>

#include "net/wire.h"

namespace persia {
namespace {

constexpr size_t kMostTextBytes = 1024, kMostPlaceBytes = 32 * 1024, kMostDevices = 64;

std::string Frame(ControlKind kind, WireWriter* writer) {
  const Buffer body = writer->Take();
  PERSIA_CHECK(body.size() <= ControlHead::kMostBodyBytes);
  ControlHead head;
  head.kind = kind;
  head.body_bytes = static_cast<uint32_t>(body.size());
  std::string frame(reinterpret_cast<const char*>(&head), sizeof(head));
  frame.append(reinterpret_cast<const char*>(body.data()), body.size());
  return frame;
}

TransportChoice ReadChoice(WireReader* reader) {
  const auto choice = reader->Value<uint8_t>();
  if (choice > static_cast<uint8_t>(TransportChoice::kShm)) reader->Fail("names an unknown transport");
  return reader->status().ok() ? TransportChoice(choice) : TransportChoice::kAuto;
}

}  // namespace

std::string EncodeOffer(const ControlOffer& offer) {
  WireWriter writer;
  writer.Text(offer.secret);
  writer.Value(offer.asked);
  writer.Text(offer.reach.host);
  const size_t devices = std::min(offer.reach.rdma_devices.size(), kMostDevices);
  writer.Value(static_cast<uint32_t>(devices));
  for (size_t i = 0; i < devices; ++i) writer.Text(offer.reach.rdma_devices[i]);
  writer.Text(offer.reach.no_rdma);
  writer.Value(offer.token);
  return Frame(ControlKind::kOffer, &writer);
}

Result<ControlOffer> DecodeOffer(Bytes body) {
  WireReader reader(body);
  ControlOffer offer;
  offer.secret = reader.Text(kMostTextBytes);
  offer.asked = ReadChoice(&reader);
  offer.reach.host = reader.Text(kMostTextBytes);
  const auto devices = reader.Value<uint32_t>();
  if (devices > kMostDevices) reader.Fail("lists too many devices");
  for (uint32_t i = 0; i < devices && reader.status().ok(); ++i) {
    offer.reach.rdma_devices.push_back(reader.Text(kMostTextBytes));
  }
  offer.reach.no_rdma = reader.Text(kMostTextBytes);
  offer.token = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return offer;
}

std::string EncodeAnswer(const ControlAnswer& answer) {
  WireWriter writer;
  writer.Value(answer.chosen.kind);
  writer.Text(answer.chosen.why);
  writer.Value(answer.token);
  writer.Text(answer.place);
  return Frame(ControlKind::kAnswer, &writer);
}

Result<ControlAnswer> DecodeAnswer(Bytes body) {
  WireReader reader(body);
  ControlAnswer answer;
  answer.chosen.kind = ReadChoice(&reader);
  if (answer.chosen.kind == TransportChoice::kAuto) reader.Fail("chooses no transport");
  answer.chosen.why = reader.Text(kMostTextBytes);
  answer.token = reader.Value<uint64_t>();
  answer.place = reader.Text(kMostPlaceBytes);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return answer;
}

std::string EncodePlace(const std::string& place) {
  WireWriter writer;
  writer.Text(place);
  return Frame(ControlKind::kPlace, &writer);
}

Result<std::string> DecodePlace(Bytes body) {
  WireReader reader(body);
  std::string place = reader.Text(kMostPlaceBytes);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return place;
}

std::string EncodeRefusal(const std::string& why) {
  WireWriter writer;
  writer.Text(std::string_view(why).substr(0, kMostTextBytes));
  return Frame(ControlKind::kRefuse, &writer);
}

std::string EncodeWake() {
  WireWriter writer;
  return Frame(ControlKind::kWake, &writer);
}

std::string DecodeRefusal(Bytes body) {
  WireReader reader(body);
  std::string why = reader.Text(kMostTextBytes);
  return reader.End().ok() ? why : "it gave no reason";
}

Result<std::optional<ControlMessage>> NextControlMessage(std::string* read) {
  ControlHead head;
  if (read->size() < sizeof(head)) return std::optional<ControlMessage>();
  std::memcpy(&head, read->data(), sizeof(head));
  if (head.magic != ControlHead::kMagic) return Status(ErrorCode::kProtocol, "what answers there is not Persia");
  if (head.version != ControlHead::kVersion) {
    return Status(ErrorCode::kProtocol, "the other side is of another version; run the same release everywhere");
  }
  if (head.body_bytes > ControlHead::kMostBodyBytes) return Status(ErrorCode::kProtocol, "a control message is too long");
  if (read->size() - sizeof(head) < head.body_bytes) return std::optional<ControlMessage>();
  ControlMessage message{head.kind, read->substr(sizeof(head), head.body_bytes)};
  read->erase(0, sizeof(head) + head.body_bytes);
  return std::optional<ControlMessage>(std::move(message));
}

}  // namespace persia
