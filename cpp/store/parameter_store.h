// ParameterStore: where embedding rows live, as the embedding worker sees it. Local here; the cluster's remote store
// routes the same calls to parameter servers by sign, one frame per server and call.
//
// Thread-safety: implementations are internally synchronised.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "table/table.h"

namespace persia {

// Names a call so that a retry is recognised: each worker numbers its requests 1, 2, 3, … without gaps.
struct RequestId {
  uint64_t worker = 0;
  uint64_t sequence = 0;
};

// The distinct signs of one row class in a call, and where their embeddings go or their gradients come from.
struct LookupBlock {
  uint32_t row_class = 0;
  std::span<const uint64_t> signs;  // (n), distinct
  float* out = nullptr;             // (n, dim of the class) f32
};
struct GradientBlock {
  uint32_t row_class = 0;
  std::span<const uint64_t> signs;   // (n), distinct
  const float* gradients = nullptr;  // (n, dim of the class) f32
};

// One row with its state and its age, for checkpoints and `table.get/set`.
using RowVisitor = std::function<void(uint64_t sign, std::span<const float> row, RowAge age)>;

class ParameterStore {
 public:
  virtual ~ParameterStore() = default;

  virtual Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) = 0;

  // Applies the row optimizer exactly once for each request id: a request that was applied before is acknowledged
  // again and changes nothing. Requests of one worker come in order of their sequence.
  virtual Status Apply(RequestId id, std::span<const GradientBlock> blocks) = 0;

  virtual uint32_t row_class_count() const = 0;
  virtual uint32_t row_width(uint32_t row_class) const = 0;  // floats
  virtual Status Scan(uint32_t row_class, const RowVisitor& visit) const = 0;
  // Inserts or replaces a row as the most recent one, or at `age`. At capacity another one is evicted for it.
  virtual Status Write(uint32_t row_class, uint64_t sign, std::span<const float> row,
                       std::optional<RowAge> age = std::nullopt) = 0;
  virtual Result<bool> Read(uint32_t row_class, uint64_t sign, std::span<float> row) const = 0;
  virtual Status Clear() = 0;
  virtual TableCounters counters(uint32_t row_class) const = 0;
  // By feature group, signs of no group last.
  virtual std::vector<TableCounters> group_counters(uint32_t row_class) const = 0;

  // What the tables of a row class know beside their rows (Table::SaveState): part of a checkpoint, restored before its
  // rows are written. False: the state is of tables of another shape; nothing is taken of it.
  virtual Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const = 0;
  virtual Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) = 0;

  // The last applied sequence of each worker: part of a checkpoint.
  virtual std::vector<RequestId> AppliedRequests() const = 0;
  virtual void RestoreAppliedRequests(std::span<const RequestId> requests) = 0;
};

}  // namespace persia
