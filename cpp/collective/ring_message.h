// What the ranks of a ring say to each other: kChunk messages, whose header says what they are.
//
//   type         RingMessage
//   request id   the bucket
//   done below   | block: 23 bits | f64: 1 bit | step: 8 bits | values of the bucket: 32 bits |       of kData
//
//   payload of   kData: the share's values   kJoin: rank u32, ranks u32, secret text   kJoined: nothing
//                kFailed: a Status (rpc_session.h)   kLeft: rank u32, finished buckets u64
//                kAsk: who asks u32, count u32, ranks that have not started the bucket u32 …
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/message.h"

namespace persia {

enum class RingMessage : uint16_t { kJoin = 1, kJoined = 2, kData = 3, kFailed = 4, kLeft = 5, kAsk = 6 };

constexpr uint32_t kMostRingRanks = 120;  // twice as many steps fit 8 bits

struct RingStep {
  uint64_t bucket = 0;
  uint32_t block = 0;
  uint32_t step = 0;
  bool f64 = false;
  uint32_t count = 0;  // values of the whole bucket

  MessageHeader ToHeader() const;
  static RingStep FromHeader(const MessageHeader& header);
};

struct RingJoin {
  uint32_t rank = 0, ranks = 0;
  std::string secret;
};
struct RingLeft {
  uint32_t rank = 0;
  uint64_t finished = 0;
};
struct RingAsk {
  uint32_t asker = 0;
  std::vector<uint32_t> missing;
};

Buffer EncodeJoin(const RingJoin& join);
Buffer EncodeLeft(const RingLeft& left);
Buffer EncodeAsk(const RingAsk& ask);
Result<RingJoin> DecodeJoin(Bytes bytes);
Result<RingLeft> DecodeLeft(Bytes bytes);
Result<RingAsk> DecodeAsk(Bytes bytes);

}  // namespace persia
