// The header of every message between processes. Packed, little-endian, the same over every transport:
//
//   byte  0        4         5      6      8            10         12                16
//         | magic  | version | kind | type | formats    | 0        | header checksum | …
//        16                24               32                40                  48
//         | request id      | done below    | payload bytes   | payload checksum  |
//
//   formats:  bits 0-3 WireFormat of floats, bits 4-7 IdCodec of id lists, bits 8-15 zero
//
// The header has a checksum of its own (the low half of XXH3 over the rest of it), so that its length can be trusted
// before anything is done with it: a receiver checks the length against its limit before it takes memory. The payload's
// checksum is XXH3. Where a transport checks no data itself (shared memory), these find what went wrong on the way.
//
// Thread-safety: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "net/buffer.h"

namespace persia {

enum class MessageKind : uint8_t {
  kHello = 1,    // a client's first message: who it is, and the secret (rpc_session.h)
  kWelcome = 2,  // the server's answer to it
  kRefuse = 3,   // or this: a Status; the connection ends
  kRequest = 4,
  kReply = 5,    // of the request with the same id
  kFailure = 6,  // the same, but a Status
  kBye = 7,      // a client's last message: its session is over
  kChunk = 8,    // a part of a sum over ranks (ring_collective.h)
};

// How floats are written: see wire.h. The values are part of the protocol.
enum class WireFormat : uint8_t { kFp32 = 0, kFp16 = 1, kBf16 = 2, kInt8 = 3 };
enum class IdCodec : uint8_t { kRaw = 0, kLz4 = 1, kZstd = 2 };

struct WireFlags {
  WireFormat format = WireFormat::kFp32;
  IdCodec codec = IdCodec::kRaw;
};

struct MessageHeader {
  static constexpr uint32_t kMagic = 0x54'4e'53'50;  // "PSNT"
  static constexpr uint8_t kVersion = 1;

  uint32_t magic = kMagic;
  uint8_t version = kVersion;
  MessageKind kind = MessageKind::kRequest;
  uint16_t type = 0;  // of a request: which handler
  uint16_t formats = 0;
  uint16_t zero = 0;
  uint32_t header_checksum = 0;
  uint64_t request_id = 0;
  uint64_t done_below = 0;  // of a request: the client has the replies of all requests with smaller ids
  uint64_t payload_bytes = 0;
  uint64_t payload_checksum = 0;

  WireFlags flags() const { return {WireFormat(formats & 15), IdCodec(formats >> 4 & 15)}; }
  void set_flags(WireFlags flags) {
    formats = static_cast<uint16_t>(static_cast<unsigned>(flags.format) | static_cast<unsigned>(flags.codec) << 4);
  }
};
static_assert(sizeof(MessageHeader) == 48);
static_assert(offsetof(MessageHeader, kind) == 5 && offsetof(MessageHeader, type) == 6);
static_assert(offsetof(MessageHeader, formats) == 8 && offsetof(MessageHeader, header_checksum) == 12);
static_assert(offsetof(MessageHeader, request_id) == 16 && offsetof(MessageHeader, done_below) == 24);
static_assert(offsetof(MessageHeader, payload_bytes) == 32 && offsetof(MessageHeader, payload_checksum) == 40);

struct MessageLimits {
  uint64_t max_payload_bytes = 256u << 20;
};

// Fills in lengths and checksums: the last thing before a message leaves.
void SealMessage(const Payload& payload, MessageHeader* header);

// Reads a header out of what came. kProtocol, naming what is wrong: too short, not ours, another version, damaged, an
// unknown kind or format, or a payload above the limit. Takes no memory.
Status ParseHeader(Bytes bytes, const MessageLimits& limits, MessageHeader* header);

// Whether the payload is the one that was sent. kProtocol: another length or checksum.
Status CheckPayload(const MessageHeader& header, Bytes payload);
// The same, of a payload whose XXH3 is known.
Status CheckPayload(const MessageHeader& header, size_t payload_bytes, uint64_t checksum);

}  // namespace persia
