// What client and server of rpc.h say to each other beside requests: the payloads of Hello, Welcome, Refuse and Failure.
//
//   Hello     protocol u32 | session u64 | client id u64 | secret text
//   Welcome   incarnation u64
//   Refuse, Failure: a Status     code text | message text | count u32 | key text, value text …
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "net/buffer.h"

namespace persia {

// Version of what is said above the message header: raised when the meaning of any message changes.
constexpr uint32_t kRpcProtocol = 1;

struct RpcHello {
  uint32_t protocol = kRpcProtocol;
  uint64_t session = 0;
  uint64_t client_id = 0;
  std::string secret;
};

Buffer EncodeHello(const RpcHello& hello);
Result<RpcHello> DecodeHello(Bytes bytes);

Buffer EncodeWelcome(uint64_t incarnation);
Result<uint64_t> DecodeWelcome(Bytes bytes);

// Long messages and details are cut. An unknown code, of a newer release, becomes kInternal with its name in the message.
Buffer EncodeStatus(const Status& status);
// The status that was sent (never OK); kProtocol when the bytes are none. Both are errors to whoever waits for an answer.
Status DecodeStatus(Bytes bytes);

// Takes as long for any two secrets of the same length.
bool SameSecret(std::string_view a, std::string_view b);

// A number that nobody guesses and nobody draws twice, not 0.
uint64_t RandomNumber();

}  // namespace persia
