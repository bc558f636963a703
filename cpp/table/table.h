// The embedding table of one row class: a concurrent map from sign to a fixed-width row (embedding, then optimizer
// state).
//
//   table ── partition: the groups that share the capacity ── shard … shard     up to 64 by the top bits of Mix64(sign)
//         └─ partition: a group with a capacity of its own ── shard … shard     (more where a shard would be too large)
//   shard ── index (table/sign_index.h): sign -> slot, clock, lock            15 bytes a row at capacity
//         ├─ slots (table/slot_pool.h): the rows, which never move            on whole cache lines, in huge pages
//         └─ seats and clock (table/shard.h): capacity and eviction
//
// A lookup reads one line of the index and the row's lines. Calls are software-pipelined: while a row is copied,
// those of the next signs are on their way from memory, and the index lines of the signs after them.
//
// What holds when calls run at once
//  - Lookups never wait, and read rows whole (table/row_guard.h): before or after an update, never a mixture.
//  - Updates of one row happen one after another; each is applied once or counted in missed_updates or
//    non_finite_skipped.
//  - A sign has at most one row. The table never has more rows than its capacity; every eviction and refusal is
//    counted.
//  - A row's update and its eviction exclude each other: an update that was counted neither as missed nor as skipped
//    was in the row when it left, if it left.
//
// Thread-safety: internally synchronised. Batched operations are not atomic as a whole. Results of one caller are
// deterministic: they depend on the order of calls only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "table/table_parts.h"

namespace persia {

class Shard;
struct RowProbe;

enum class LookupMode {
  kTrain,    // unknown signs are inserted (if admitted), known ones become most recent
  kReadOnly  // unknown signs read as zeros; nothing changes
};

class Table {
 public:
  static constexpr uint32_t kMostShardBits = 6;    // unless shards would be larger than they can be
  static constexpr uint64_t kMinShardRows = 4096;  // capacity of a shard where there are several

  explicit Table(const TableOptions& options);
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  uint32_t dim() const;
  uint32_t row_width() const;  // floats: dim + optimizer state
  size_t row_bytes() const;    // of a row as it is stored
  uint64_t capacity_rows() const;

  // Copies the embeddings of `signs` (n), all distinct, to `out` (n, dim) f32. A sign that is not admitted reads as
  // zeros. `request` makes the admission draw: the same (seed, sign, request) draws the same.
  void Gather(std::span<const uint64_t> signs, LookupMode mode, uint64_t request, float* out);

  // Applies the row optimizer to each of `signs` (n), all distinct, with `gradients` (n, dim) f32. A sign without a
  // row and a gradient that is not finite are skipped and counted; the others are not affected. `request` makes the
  // random bits of stochastic rounding (fp16, bf16).
  void Apply(std::span<const uint64_t> signs, const float* gradients, uint64_t request);

  // Copies a whole row (row_width f32); false when there is none. Doesn't change recency.
  bool Read(uint64_t sign, float* row) const;
  // Inserts or replaces a whole row (row_width f32) as the most recent one, or at `age` (from a checkpoint); evicts at
  // capacity. False: there was no room (see TableCounters::refused).
  bool Write(uint64_t sign, const float* row, std::optional<RowAge> age = std::nullopt);
  bool Erase(uint64_t sign);
  void Clear();  // frees the rows' memory; keeps the counters

  // Calls `visit(sign, row (row_width f32), age)` for every row, in order of partition, shard and hash. Other calls may
  // run meanwhile, and `visit` may call the table: a row that is there from beginning to end is visited once, whole.
  // Clear doesn't end a scan, which goes on over the rows there were.
  void Scan(const std::function<void(uint64_t sign, const float* row, RowAge age)>& visit) const;

  uint64_t size() const;
  TableCounters counters() const;
  // By feature group, (group_count + 1), the last one for signs of no group. Bytes and lanes are shares by rows.
  std::vector<TableCounters> group_counters() const;

  // What a checkpoint keeps beside the rows: steps of the groups, clocks, frequencies. To be restored before the
  // rows. False: it is of a table of another shape; no more than the steps was restored, and rows written with their
  // ages still keep their order.
  std::vector<uint64_t> SaveState() const;
  bool RestoreState(std::span<const uint64_t> words);

 private:
  struct Partition;
  struct GroupCounters;
  struct Bodies;
  class HitReader;

  Shard& ShardOf(uint64_t sign) const;
  RowProbe Probe(uint64_t sign) const;
  template <typename Fast, typename Slow>
  void ForEach(std::span<const uint64_t> signs, size_t row_bytes, Fast fast, Slow slow) const;
  template <typename Visit>
  void ForEachShard(Visit visit) const;

  Tally& BeginCall() const;
  void EndCall(Tally& tally) const;
  void KeepTime(Tally& tally) const;
  void CountSteps(std::span<const uint64_t> signs, std::vector<uint64_t>& steps) const;

  const std::shared_ptr<TableParts> parts_;  // shared with partitions that Clear left to the epochs
  std::vector<std::atomic<Partition*>> partitions_;       // the shared one first
  mutable std::mutex owners_mutex_;                       // guards owners_; no call on rows takes it
  std::vector<std::shared_ptr<Partition>> owners_;        // of partitions_: Scan keeps what Clear replaces
  std::vector<uint32_t> partition_of_group_;              // (group_count + 1)
  std::unique_ptr<GroupCounters[]> counters_;             // (group_count + 1)
  std::unique_ptr<std::atomic<uint64_t>[]> group_steps_;  // (group_count + 1): calls of Apply that had the group
};

}  // namespace persia
