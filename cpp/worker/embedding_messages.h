// What data loaders and NN workers say to an embedding worker: types and payloads of its requests, for both ends
// (embedding_server.h, remote_embeddings.h). Readers check what they read and take memory only for what is there.
//
//   part      step u64, rank u32, rows u32: a PartRef and its samples
//   ids       for each feature: offsets u8 (whether there are some), their differences u32 (rows) if so, then the ids in
//             the codec of the message's WireFlags
//   pooled    (rows, embedding_width) in the format of the message's WireFlags
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch/batch.h"
#include "net/wire.h"
#include "worker/step_embeddings.h"

namespace persia {

// Types of requests; from 0x200 those of embedding workers.
namespace embedding_request {
inline constexpr uint16_t kHold = 0x200;         // count u32, (part, ids)… -> nothing
inline constexpr uint16_t kLookup = 0x201;       // part -> pooled
inline constexpr uint16_t kUpdate = 0x202;       // part, gradients of pooled -> nothing, when they are applied
inline constexpr uint16_t kPredict = 0x203;      // rows u32, ids -> pooled, in f32; nothing is held
inline constexpr uint16_t kLeave = 0x204;        // rank u32: NN worker that is gone
inline constexpr uint16_t kSeen = 0x205;         // -> registers of a HyperLogLog, for each feature
inline constexpr uint16_t kRestoreSeen = 0x206;  // the same
inline constexpr uint16_t kSkip = 0x207;         // part -> nothing: as kUpdate, of no row
}  // namespace embedding_request

// A part of a step, as requests begin.
struct PartHead {
  PartRef ref;
  uint32_t rows = 0;
};
void WritePart(WireWriter& writer, const PartHead& part);
PartHead ReadPart(WireReader& reader);

// The ids of a batch or a part of one.
void WriteIds(WireWriter& writer, IdCodec codec, const Batch& batch);

// A batch that has ids only, in memory of its own. `rows` and lengths are checked against what is there, not against a
// model: ValidateBatch does that.
struct IdBatch {
  struct Column {
    std::vector<uint32_t> offsets;
    std::vector<uint64_t> ids;
  };
  std::vector<Column> columns;
  Batch batch;
};
std::unique_ptr<IdBatch> ReadIds(WireReader& reader, IdCodec codec, uint32_t rows, size_t features);

// Registers of HyperLogLogs by feature.
Buffer EncodeSeen(const std::vector<std::vector<uint8_t>>& seen);
Result<std::vector<std::vector<uint8_t>>> DecodeSeen(Bytes bytes, size_t features);

// Which of so many embedding workers holds a part: equal shares, and the same one for whoever asks.
inline uint32_t EmbeddingWorkerOf(PartRef ref, uint32_t embedding_workers) {
  return static_cast<uint32_t>((ref.step + ref.rank) % embedding_workers);
}

}  // namespace persia
