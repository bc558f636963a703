// What the parts of a table share: its options, how its rows are laid out, and the counters of a call.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/cpu.h"
#include "table/frequency_sketch.h"
#include "table/initializer.h"
#include "table/row_format.h"
#include "table/row_optimizer.h"

namespace persia {

enum class EvictionPolicy { kLru, kLfu };  // least recently, least frequently looked up

// A feature group with room of its own, beside the capacity that the other groups share.
struct GroupCapacity {
  uint32_t group = 0;  // as in FeatureSpec: the prefix of its signs less 1
  uint64_t rows = 0;
};

struct TableOptions {
  uint32_t dim = 0;
  StorageType storage = StorageType::kFp32;  // of the embedding; optimizer state is float32
  RowOptimizerConfig optimizer;
  InitializerConfig initializer;
  uint64_t seed = 0;
  uint64_t capacity_rows = 0;      // one of these two is > 0; with both the smaller holds
  uint64_t capacity_bytes = 0;     // rows and their index
  double admit_probability = 1.0;  // of inserting a sign that a training lookup misses
  uint32_t admit_frequency = 1;    // the training lookup of a sign that inserts it (by a count-min sketch)
  EvictionPolicy eviction = EvictionPolicy::kLru;
  uint64_t time_to_live_ms = 0;  // of a row since its last training lookup, to 1/32; 0: for ever
  uint32_t prefix_bits = 8;      // of a sign, telling the feature groups apart
  uint32_t group_count = 0;      // groups that are counted one by one; the signs of no such group are "other"
  std::vector<GroupCapacity> group_capacities = {};
  std::function<uint64_t()> now_ms = {};  // a monotonic clock; empty: the system's
};

// What a checkpoint keeps of a row beside its values.
struct RowAge {
  // Of its shard's clock since its last training lookup; in an exact shard (Shard::kExactRows) uses of rows since then.
  // A larger shard takes uses for ticks and has 63 of those: rows beyond count as equally old there.
  uint32_t ticks = 0;
  uint64_t idle_ms = 0;  // only with a time to live
};

struct TableCounters {
  uint64_t rows = 0, bytes = 0, lanes = 0;           // held now; rows / lanes is the load of the index
  uint64_t hits = 0, misses = 0;                     // looked-up signs, in both modes
  uint64_t inserts = 0, evictions = 0, expired = 0;  // inserts: by lookups; expired: the evictions by time to live
  uint64_t refused = 0;             // missed signs that were not admitted, rows for which no room could be made
  uint64_t missed_updates = 0;      // gradients whose row was evicted or never admitted: skipped
  uint64_t non_finite_skipped = 0;  // gradients with NaN or Inf: skipped
};

// What one call counts, by feature group.
class Tally {
 public:
  struct Counts {
    uint32_t hits, misses, inserts, evictions, expired, refused, missed_updates, non_finite_skipped;
  };

  explicit Tally(size_t groups) : counts_(groups) {}
  Counts& operator[](size_t group) { return counts_[group]; }
  std::vector<Counts>& all() { return counts_; }

 private:
  std::vector<Counts> counts_;
};

struct TableParts {
  static constexpr size_t kBlockSigns = 512;  // of a call that are worked on under one guard

  explicit TableParts(const TableOptions& table_options);

  // Index of a sign's group in counters: group_count for "other".
  PERSIA_ALWAYS_INLINE size_t GroupOf(uint64_t sign) const {
    const uint64_t group = (sign >> (64 - options.prefix_bits)) - 1;
    return group < options.group_count ? static_cast<size_t>(group) : options.group_count;
  }
  size_t groups() const { return size_t{options.group_count} + 1; }
  bool ages() const { return options.time_to_live_ms > 0; }

  const TableOptions options;
  const RowOptimizer optimizer;
  const RowFormat format;
  std::unique_ptr<FrequencySketch> sketch;  // with LFU or admission by frequency
  std::atomic<uint64_t> now_ms{0};          // with a time to live: the clock at the last call
};

}  // namespace persia
