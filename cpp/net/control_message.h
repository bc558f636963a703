// What two processes' transports say to each other before messages flow, over the control connection: a plain TCP connection to the
// address that was listened at. It stays open: when it ends, so has the peer.
//
//   byte  0        4         6      8             12
//         | magic  | version | kind | body bytes  | body
//
//   Offer   client → server   secret text | what was asked for u8 | host text | count u32 | device text … | no_rdma text |
//                             token u64
//   Answer  server → client   kind u8 | why text | token u64 | place text: of UCX's worker, or the name of shared memory
//   Place   client → server   place text: of UCX's worker; empty for shared memory and TCP
//   Wake    either way        nothing: look into the shared memory
//   Refuse  server → client   the reason, a text
//
// The secret is checked before anything is handed to UCX, which trusts what it is given.
//
// `token` names the connection in the messages that its sender will get: 64 random bits, so that nobody else's messages get
// in.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/buffer.h"
#include "net/transport_choice.h"

namespace persia {

enum class ControlKind : uint16_t { kOffer = 1, kAnswer = 2, kPlace = 3, kRefuse = 4, kWake = 5 };

struct ControlHead {
  static constexpr uint32_t kMagic = 0x54'43'53'50;  // "PSCT"
  static constexpr uint16_t kVersion = 1;
  static constexpr uint32_t kMostBodyBytes = 64 * 1024;

  uint32_t magic = kMagic;
  uint16_t version = kVersion;
  ControlKind kind = ControlKind::kRefuse;
  uint32_t body_bytes = 0;
};
static_assert(sizeof(ControlHead) == 12);

struct ControlOffer {
  std::string secret;
  TransportChoice asked = TransportChoice::kAuto;
  TransportReach reach;
  uint64_t token = 0;
};
struct ControlAnswer {
  ChosenTransport chosen;
  uint64_t token = 0;
  std::string place;
};

std::string EncodeOffer(const ControlOffer& offer);
std::string EncodeAnswer(const ControlAnswer& answer);
std::string EncodePlace(const std::string& place);
std::string EncodeRefusal(const std::string& why);
std::string EncodeWake();

Result<ControlOffer> DecodeOffer(Bytes body);
Result<ControlAnswer> DecodeAnswer(Bytes body);
Result<std::string> DecodePlace(Bytes body);
std::string DecodeRefusal(Bytes body);

// Takes the next whole message off the front of what has been read; nothing when there is none yet. kProtocol: what came
// is not ours, of another version or too long.
struct ControlMessage {
  ControlKind kind;
  std::string body;
};
Result<std::optional<ControlMessage>> NextControlMessage(std::string* read);

}  // namespace persia
