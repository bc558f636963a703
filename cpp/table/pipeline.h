// How a batched call goes over its signs, a group at a time, so that many rows are on their way from memory at once.
// Each stage works on the group behind the one before:
//   Enter   asks memory for the home buckets;
//   Look    glances into those and asks for the rows, or for the next bucket where a sign lies further on;
//   Settle  searches those few, and asks for their rows;
//   then the rows are used.
// What a stage asks for is asked in one tight loop: an access that misses the TLB holds its instruction up, and only
// those that are in flight together with it overlap its page walk. For the same reason a group is a structure of arrays
// and a stage does as little as it can: the fewer instructions a row takes, the more rows the processor sees at once.
//
// Thread-safety: of the calling thread, which holds an Epoch::Guard. After renewing that, call Refresh.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu.h"
#include "table/shard.h"

namespace persia {

class Pipeline {
 public:
  static constexpr size_t kGroup = 16;
  static constexpr size_t kStages = 4;

  struct Group {
    size_t begin = 0, count = 0;  // of the call's signs
    uint32_t unsettled = 0;       // a bit for each sign that Look didn't find
    std::array<Shard*, kGroup> shards;
    std::array<SignIndex<>::Bucket*, kGroup> buckets;  // the home; later where the sign was found
    std::array<std::byte*, kGroup> rows;               // null: not found
    std::array<uint32_t, kGroup> words, lanes;         // if found

    RowPlace place(size_t i) const { return {buckets[i], lanes[i], words[i], 0}; }
  };

  // `row_bytes`: those of a row that will be used.
  Pipeline(std::span<const uint64_t> signs, size_t row_bytes) : signs_(signs), row_bytes_(row_bytes) {}

  // Calls `use(group, i)` for each of the signs [begin, end), in order. `shard_of(sign)` gives its shard.
  template <typename ShardOf, typename Use>
  PERSIA_ALWAYS_INLINE void Run(size_t begin, size_t end, ShardOf shard_of, Use use) {
    const size_t steps = (end - begin + kGroup - 1) / kGroup + kStages - 1;
    for (Group& group : groups_) group.count = group.unsettled = 0;  // of an earlier run
    for (size_t step = 0; step < steps; ++step) {
      Group& entering = At(step);
      entering.begin = begin + step * kGroup;
      entering.count = entering.begin < end ? std::min(kGroup, end - entering.begin) : 0;
      Enter(entering, shard_of);
      Look(At(step - 1));
      Settle(At(step - 2));
      Group& group = At(step - 3);
      for (size_t i = 0; i < group.count; ++i) use(group, i);
      group.count = 0;
    }
  }

  // Forgets what was found: the shards of the signs in the stages may be others now.
  template <typename ShardOf>
  void Refresh(ShardOf shard_of) {
    for (Group& group : groups_) {
      for (size_t i = 0; i < group.count; ++i) Route(group, i, shard_of);
      group.rows.fill(nullptr);
      group.unsettled = 0;
    }
  }

 private:
  PERSIA_ALWAYS_INLINE Group& At(size_t step) { return groups_[step % kStages]; }

  // Entries beyond a group's count are of earlier groups: to ask for those again costs nothing.
  PERSIA_ALWAYS_INLINE void Ask(size_t bytes) const {
    for (size_t line = 0; line < bytes; line += 64) {
#pragma GCC unroll 16
      for (size_t i = 0; i < kGroup; ++i) __builtin_prefetch(ask_[i] + line, 0);
    }
  }

  template <typename ShardOf>
  PERSIA_ALWAYS_INLINE void Enter(Group& group, ShardOf shard_of) {
    for (size_t i = 0; i < group.count; ++i) {
      Route(group, i, shard_of);
      ask_[i] = reinterpret_cast<const std::byte*>(group.buckets[i]);
    }
    Ask(1);
  }
  template <typename ShardOf>
  PERSIA_ALWAYS_INLINE void Route(Group& group, size_t i, ShardOf shard_of) const {
    const uint64_t sign = signs_[group.begin + i];
    Shard& shard = shard_of(sign);
    group.shards[i] = &shard;
    group.buckets[i] = shard.index().HomeBucket(shard.HashOf(sign));
  }

  // One sign in six is not in its home bucket, which can't be predicted: a branch on that would, whenever it went the
  // wrong way, throw the work on the next signs away, and only after the bucket has come from memory.
  PERSIA_ALWAYS_INLINE void Look(Group& group) {
    uint32_t unsettled = 0;
    for (size_t i = 0; i < group.count; ++i) {
      const bool found = Glance(group, i, group.buckets[i]);
      ask_[i] = Select(found, group.rows[i], reinterpret_cast<const std::byte*>(group.buckets[i] + 1));
      unsettled |= static_cast<uint32_t>(!found) << i;
    }
    group.unsettled = unsettled;
    Ask(row_bytes_);
  }
  // yes ? a : b, in a form that no compiler makes a branch of.
  static PERSIA_ALWAYS_INLINE const std::byte* Select(bool yes, const std::byte* a, const std::byte* b) {
    const auto one = reinterpret_cast<uintptr_t>(a), other = reinterpret_cast<uintptr_t>(b);
    return reinterpret_cast<const std::byte*>(other ^ ((one ^ other) & -uintptr_t{yes}));
  }

  PERSIA_ALWAYS_INLINE void Settle(Group& group) {
    for (uint32_t left = group.unsettled; left != 0; left &= left - 1) {
      const auto i = static_cast<size_t>(std::countr_zero(left));
      const bool elsewhere = SignIndex<>::MayBeElsewhere(*group.buckets[i]);
      if (elsewhere && Glance(group, i, group.buckets[i] + 1)) {  // most are there; there is one behind every home
        ++group.buckets[i];
      } else if (!elsewhere || !Search(group, i)) {
        group.rows[i] = nullptr;
        continue;
      }
      for (size_t line = 0; line < row_bytes_; line += 64) __builtin_prefetch(group.rows[i] + line, 0);
    }
  }

  // Looks for a sign in one bucket, and notes where it seems to be; what it notes means nothing if that is false.
  PERSIA_ALWAYS_INLINE bool Glance(Group& group, size_t i, SignIndex<>::Bucket* bucket) const {
    RowPlace place{bucket, 0, 0, 0};
    const bool found = SignIndex<>::GlanceAt(signs_[group.begin + i], &place);
    group.words[i] = place.word;
    group.lanes[i] = place.lane;
    group.rows[i] = group.shards[i]->RowOf(place);
    return found;
  }

  bool Search(Group& group, size_t i) const {
    const Shard& shard = *group.shards[i];
    const uint64_t sign = signs_[group.begin + i];
    RowPlace place;
    if (!shard.Find(shard.HashOf(sign), sign, &place)) return false;
    group.rows[i] = shard.RowOf(place);
    group.buckets[i] = place.bucket;
    group.words[i] = place.word;
    group.lanes[i] = place.lane;
    return true;
  }

  const std::span<const uint64_t> signs_;
  const size_t row_bytes_;
  std::array<const std::byte*, kGroup> ask_{};
  std::array<Group, kStages> groups_{};
};

}  // namespace persia
