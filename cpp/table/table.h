// The embedding table of one row class: a concurrent map from sign to a fixed-width row (embedding, then optimizer
// state).
//
// Layout now: up to 64 shards chosen by the top bits of Mix64(sign); each has a mutex and an LruRows: an
// open-addressing index, rows in chunks that grow with use, and a doubly linked recency list. At capacity an insert
// evicts the least recently looked-up row of its shard. Shards share the capacity evenly, so a table may evict a
// little before it is full; a table too small to give each shard kMinShardRows has fewer shards, down to one with an
// exact order of eviction.
//
// Invariants
//  - a sign is in at most one slot, and in the shard of its hash;
//  - the recency list of a shard holds exactly its live slots, oldest first;
//  - size never exceeds capacity; every eviction, refusal and missed update is counted.
//
// Batched calls sort their signs by shard and take each shard's mutex once; within a shard they keep the caller's
// order.
//
// Thread-safety: internally synchronised, a row is read or updated under its shard's mutex. Batched operations are not
// atomic as a whole. Results of one caller are deterministic: they depend on the order of calls only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "table/initializer.h"
#include "table/row_optimizer.h"

namespace persia {

struct TableOptions {
  uint32_t dim = 0;
  RowOptimizerConfig optimizer;
  InitializerConfig initializer;
  uint64_t seed = 0;
  uint64_t capacity_rows = 0;      // > 0
  double admit_probability = 1.0;  // of inserting a sign that a training lookup misses
};

enum class LookupMode {
  kTrain,    // unknown signs are inserted (if admitted), known ones become most recent
  kReadOnly  // unknown signs read as zeros; nothing changes
};

struct TableCounters {
  uint64_t rows = 0, bytes = 0;                       // held now
  uint64_t hits = 0, misses = 0;                      // looked-up signs, in both modes
  uint64_t inserts = 0, evictions = 0, refused = 0;   // inserts: by lookups; evictions: by lookups and writes
  uint64_t missed_updates = 0;     // gradients whose row was evicted or never admitted: skipped
  uint64_t non_finite_skipped = 0; // gradients with NaN or Inf: skipped
};

class Table {
 public:
  static constexpr uint32_t kShardBits = 6;          // of the largest number of shards
  static constexpr uint64_t kMinShardRows = 4096;    // capacity of a shard where there are several

  explicit Table(const TableOptions& options);
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  uint32_t dim() const;
  uint32_t row_width() const;  // floats: dim + optimizer state

  // Copies the embeddings of `signs` (n), all distinct, to `out` (n, dim) f32. A sign that is not admitted reads as
  // zeros. `request` makes the admission draw: the same (seed, sign, request) draws the same.
  void Gather(std::span<const uint64_t> signs, LookupMode mode, uint64_t request, float* out);

  // Applies the row optimizer to each of `signs` (n), all distinct, with `gradients` (n, dim) f32. A sign without a
  // row and a gradient that is not finite are skipped and counted; the others are not affected.
  void Apply(std::span<const uint64_t> signs, const float* gradients);

  // Copies a whole row (row_width f32); false when there is none. Doesn't change recency.
  bool Read(uint64_t sign, float* row) const;
  // Inserts or replaces a whole row (row_width f32) as the most recent one; evicts at capacity.
  void Write(uint64_t sign, const float* row);
  bool Erase(uint64_t sign);
  void Clear();  // frees the rows' memory; keeps the counters

  // Calls `visit(sign, row)` for every row: shard by shard, least recent first, so that writing the rows back in this
  // order restores recency. Each shard is locked while it is visited; `visit` must not call the table.
  void Scan(const std::function<void(uint64_t sign, const float* row)>& visit) const;

  uint64_t size() const;
  TableCounters counters() const;

 private:
  struct Shard;
  struct Probe;
  class ProbesByShard;

  const ProbesByShard& SortByShard(std::span<const uint64_t> signs) const;
  Shard& ShardOf(uint64_t hash) const;
  // The initialised row of a sign that had none; nullptr when the draw does not admit it. The shard is locked.
  const float* InsertIfAdmitted(Shard& shard, const Probe& probe, uint64_t request) const;

  const TableOptions options_;
  const RowOptimizer optimizer_;
  const uint32_t shard_shift_;  // of the top kShardBits of a hash
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace persia
