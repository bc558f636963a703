// What drivers and other NN workers say to an NN worker: types and payloads of its requests, for both ends
// (nn_server.h, cluster_trainer.h). Floats travel as f32. Readers check what they read and take memory only for what is
// there.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dense/dense_model.h"
#include "dense/loss_scaler.h"
#include "net/wire.h"
#include "trainer/model_trainer.h"
#include "trainer/nn_worker.h"

namespace persia {

// Types of requests; from 0x300 those of NN workers.
namespace nn_request {
inline constexpr uint16_t kPart = 0x300;     // StepPart with dense f32…, labels f32…, filled u32… -> nothing, when it has a slot
inline constexpr uint16_t kWatch = 0x301;    // version u64 -> NnState, when it is another version, or after a while
inline constexpr uint16_t kControl = 0x302;  // NnControl
inline constexpr uint16_t kStop = 0x303;     // Status: trains nothing more
inline constexpr uint16_t kPredict = 0x304;  // rows u32, input f32… -> outputs f32…
inline constexpr uint16_t kTrace = 0x305;    // -> spans of its stages
// Of checkpoints, at rest or before the first part.
inline constexpr uint16_t kTensors = 0x310;        // -> names and shapes of the dense network's tensors
inline constexpr uint16_t kReadTensor = 0x311;     // TensorRange -> f32…
inline constexpr uint16_t kWriteTensor = 0x312;    // TensorRange, f32…
inline constexpr uint16_t kInFlight = 0x313;       // -> InFlightHead…
inline constexpr uint16_t kReadInFlight = 0x314;   // step u64 -> pooled f32…
inline constexpr uint16_t kRestoreLookup = 0x315;  // step u64, rows of the step u32, pooled f32…
inline constexpr uint16_t kStartAfter = 0x316;     // NnStart
// Of the shared dense store, at rank 0, in mode async.
inline constexpr uint16_t kPull = 0x320;  // -> updates u64, weights f32…
inline constexpr uint16_t kPush = 0x321;  // step u64, pulled u64, gradients f32…
}  // namespace nn_request

// ---- parts ----------------------------------------------------------------------------------------------------------

void WriteStepPart(WireWriter& writer, const StepPart& part);  // without dense, labels and filled
// Views on the message's bytes, whose sizes are checked.
Result<StepPart> DecodeStepPart(Bytes bytes, const TrainerConfig& config);

// ---- state and control ----------------------------------------------------------------------------------------------

// What an NN worker shall do; each message replaces the one before.
struct NnControl {
  uint64_t number = 0;                // of this message: states tell the last one that they have seen
  std::optional<uint64_t> pause_at;   // StalenessGate::Resume
  uint64_t drained_to = 0;            // StalenessGate::Drain
};
Buffer EncodeControl(const NnControl& control);
Result<NnControl> DecodeControl(Bytes bytes);

// What an NN worker tells of itself.
struct NnState {
  uint64_t version = 0;
  uint64_t control = 0;  // number of the last control that it follows
  uint64_t applied = 0;
  bool at_rest = false;
  uint64_t staleness = 0;
  std::vector<uint64_t> histogram;  // lookups by staleness
  uint64_t samples = 0;
  double loss_sum = 0, loss_steps = 0;
  bool ended = false;               // nothing moves any more
  Status failure;
  std::vector<StageReport> stages;
  DenseStore::Staleness dense_staleness;  // of the shared dense store, at rank 0
  uint64_t dense_updates = 0;             // known at rest
  LossScaler::State scaling;
};
Buffer EncodeState(const NnState& state);
Result<NnState> DecodeState(Bytes bytes);

Buffer EncodeSpans(const std::vector<StageSpans>& stages);
Result<std::vector<StageSpans>> DecodeSpans(Bytes bytes);

// ---- checkpoints ----------------------------------------------------------------------------------------------------

// Where an NN worker starts, after a restored checkpoint.
struct NnStart {
  uint64_t step = 0;                         // up to this one all are done
  uint64_t dense_updates = 0;
  std::optional<LossScaler::State> scaling;  // nothing: as configured
};
Buffer EncodeStart(const NnStart& start);
Result<NnStart> DecodeStart(Bytes bytes);

// Some values of a tensor; so many at once that a message stays small.
inline constexpr uint64_t kTensorPiece = 4u << 20;
struct TensorRange {
  uint32_t tensor = 0;
  uint64_t begin = 0, count = 0;
};
void WriteTensorRange(WireWriter& writer, const TensorRange& range);
TensorRange ReadTensorRange(WireReader& reader);

struct TensorShape {
  std::string name;
  std::vector<uint64_t> shape;
};
Buffer EncodeTensors(const std::vector<NamedTensor>& tensors);
Result<std::vector<TensorShape>> DecodeTensors(Bytes bytes);

// A lookup in flight, without its rows.
struct InFlightHead {
  uint64_t step = 0;
  uint32_t global_rows = 0, first_row = 0, rows = 0;
};
Buffer EncodeInFlight(const std::vector<InFlight>& lookups);
Result<std::vector<InFlightHead>> DecodeInFlight(Bytes bytes);

}  // namespace persia
