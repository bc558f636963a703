#include "net/wire.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "net/message.h"
#include "net_fixtures.h"
#include "sanitizers.h"

namespace persia {
namespace {

std::vector<float> Floats(uint64_t seed, size_t count) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.Normal());
  return values;
}

std::vector<float> ThroughWire(WireFormat format, const std::vector<float>& rows, uint32_t dim, size_t offset = 0) {
  WireWriter writer;
  writer.Extend(offset);
  writer.Rows(format, rows.data(), rows.size() / dim, dim);
  const Buffer bytes = writer.Take();
  CHECK(bytes.size() == offset + WireRowBytes(format, rows.size() / dim, dim));
  WireReader reader(bytes.bytes().subspan(offset));
  std::vector<float> back(rows.size());
  reader.Rows(format, rows.size() / dim, dim, back.data());
  CHECK(reader.End().ok());
  return back;
}

TEST_CASE("Rows come back exactly as fp32 and within each format's precision, at any place of a message") {
  for (const uint32_t dim : {1u, 3u, 8u, 16u, 17u, 128u}) {
    for (const size_t offset : {0, 1, 2, 5}) {
      const auto rows = Floats(dim, size_t{37} * dim);
      CHECK(ThroughWire(WireFormat::kFp32, rows, dim, offset) == rows);
      const auto half = ThroughWire(WireFormat::kFp16, rows, dim, offset);
      const auto brain = ThroughWire(WireFormat::kBf16, rows, dim, offset);
      const auto bytes = ThroughWire(WireFormat::kInt8, rows, dim, offset);
      float worst_half = 0, worst_brain = 0, worst_bytes = 0;
      for (size_t row = 0; row < 37; ++row) {
        float largest = 0;
        for (uint32_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(rows[row * dim + i]));
        for (size_t at = row * dim; at < (row + 1) * dim; ++at) {
          worst_half = std::max(worst_half, std::fabs(half[at] - rows[at]) / std::max(std::fabs(rows[at]), 6.2e-5f));
          worst_brain = std::max(worst_brain, std::fabs(brain[at] - rows[at]) / std::fabs(rows[at]));
          worst_bytes = std::max(worst_bytes, std::fabs(bytes[at] - rows[at]) / largest);
        }
      }
      CHECK(worst_half <= 1.0f / 2048);
      CHECK(worst_brain <= 1.0f / 256);
      CHECK(worst_bytes <= 0.5f / 127 * 1.0001f);
    }
  }
}

TEST_CASE("Small integers survive int8 when the row's largest magnitude is 127") {
  std::vector<float> row;
  for (int i = -127; i <= 127; ++i) row.push_back(static_cast<float>(i));
  CHECK(ThroughWire(WireFormat::kInt8, row, 255) == row);
}

TEST_CASE("Gradients that are not finite don't come back finite in any format") {
  for (const WireFormat format : {WireFormat::kFp32, WireFormat::kFp16, WireFormat::kBf16, WireFormat::kInt8}) {
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> rows = Floats(1, 32);
      rows[13] = bad;
      const auto back = ThroughWire(format, rows, 8);
      CHECK(!std::isfinite(back[13]));
      for (const size_t other : {0, 7, 16, 31}) CHECK(std::isfinite(back[other]));
    }
  }
}

TEST_CASE("Rows of zeros and of tiny numbers are zeros or nearly so in int8") {
  const std::vector<float> zeros(8, 0.0f);
  CHECK(ThroughWire(WireFormat::kInt8, zeros, 8) == zeros);
  const std::vector<float> tiny(8, 1e-41f);
  for (const float value : ThroughWire(WireFormat::kInt8, tiny, 8)) CHECK(std::fabs(value) <= 1e-37f);
}

TEST_CASE("More values than one part of a conversion come back in their places") {
  const auto rows = Floats(3, (size_t{1} << 20) + 4096);
  const auto back = ThroughWire(WireFormat::kBf16, rows, 4096);
  size_t wrong = 0;
  for (size_t i = 0; i < rows.size(); ++i) wrong += std::fabs(back[i] - rows[i]) > std::fabs(rows[i]) / 256;
  CHECK(wrong == 0);
}

