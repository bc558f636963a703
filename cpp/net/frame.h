// A frame: what goes before each payload between two processes' transports, and messages on their way out and in.
//
//   byte  0       8        16               64
//         | token | number | MessageHeader  | payload …
//
// A goodbye, the last frame of a connection, is the first two fields alone; in streams of bytes, a header of zeros.
//
// Thread-safety: values.
#pragma once

#include <cstdint>

#include "net/message.h"

namespace persia {

struct FrameHead {
  uint64_t token;   // of the connection: 64 random bits of the receiver's
  uint64_t number;  // 0, 1, … of its connection and direction
  MessageHeader message;
};
static_assert(sizeof(FrameHead) == 16 + sizeof(MessageHeader));
constexpr size_t kGoodbyeBytes = 16;

struct Outgoing {
  bool goodbye = false;
  FrameHead head{};
  Payload payload;
};

}  // namespace persia
