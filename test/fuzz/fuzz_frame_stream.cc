// Fuzz target of frames over a stream of bytes, which comes and goes in pieces of any size: whatever comes, a reader hands out
// the bytes behind each right head, with their checksum, and takes no memory for wrong ones; and what a writer wrote in pieces
// a reader reads as it was.
//
// An input: a byte that says which of the two, one that seeds the sizes of pieces, then the stream, or lengths of payloads.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"
#include "net/frame_stream.h"
#include "seeds.h"

namespace persia {
namespace {

constexpr MessageLimits kLimits{1 << 20};

uint64_t Below(Rng& rng, uint64_t bound) { return rng.Next() % bound; }

// A stream with itself: what is written can be read, in pieces of random sizes.
class PiecesLink final : public ByteLink {
 public:
  explicit PiecesLink(uint64_t seed) : rng_(seed) {}

  size_t Write(std::span<const Bytes> pieces) override {
    size_t room = Some(), wrote = 0;
    for (const Bytes piece : pieces) {
      const size_t count = std::min(room, piece.size());
      stream_.insert(stream_.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
      room -= count;
      wrote += count;
    }
    return wrote;
  }
  size_t Read(std::span<std::byte> out) override {
    const size_t count = std::min({out.size(), stream_.size() - read_, Some()});
    if (count > 0) std::memcpy(out.data(), &stream_[read_], count);
    read_ += count;
    return count;
  }
  Status status() const override { return Status::Ok(); }

  bool drained() const { return read_ == stream_.size(); }
  size_t place() const { return read_; }
  Bytes stream() const { return stream_; }

 private:
  // None now and then, single bytes, or many.
  size_t Some() { return Below(rng_, 4) == 0 ? Below(rng_, 3) : Below(rng_, 100'000); }

  Rng rng_;
  std::vector<std::byte> stream_;
  size_t read_ = 0;
};

// The next right frame's payload, or nothing once the stream has ended or a head is wrong.
bool ReadFrame(FrameReader& reader, PiecesLink& link, MessageHeader* header, Buffer* payload) {
  while (!reader.has_head()) {
    if (reader.ReadHead(&link) == 0 && link.drained()) return false;
  }
  const Bytes bytes(reinterpret_cast<const std::byte*>(&reader.head().message), sizeof(MessageHeader));
  if (!ParseHeader(bytes, kLimits, header).ok()) return false;
  const size_t begin = link.place();
  reader.Place(Buffer(header->payload_bytes));
  while (!reader.whole()) {
    if (reader.ReadPayload(&link, kLimits.max_payload_bytes) == 0 && link.drained()) return false;
  }
  const uint64_t checksum = reader.checksum();
  *payload = reader.Take();
  PERSIA_CHECK(payload->size() == header->payload_bytes);
  PERSIA_CHECK(std::ranges::equal(payload->bytes(), link.stream().subspan(begin, payload->size())));
  PERSIA_CHECK(checksum == Xxh3(payload->data(), payload->size()));
  return true;
}

void CheckStream(Bytes bytes, uint64_t seed) {
  PiecesLink link(seed);
  for (size_t wrote = 0; wrote < bytes.size();) {
    const Bytes rest = bytes.subspan(wrote);
    wrote += link.Write({&rest, 1});
  }
  FrameReader reader;
  MessageHeader header;
  Buffer payload;
  while (ReadFrame(reader, link, &header, &payload)) {
  }
  reader.Clear();
}

// Payloads of one to three pieces.
std::unique_ptr<Outgoing> MakeFrame(uint64_t number, size_t bytes, Rng& rng) {
  auto frame = std::make_unique<Outgoing>();
  for (uint64_t pieces = 1 + Below(rng, 3); pieces > 0; --pieces) {
    Buffer piece(pieces == 1 ? bytes : Below(rng, bytes + 1));
    std::ranges::fill(piece.span(), static_cast<std::byte>(number + pieces));
    bytes -= piece.size();
    frame->payload.Add(std::move(piece));
  }
  frame->head.number = number;
  SealMessage(frame->payload, &frame->head.message);
  return frame;
}

void CheckRoundTrip(Bytes lengths, uint64_t seed) {
  Rng rng(seed);
  PiecesLink link(seed);
  FrameWriter writer;
  std::vector<uint64_t> checksums;
  size_t payloads = 0, wrote = 0;
  for (const std::byte length : lengths.first(std::min<size_t>(lengths.size(), 8))) {
    const size_t bytes = static_cast<size_t>(length) * (Below(rng, 4) == 0 ? 300 : 1);
    auto frame = MakeFrame(checksums.size(), bytes, rng);
    checksums.push_back(frame->head.message.payload_checksum);
    payloads += bytes;
    writer.Add(std::move(frame));
    wrote += writer.Write(&link, 1 + Below(rng, 50'000)).payload_bytes;
  }
  while (!writer.empty()) wrote += writer.Write(&link, 1 + Below(rng, 50'000)).payload_bytes;
  PERSIA_CHECK(wrote == payloads);
  FrameReader reader;
  MessageHeader header;
  Buffer payload;
  for (const uint64_t checksum : checksums) {
    PERSIA_CHECK(ReadFrame(reader, link, &header, &payload));
    PERSIA_CHECK(header.payload_checksum == checksum);
    PERSIA_CHECK(CheckPayload(header, payload.bytes()).ok());
  }
  PERSIA_CHECK(link.drained());
}

void CheckInput(Bytes bytes) {
  if (bytes.size() < 2) return;
  const auto seed = static_cast<uint64_t>(bytes[1]);
  if (static_cast<unsigned>(bytes[0]) % 2 == 0) {
    CheckStream(bytes.subspan(2), seed);
  } else {
    CheckRoundTrip(bytes.subspan(2), seed);
  }
}

Seeds MakeSeeds() {
  Rng rng(1);
  PiecesLink link(1);
  FrameWriter writer;
  for (const size_t bytes : {5, 0, 300}) writer.Add(MakeFrame(bytes, bytes, rng));
  while (!writer.empty()) writer.Write(&link, 100);
  const Bytes stream = link.stream();
  return {{"stream", std::string("\0\1", 2) + std::string(reinterpret_cast<const char*>(stream.data()), stream.size())},
          {"round-trip", std::string("\1\1\0\377\200\5", 6)}};
}

}  // namespace
}  // namespace persia

#include "entry_points.h"
