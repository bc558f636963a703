#include "net/frame_stream.h"

#include <algorithm>
#include <array>
#include <utility>

namespace persia {
namespace {

constexpr size_t kPartBytes = 64 * 1024;

}  // namespace

FrameWriter::Wrote FrameWriter::Write(ByteLink* link, size_t most) {
  Wrote total;
  while (!frames_.empty() && total.bytes < most) {
    std::array<Bytes, ByteLink::kMostPieces> pieces;
    size_t count = 0;
    const size_t gathered = Gather(most - total.bytes, pieces, &count);
    const size_t wrote = link->Write(std::span(pieces).first(count));
    total.bytes += wrote;
    written_ += wrote;
    total.payload_bytes += Drop();
    if (wrote < gathered) break;
  }
  return total;
}

// What is left of the first frames, at most so many bytes of it. Returns their number.
size_t FrameWriter::Gather(size_t most, std::span<Bytes> pieces, size_t* count) const {
  size_t bytes = 0, skip = written_;
  const auto add = [&](Bytes piece) {
    const size_t skipped = std::min(skip, piece.size());
    skip -= skipped;
    const size_t taken = std::min(piece.size() - skipped, most - bytes);
    if (taken == 0) return;
    pieces[(*count)++] = piece.subspan(skipped, taken);
    bytes += taken;
  };
  for (const auto& frame : frames_) {
    if (bytes == most || *count + 1 + frame->payload.pieces() > pieces.size()) break;
    add({reinterpret_cast<const std::byte*>(&frame->head), sizeof(FrameHead)});
    for (size_t i = 0; i < frame->payload.pieces(); ++i) add(frame->payload.piece(i));
  }
  return bytes;
}

// Drops the frames that are out. Returns the bytes of their payloads.
size_t FrameWriter::Drop() {
  size_t payload_bytes = 0;
  while (!frames_.empty()) {
    const size_t payload = frames_.front()->payload.bytes();
    if (written_ < sizeof(FrameHead) + payload) break;
    written_ -= sizeof(FrameHead) + payload;
    payload_bytes += payload;
    const auto out = std::move(frames_.front());  // whoever it tells that it is out may send more
    frames_.pop_front();
  }
  return payload_bytes;
}

size_t FrameReader::ReadHead(ByteLink* link) {
  auto* const head = reinterpret_cast<std::byte*>(&head_);
  const size_t count = link->Read({head + head_bytes_, sizeof(FrameHead) - head_bytes_});
  head_bytes_ += count;
  return count;
}

void FrameReader::Place(Buffer payload) {
  payload_ = std::move(payload);
  payload_bytes_ = 0;
  summed_ = 0;
}

size_t FrameReader::ReadPayload(ByteLink* link, size_t most) {
  const std::span<std::byte> left = payload_.span().subspan(payload_bytes_);
  if (left.empty()) return 0;
  const size_t count = link->Read(left.first(std::min({left.size(), most, kPartBytes})));
  if (count == 0) return 0;
  payload_bytes_ += count;
  const bool at_once = payload_bytes_ == payload_.size() && summed_ == 0;
  if (at_once) return count;
  if (summed_ == 0) sum_.Reset();
  sum_.Update(left.data(), count);
  summed_ = payload_bytes_;
  return count;
}

uint64_t FrameReader::checksum() { return summed_ > 0 ? sum_.Digest() : Xxh3(payload_.data(), payload_.size()); }

Buffer FrameReader::Take() {
  head_bytes_ = 0;
  return std::exchange(payload_, Buffer());
}

void FrameReader::Clear() {
  head_bytes_ = 0;
  payload_ = Buffer();
}

}  // namespace persia
