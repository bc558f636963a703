// Fuzz target of everything that is decoded from other processes: message headers, Hello, Welcome, Status, the control
// connection, the ring's messages, rows and lists of ids. Whatever comes is taken whole or refused.
//
// The first byte of an input picks the decoder. What a decoder takes is encoded again, where that is one to one, and must
// come out as it was. Headers are sealed anew in three inputs of four, else all would end at the checksum.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "collective/ring_message.h"
#include "net/control_message.h"
#include "net/message.h"
#include "net/rpc_session.h"
#include "net/wire.h"

namespace persia {
namespace {

bool Same(const Buffer& a, Bytes b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0; }

void CheckHeader(Bytes bytes) {
  MessageHeader header;
  if (bytes.size() >= sizeof(header) && static_cast<unsigned>(bytes[0]) % 4 != 0) {
    std::memcpy(&header, bytes.data(), sizeof(header));
    const Bytes payload = bytes.subspan(sizeof(header));
    header.magic = MessageHeader::kMagic;
    header.version = MessageHeader::kVersion;
    SealMessage(Payload().Add(payload, nullptr), &header);
    MessageHeader parsed;
    const Bytes sealed(reinterpret_cast<const std::byte*>(&header), sizeof(header));
    if (!ParseHeader(sealed, {}, &parsed).ok()) return;
    PERSIA_CHECK(CheckPayload(parsed, payload).ok());
    PERSIA_CHECK(payload.empty() || !CheckPayload(parsed, payload.first(payload.size() - 1)).ok());
    const RingStep step = RingStep::FromHeader(parsed);
    PERSIA_CHECK(step.ToHeader().done_below == parsed.done_below);
    return;
  }
  PERSIA_CHECK(!ParseHeader(bytes.first(std::min(bytes.size(), sizeof(header) - 1)), {}, &header).ok());
  static_cast<void>(ParseHeader(bytes.first(std::min(bytes.size(), sizeof(header))), {}, &header).ok());
}

void CheckSession(Bytes bytes) {
  const auto hello = DecodeHello(bytes);
  if (hello.ok() && hello.value().protocol == kRpcProtocol) PERSIA_CHECK(Same(EncodeHello(hello.value()), bytes));
  const auto welcome = DecodeWelcome(bytes);
  if (welcome.ok()) PERSIA_CHECK(Same(EncodeWelcome(welcome.value()), bytes));
  PERSIA_CHECK(DecodeStatus(bytes).message().size() <= 8192);
}

void CheckControl(Bytes bytes) {
  const auto same = [&](const std::string& frame) {
    return frame.size() == sizeof(ControlHead) + bytes.size() &&
           std::memcmp(frame.data() + sizeof(ControlHead), bytes.data(), bytes.size()) == 0;
  };
  if (const auto offer = DecodeOffer(bytes); offer.ok()) PERSIA_CHECK(same(EncodeOffer(offer.value())));
  if (const auto answer = DecodeAnswer(bytes); answer.ok()) PERSIA_CHECK(same(EncodeAnswer(answer.value())));
  if (const auto place = DecodePlace(bytes); place.ok()) PERSIA_CHECK(same(EncodePlace(place.value())));
  static_cast<void>(DecodeRefusal(bytes));

  std::string stream(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (;;) {
    const size_t before = stream.size();
    const auto message = NextControlMessage(&stream);
    if (!message.ok() || !message.value().has_value()) break;
    PERSIA_CHECK(stream.size() + sizeof(ControlHead) + message.value()->body.size() == before);
  }
}

void CheckRing(Bytes bytes) {
  if (const auto join = DecodeJoin(bytes); join.ok()) PERSIA_CHECK(Same(EncodeJoin(join.value()), bytes));
  if (const auto left = DecodeLeft(bytes); left.ok()) PERSIA_CHECK(Same(EncodeLeft(left.value()), bytes));
  if (const auto ask = DecodeAsk(bytes); ask.ok()) PERSIA_CHECK(Same(EncodeAsk(ask.value()), bytes));
}

void CheckLists(Bytes bytes) {
  constexpr size_t kMostIds = 4096, kMostRows = 64;
  WireReader reader(bytes);
  const auto how = reader.Value<uint8_t>();
  const auto codec = IdCodec(how % 3);
  const auto ids = reader.Ids(codec, kMostIds);
  if (reader.status().ok()) {
    PERSIA_CHECK(ids.size() <= kMostIds);
    WireWriter writer;
    writer.Ids(codec, ids);
    const Buffer again = writer.Take();
    WireReader reread(again.bytes());
    PERSIA_CHECK(reread.Ids(codec, ids.size()) == ids && reread.End().ok());
  }
  const uint32_t dim = 1 + how % 17;
  const size_t rows = how % kMostRows;
  std::vector<float> out(rows * dim);
  reader.Rows(WireFormat(how / 64), rows, dim, out.data());
  static_cast<void>(reader.Text(how));
  static_cast<void>(reader.End().ok());
}

}  // namespace
}  // namespace persia

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  if (bytes == 0) return 0;
  const persia::Bytes input(reinterpret_cast<const std::byte*>(data + 1), bytes - 1);
  constexpr void (*kChecks[])(persia::Bytes) = {persia::CheckHeader, persia::CheckSession, persia::CheckControl,
                                               persia::CheckRing, persia::CheckLists};
  kChecks[data[0] % 5](input);
  return 0;
}
