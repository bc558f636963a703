// What the driver says to another data loader: types and payloads of its requests, for both ends (loader_server.h,
// loader_clients.h). Readers check what they read and take memory only for what is there.
//
//   place     pass u64, batch u64: a BatchPlace
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>

#include "batch/batch.h"
#include "net/wire.h"
#include "trainer/loader_queue.h"

namespace persia {

// Types of requests; from 0x400 those of data loaders.
namespace loader_request {
inline constexpr uint16_t kOpen = 0x400;  // pass u64, text -> nothing
inline constexpr uint16_t kAsk = 0x401;   // place -> there u8, rows u32; when the batch is ready or the pass has no such one
inline constexpr uint16_t kSend = 0x402;  // place, step u64 -> nothing, when the NN workers have it
}  // namespace loader_request

Buffer EncodePass(const LoaderQueue::Pass& pass);
Result<LoaderQueue::Pass> DecodePass(Bytes bytes);

Buffer EncodePlace(const BatchPlace& place);
Result<BatchPlace> DecodePlace(Bytes bytes);

Buffer EncodeAskReply(std::optional<uint32_t> rows);
Result<std::optional<uint32_t>> DecodeAskReply(Bytes bytes);

struct SendOrder {
  BatchPlace place;
  uint64_t step = 0;
};
Buffer EncodeSendOrder(const SendOrder& order);
Result<SendOrder> DecodeSendOrder(Bytes bytes);

}  // namespace persia
