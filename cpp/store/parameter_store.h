// ParameterStore: where embedding rows live. Local, or on the parameter servers of a cluster, which the same calls are
// routed to by sign, one frame per server and call.
//
// Its first half, EmbeddingRows, is what an embedding worker needs of it: rows of a step and their gradients.
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

class EmbeddingRows {
 public:
  virtual ~EmbeddingRows() = default;

  virtual uint32_t row_class_count() const = 0;

  virtual Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) = 0;

  // Applies the row optimizer exactly once for each request id: a request that was applied before is acknowledged
  // again and changes nothing. Requests of one worker come in order of their sequence.
  virtual Status Apply(RequestId id, std::span<const GradientBlock> blocks) = 0;
};

// One row with its state and its age, for checkpoints and `table.get/set`.
using RowVisitor = std::function<void(uint64_t sign, std::span<const float> row, RowAge age)>;

class ParameterStore : public EmbeddingRows {
 public:
  virtual uint32_t row_width(uint32_t row_class) const = 0;  // floats
  virtual Status Scan(uint32_t row_class, const RowVisitor& visit) const = 0;
  // Inserts or replaces rows (n, row_width) one after another, as the most recent ones or at `ages` (n; empty: none).
  // At capacity others are evicted for them.
  virtual Status WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                           std::span<const RowAge> ages) = 0;
  // Copies rows (n, row_width); `found` (n): whether there is one. Where there is none the row reads as zeros.
  virtual Status ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                          uint8_t* found) const = 0;
  virtual Status Clear() = 0;
  // Rows held now.
  virtual Result<uint64_t> RowCount(uint32_t row_class) const = 0;
  // Of a remote store: of the servers that answer.
  virtual TableCounters counters(uint32_t row_class) const = 0;
  // By feature group, signs of no group last.
  virtual std::vector<TableCounters> group_counters(uint32_t row_class) const = 0;

  // What the tables of a row class know beside their rows (Table::SaveState): part of a checkpoint, restored before its
  // rows are written. False: the state is of tables of another shape; nothing is taken of it.
  virtual Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const = 0;
  virtual Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) = 0;

  // The last applied sequence of each worker: part of a checkpoint.
  virtual Result<std::vector<RequestId>> AppliedRequests() const = 0;
  virtual Status RestoreAppliedRequests(std::span<const RequestId> requests) = 0;

  // The same for one row.
  Status Write(uint32_t row_class, uint64_t sign, std::span<const float> row,
               std::optional<RowAge> age = std::nullopt) {
    return WriteMany(row_class, {&sign, 1}, row, age ? std::span<const RowAge>(&*age, 1) : std::span<const RowAge>());
  }
  Result<bool> Read(uint32_t row_class, uint64_t sign, std::span<float> row) const {
    uint8_t found = 0;
    PERSIA_RETURN_IF_ERROR(ReadMany(row_class, {&sign, 1}, row, &found));
    return found != 0;
  }
};

}  // namespace persia
