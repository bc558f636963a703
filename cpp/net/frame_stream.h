// Frames over a stream of bytes: FrameWriter writes those that wait, FrameReader reads those that come, as far as the link
// goes without blocking. The reader takes memory for a payload only when its user says so, who has checked the head by then.
//
// The checksum of a long payload is computed part by part while it comes: parts are in the cache then, and the other side
// writes the next one meanwhile.
//
// Thread-safety: thread-confined.
#pragma once

#include <deque>
#include <memory>

#include "base/hash.h"
#include "net/byte_link.h"
#include "net/frame.h"

namespace persia {

class FrameWriter {
 public:
  void Add(std::unique_ptr<Outgoing> frame) { frames_.push_back(std::move(frame)); }
  bool empty() const { return frames_.empty(); }
  void Clear() { frames_.clear(); }

  struct Wrote {
    size_t bytes = 0;          // to the link
    size_t payload_bytes = 0;  // of the frames that are out, whose payloads are let go
  };
  // Until the link is full, or has taken `most` bytes: others wait for their turn.
  Wrote Write(ByteLink* link, size_t most);

 private:
  size_t Gather(size_t most, std::span<Bytes> pieces, size_t* count) const;
  size_t Drop();

  std::deque<std::unique_ptr<Outgoing>> frames_;
  size_t written_ = 0;  // of the first one, with its head
};

class FrameReader {
 public:
  // Reads a head on. Bytes that came.
  size_t ReadHead(ByteLink* link);
  bool has_head() const { return head_bytes_ == sizeof(FrameHead); }
  const FrameHead& head() const { return head_; }

  // The memory that the payload of this head goes to: as many bytes as that has.
  void Place(Buffer payload);
  // Reads the payload on, at most so many bytes. Bytes that came.
  size_t ReadPayload(ByteLink* link, size_t most);
  bool whole() const { return has_head() && payload_bytes_ == payload_.size(); }

  // Of a whole frame.
  uint64_t checksum();
  // The whole frame's payload; the next head comes then.
  Buffer Take();
  // Lets the memory of a frame that is not whole go.
  void Clear();

 private:
  FrameHead head_{};
  size_t head_bytes_ = 0;
  Buffer payload_;
  size_t payload_bytes_ = 0;
  Xxh3Stream sum_;
  size_t summed_ = 0;  // bytes in sum_
};

}  // namespace persia
