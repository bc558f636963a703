// A shard: the rows of one range of hashes, with their index, slots and order of eviction.
//
// Capacity. A row has a *seat* of its partition, whose shards share them. An insert takes a free seat; when there is
// none it takes that of a row which it evicts. So a partition holds exactly its capacity, however many threads insert
// and however the signs fall on the shards.
//
// Recency. Each word carries a clock of 6 bits: the shard's clock when the row was last looked up in training. The
// clock ticks every capacity/32 inserts, so ages up to 63 cover two turnovers of the shard; with a time to live it
// also ticks every 1/32 of that. An insert that must evict looks at the rows of the kWindow homes around its own,
// which are in the cache or next to it, and takes the oldest (LRU) or the least looked up (LFU), equals by hash: a
// sample of some 35 rows at random, and room where it is needed, so that chains of displaced signs stay as short as
// at the beginning. What is taken depends on rows and clocks only, not on where displaced signs lie: a restored shard
// evicts the same. A shard of up to kExactRows keeps an exact time of use for each slot instead and looks at all of
// them.
//
// Thread-safety: internally synchronised, lock-free but for the spill of table/slot_pool.h; callers hold an
// Epoch::Guard. One thing can hold an insert up: that every slot of the reserve is still under guards of suspended
// threads (Inserted::kAgain). Memory that is given back (an index that was grown out of, by Epoch::Collect) may wait
// for a step of base/pretouch.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/cpu.h"
#include "table/row_guard.h"
#include "table/sign_index.h"
#include "table/slot_pool.h"
#include "table/table_parts.h"

namespace persia {

class Shard {
 public:
  static constexpr uint64_t kExactRows = 1024;
  static constexpr uint64_t kMostRows = uint64_t{14} << 20;  // of a shard: slots and their reserve have 24 bits

  // A shard for about `capacity` rows of a partition with `free_seats`; both outlive it. All its signs agree in the top
  // `hash_shift` bits of Mix64(sign).
  Shard(const TableParts& parts, uint64_t capacity, uint32_t hash_shift, std::atomic<int64_t>& free_seats);

  PERSIA_ALWAYS_INLINE uint64_t HashOf(uint64_t sign) const { return index_.HashOf(sign); }
  PERSIA_ALWAYS_INLINE std::byte* RowOf(const RowPlace& place) const { return slots_.row(SlotOf(place.word)); }
  bool Find(uint64_t hash, uint64_t sign, RowPlace* place) const {
    return index_.Find(hash, sign, place);
  }
  SignIndex<>& index() { return index_; }

  // Marks a found row as used now. Cheap when it was used a short time ago.
  PERSIA_ALWAYS_INLINE void Touch(const RowPlace& place) {
    if (exact_) SetUse(SlotOf(place.word), now_.fetch_add(1, std::memory_order_relaxed));
    const uint32_t clock = this->clock();
    if (clock != ClockOf(place.word) && StateOf(place.word) == LaneState::kLive) index_.Touch(place, clock);
  }
  bool Expired(const RowPlace& place) const;  // false without a time to live
  RowAge AgeOf(const RowPlace& place) const;

  enum class Inserted { kYes, kExists, kRefused, kAgain };
  // Makes a row of `contents` (row_bytes of the format) for a sign that has none, used now (which lets the clock run)
  // or at an `age`; evicts at capacity. kExists: *place says where the sign is. kRefused: no room could be made.
  // kAgain: all slots of the reserve are held by guards, perhaps the caller's: renew it, search again, call again.
  Inserted Insert(uint64_t hash, uint64_t sign, const std::byte* contents, const RowAge* age, Tally& tally,
                  RowPlace* place);
  // Marks a found row as used now, or at an `age`.
  void SetAge(const RowPlace& place, const RowAge* age);

  // Removes a row whose lane the caller has locked.
  void Remove(const RowPlace& place, uint64_t hash, uint64_t sign);

  // Evicts what has outlived its time in the next few homes.
  void Sweep(uint64_t homes, Tally& tally);
  // Lets the clock tick if it is time (with a time to live only).
  void TickByTime();

  // Calls `visit(sign, row (row_bytes), age)` for the rows there are, in order of their hashes. No guard is held by the
  // caller. What is inserted or removed meanwhile may be visited or not; every other row is, once.
  void Scan(const std::function<void(uint64_t sign, const std::byte* row, RowAge age)>& visit) const;

  uint64_t size() const;
  // Of a feature group; below 0 for a moment, as size() explains.
  int64_t rows_of(size_t group) const { return group_rows_[group].load(std::memory_order_relaxed); }
  uint64_t lanes() const { return index_.lanes(); }
  size_t bytes() const;

  // Clock and counters; ages mean the same after restoring them.
  static constexpr size_t kStateWords = 4;
  void SaveState(std::vector<uint64_t>& words) const;
  void RestoreState(const uint64_t* words);

 private:
  static constexpr uint64_t kWindow = 8;       // homes that an eviction looks at, at first
  static constexpr uint64_t kMoveBuckets = 4;  // that an insert moves while the index grows

  struct Victim;

  PERSIA_ALWAYS_INLINE uint32_t clock() const { return clock_.load(std::memory_order_relaxed) & kClockMask; }
  PERSIA_ALWAYS_INLINE void SetUse(uint32_t slot, uint64_t use) { uses_[slot].store(use, std::memory_order_relaxed); }
  uint32_t ClockFor(const RowAge& age) const;
  uint64_t LastUseMs(uint32_t word) const;
  void Tick();

  bool TakeSeat(uint64_t hash, Tally& tally);
  void LeaveSeat() { free_seats_.fetch_add(1, std::memory_order_relaxed); }
  enum class Eviction { kDone, kNone, kLost };
  // Evicts the best victim of `count` homes of an array from `home` on, or only what has expired. kLost: another thread
  // took it.
  Eviction EvictFrom(const SignIndex<>::Array& array, uint64_t home, uint64_t count, bool expired_only, Tally& tally);
  // Evicts a row near `hash`, else a row anywhere.
  bool EvictNear(uint64_t hash, Tally& tally);
  void CountRow(size_t group, int64_t more);  // one more (1) or less (-1)
  void CountEvicted(uint64_t sign, bool expired, Tally& tally);
  // After an insert found no lane within reach of `hash`.
  void MakeLane(uint64_t hash, Tally& tally);
  void GrowIfFull(uint64_t sign, Tally& tally);

  const TableParts& parts_;
  std::atomic<int64_t>& free_seats_;
  const uint32_t hash_shift_;
  const uint64_t most_rows_;
  const bool exact_;
  const uint64_t tick_inserts_;
  const uint64_t tick_ms_;  // with a time to live: the clock ticks that often at least
  SignIndex<> index_;
  SlotPool slots_;
  const std::unique_ptr<std::atomic<int64_t>[]> group_rows_;
  const std::unique_ptr<std::atomic<uint64_t>[]> uses_;        // by slot, of an exact shard
  const std::unique_ptr<std::atomic<uint64_t>[]> tick_times_;  // ms, by clock, with a time to live
  alignas(64) std::atomic<uint32_t> clock_{0};                 // read by every lookup, written by ticks
  alignas(64) std::atomic<int64_t> rows_{0};
  std::atomic<uint64_t> inserts_{0};  // since the beginning
  std::atomic<uint64_t> sweep_{0};    // homes that sweeps have passed
  std::atomic<uint64_t> now_;         // of an exact shard: uses so far
};

}  // namespace persia