TEST_CASE("Lists of ids come back whatever the codec, and signs of a group become smaller") {
  Rng rng(9);
  std::vector<uint64_t> group, random;
  for (int i = 0; i < 5000; ++i) {
    group.push_back(uint64_t{3} << 56 | rng.Next() % 100'000);
    random.push_back(rng.Next());
  }
  const std::vector<std::vector<uint64_t>> lists = {{}, {1}, {~uint64_t{0}, 0}, group, random};
  for (const auto& ids : lists) {
    for (const IdCodec codec : {IdCodec::kRaw, IdCodec::kLz4, IdCodec::kZstd}) {
      WireWriter writer;
      writer.Ids(codec, ids);
      writer.Value(uint16_t{77});
      const Buffer bytes = writer.Take();
      CHECK(bytes.size() <= 10 + ids.size() * 8);
      if (&ids == &lists[3] && codec != IdCodec::kRaw) CHECK(bytes.size() < ids.size() * 4);
      WireReader reader(bytes.bytes());
      CHECK(reader.Ids(codec, ids.size()) == ids);
      CHECK(reader.Value<uint16_t>() == 77);
      CHECK(reader.End().ok());
      for (size_t cut = 0; cut < bytes.size(); cut += 1 + bytes.size() / 50) {
        WireReader short_reader(bytes.bytes().first(cut));
        short_reader.Ids(codec, ids.size());
        short_reader.Value<uint16_t>();
        CHECK(short_reader.End().code() == ErrorCode::kProtocol);
      }
    }
  }
}

TEST_CASE("A list with more ids than expected is refused before memory is taken for it") {
  WireWriter writer;
  writer.Value(~uint32_t{0});
  writer.Value(~uint32_t{0});
  const Buffer bytes = writer.Take();
  WireReader reader(bytes.bytes());
  CHECK(reader.Ids(IdCodec::kZstd, 1000).empty());
  CHECK(reader.status().message().find("at most 1000") != std::string::npos);
}

TEST_CASE("A reader gives zeros after its end and says what was wrong first") {
  WireWriter writer;
  writer.Value(uint32_t{5});
  writer.Text("hello");
  const Buffer bytes = writer.Take();
  WireReader reader(bytes.bytes());
  CHECK(reader.Value<uint32_t>() == 5);
  CHECK(reader.Text(5) == "hello");
  CHECK(reader.status().ok());
  CHECK(reader.Value<uint64_t>() == 0);
  CHECK(reader.Text(100).empty());
  CHECK(reader.status().code() == ErrorCode::kProtocol);
  CHECK(reader.status().message() == "a message ends too early: 8 bytes are wanted, 0 left");
  WireReader longer(bytes.bytes());
  CHECK(longer.Value<uint32_t>() == 5);
  CHECK(longer.End().message().find("too many") != std::string::npos);
  WireReader text(bytes.bytes().subspan(4));
  CHECK(text.Text(4).empty());
  CHECK(text.status().message().find("at most 4") != std::string::npos);
}

TEST_CASE("Packed lists that would unpack to more than a message may have are refused before memory is taken"
          * OneThread()) {
  // Of zeros: a few thousand bytes unpack to 160 MB, which one list may, but not two.
  const std::vector<uint64_t> zeros(20'000'000);
  WireWriter writer;
  for (int i = 0; i < 2; ++i) writer.Ids(IdCodec::kZstd, zeros);
  const Buffer packed = writer.Take();
  CHECK(packed.size() < 100'000);
  WireReader reader(packed.bytes());
  CHECK(reader.Ids(IdCodec::kZstd, zeros.size()).size() == zeros.size());
  CHECK(reader.Ids(IdCodec::kZstd, zeros.size()).empty());
  CHECK(reader.status().message().find("unpack to 160000000 bytes") != std::string::npos);
  CHECK(CheckAnswerBytes(MessageLimits{}.max_payload_bytes).ok());
  CHECK(CheckAnswerBytes(MessageLimits{}.max_payload_bytes + 1).code() == ErrorCode::kProtocol);
}

TEST_CASE("Names of wire formats and codecs are read as they are written") {
  for (const WireFormat format : {WireFormat::kFp32, WireFormat::kFp16, WireFormat::kBf16, WireFormat::kInt8}) {
    CHECK(ParseWireFormat(WireFormatName(format)).value() == format);
  }
  for (const IdCodec codec : {IdCodec::kRaw, IdCodec::kLz4, IdCodec::kZstd}) {
    CHECK(ParseIdCodec(IdCodecName(codec)).value() == codec);
  }
  CHECK(ParseWireFormat("fp8").status().code() == ErrorCode::kUsage);
  CHECK(ParseIdCodec("").status().code() == ErrorCode::kUsage);
}

Buffer SealedHeader(const Payload& payload, const MessageHeader& header = {}) {
  MessageHeader sealed = header;
  SealMessage(payload, &sealed);
  return Buffer::CopyOf({reinterpret_cast<const std::byte*>(&sealed), sizeof(sealed)});
}

TEST_CASE("Every flipped bit of a message is found") {
  const Payload payload(PatternBuffer(1, 100));
  const Buffer good = SealedHeader(payload);
  MessageHeader header;
  REQUIRE(ParseHeader(good.bytes(), {}, &header).ok());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Buffer bad = Buffer::CopyOf(good.bytes());
    bad.data()[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    CHECK(ParseHeader(bad.bytes(), {}, &header).code() == ErrorCode::kProtocol);
  }
  REQUIRE(ParseHeader(good.bytes(), {}, &header).ok());
  CHECK(CheckPayload(header, payload.piece(0)).ok());
  for (size_t bit = 0; bit < 800; ++bit) {
    Buffer bad = Buffer::CopyOf(payload.piece(0));
    bad.data()[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    CHECK(CheckPayload(header, bad.bytes()).code() == ErrorCode::kProtocol);
  }
  CHECK(CheckPayload(header, payload.piece(0).first(99)).code() == ErrorCode::kProtocol);
}

TEST_CASE("Headers of other versions, kinds, formats and lengths are refused, each with its reason") {
  MessageHeader header, parsed;
  const auto reason = [&](size_t payload_bytes = 0) {
    const Buffer bytes = SealedHeader(Payload(Buffer(payload_bytes)), header);
    return ParseHeader(bytes.bytes(), {.max_payload_bytes = 1000}, &parsed).message();
  };
  CHECK(reason() == "");
  CHECK(reason(1000) == "");
  CHECK(reason(1001).find("has 1001 bytes, the limit is 1000") != std::string::npos);
  header.version = 9;
  CHECK(reason().find("version 9") != std::string::npos);
  header = {};
  header.magic = 0x20544547;  // "GET "
  CHECK(reason().find("not of Persia's protocol") != std::string::npos);
  header = {};
  header.kind = MessageKind(0);
  CHECK(reason().find("unknown kind") != std::string::npos);
  header.kind = MessageKind(200);
  CHECK(reason().find("unknown kind") != std::string::npos);
  header = {};
  header.formats = 0x30;
  CHECK(reason().find("unknown kind or format") != std::string::npos);
  CHECK(ParseHeader({}, {}, &parsed).message().find("header of 0 bytes") != std::string::npos);
}

TEST_CASE("A checksum over pieces is the one over the whole") {
  const Buffer whole = PatternBuffer(4, 100'000);
  Payload pieces;
  pieces.Add(whole.bytes().first(1), nullptr).Add(whole.bytes().subspan(1, 70'000), nullptr);
  pieces.Add(whole.bytes().subspan(70'001), nullptr);
  MessageHeader header;
  SealMessage(pieces, &header);
  CHECK(CheckPayload(header, whole.bytes()).ok());
}

TEST_CASE("Buffers above the smallest sizes are used again") {
  const std::byte* first;
  {
    Buffer buffer(100'000);
    first = buffer.data();
  }
  CHECK(BufferPool::idle_bytes() >= 100'000);
  Buffer again(120'000);
  CHECK(again.data() == first);
}

}  // namespace
}  // namespace persia
