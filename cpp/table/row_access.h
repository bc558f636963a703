// What a call does with one sign: look it up, insert it, update it, read, write and erase its row.
//
// Thread-safety: immutable; callers hold an Epoch::Guard from finding a place to the return of the last call with it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/epoch.h"
#include "base/finite.h"
#include "table/shard.h"
#include "table/table_parts.h"

namespace persia {

// A sign in its shard, and where it was found.
struct RowProbe {
  RowProbe(Shard& its_shard, uint64_t its_sign) : sign(its_sign), hash(its_shard.HashOf(its_sign)), shard(&its_shard) {}

  bool Search() { return found = shard->Find(hash, sign, &place); }
  std::byte* row() const { return shard->RowOf(place); }

  uint64_t sign;
  uint64_t hash;  // in the shard
  Shard* shard;
  RowPlace place;  // if found
  bool found = false;
};

class RowAccess {
 public:
  explicit RowAccess(TableParts& parts)
      : parts_(parts),
        plain_(parts.options.storage == StorageType::kFp32),
        simple_(plain_ && !parts.ages()),
        row_bytes_(parts.format.row_bytes()),
        embedding_bytes_((parts.format.embedding_bytes() + 3) / 4 * 4) {}

  // The common case of a lookup: float32, nobody writes the row, no time to live. False: LookUp or Peek has to be
  // called.
  // `bytes` is embedding_bytes(): a constant where the caller has one.
  PERSIA_ALWAYS_INLINE bool TryRead(const RowPlace& place, const std::byte* row, size_t bytes, float* out) const {
    if (!simple_ || StateOf(place.word) != LaneState::kLive) return false;
    CopyFromShared(out, row, bytes);
    StdEnvironment::Fence(std::memory_order_acquire);
    return Unchanged(place);
  }

  // A call may end with kRenew: the guard has to be renewed, the sign searched again and the call repeated with the
  // number of tries so far, which ends after kMostTries.
  enum class Outcome { kDone, kRenew };
  static constexpr int kMostTries = 20000;

  // The training lookup of a sign: its embedding (dim) f32 to `out`, zeros if it is not admitted.
  Outcome LookUp(RowProbe& probe, uint64_t request, int tries, float* out, Tally& tally) const;
  // The same without changing anything.
  Outcome Peek(RowProbe& probe, float* out, Tally& tally) const;
  // One step of the row optimizer, with a gradient (dim) f32. `record` is the calling thread's.
  Outcome Update(RowProbe& probe, const float* gradient, uint64_t group_step, uint64_t request, const RowRecord& record,
                 Tally& tally) const;
  // The same for a row whose lane is locked, which it unlocks, and a gradient that is finite.
  PERSIA_ALWAYS_INLINE void UpdateLocked(Shard& shard, const RowPlace& place, uint64_t sign, std::byte* row,
                                         const float* gradient, uint64_t group_step, uint64_t request,
                                         const RowRecord& record) const {
    RowWrite write(record, row, row_bytes_);
    if (plain_) {
      parts_.optimizer.Apply(reinterpret_cast<const float*>(write.old()), gradient, group_step,
                             reinterpret_cast<float*>(write.contents()));
    } else {
      UpdateRounded(sign, write, gradient, group_step, request);
    }
    write.Commit(shard.index(), place);
  }

  // The whole row (row_width) f32.
  bool Read(RowProbe& probe, float* row) const;
  // `age`: null for a use now. *written says whether there was room.
  Outcome Write(RowProbe& probe, const float* row, const RowAge* age, int tries, Tally& tally, bool* written) const;
  bool Erase(RowProbe& probe) const;

 private:
  bool Reads(const RowProbe& found, float* out) const;
  bool LockRow(RowProbe& probe) const;
  void UpdateRounded(uint64_t sign, const RowWrite& write, const float* gradient, uint64_t group_step,
                     uint64_t request) const;
  bool Admits(uint64_t sign, uint64_t request) const;
  Outcome Insert(RowProbe& probe, int tries, float* out, Tally& tally) const;
  void Refuse(const RowProbe& probe, float* out, Tally& tally) const;
  void DropExpired(RowProbe& probe, Tally& tally) const;

  TableParts& parts_;
  const bool plain_;   // float32
  const bool simple_;  // and no time to live
  const size_t row_bytes_;
  const size_t embedding_bytes_;
};

}  // namespace persia
