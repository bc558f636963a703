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

enum class Found : uint32_t {
  kNo,
  kYes,
  kElsewhere  // not in its home bucket: still to be searched
};

// A sign in its shard, and where it was found.
struct alignas(64) RowProbe {
  uint64_t sign;
  uint64_t hash;  // in the shard
  Shard* shard;
  RowPlace place;  // if found; before that the bucket is the sign's home
  std::byte* row;  // if found
  Found state;

  bool found() const { return state == Found::kYes; }
  bool Search() {
    const bool there = shard->Find(hash, sign, &place);
    state = there ? Found::kYes : Found::kNo;
    if (there) row = shard->RowOf(place);
    return there;
  }
};
static_assert(sizeof(RowProbe) == 64);

class RowAccess {
 public:
  explicit RowAccess(TableParts& parts)
      : parts_(parts),
        plain_(parts.options.storage == StorageType::kFp32),
        simple_(plain_ && !parts.ages()),
        row_bytes_(parts.format.row_bytes()),
        embedding_bytes_((parts.format.embedding_bytes() + 3) / 4 * 4) {}

  // The common case of a lookup: found, float32, nobody writes it, no time to live. False: LookUp or Peek has to be
  // called.
  // `bytes` is embedding_bytes(): a constant where the caller has one.
  PERSIA_ALWAYS_INLINE bool TryRead(const RowProbe& probe, size_t bytes, float* out) const {
    if (!probe.found() || !simple_ || StateOf(probe.place.word) != LaneState::kLive) return false;
    CopyFromShared(out, probe.row, bytes);
    StdEnvironment::Fence(std::memory_order_acquire);
    return Unchanged(probe.place);
  }

  // A call may end with kRenew: the guard has to be renewed, the sign searched again and the call repeated with the
  // number of tries so far, which ends after kMostTries.
  enum class Outcome { kDone, kRenew };
  static constexpr int kMostTries = 20000;

  // The training lookup of a sign: its embedding (dim) f32 to `out`, zeros if it is not admitted.
  Outcome LookUp(RowProbe& probe, uint64_t request, int tries, float* out, Tally& tally) const;
  // The same without changing anything.
  Outcome Peek(RowProbe& probe, float* out, Tally& tally) const;
  // One step of the row optimizer. `dim` is the table's, a constant where the caller has one; `record` is the calling
  // thread's.
  PERSIA_ALWAYS_INLINE Outcome Update(RowProbe& probe, const float* gradient, uint32_t dim, uint64_t group_step,
                                      uint64_t request, const RowRecord& record, Tally& tally) const {
    if (!probe.found()) return Missed(probe, tally);
    if (!AllFinite({gradient, dim})) return NotFinite(probe, tally);
    if (!probe.shard->index().Lock(&probe.place) && !LockRow(probe)) return Missed(probe, tally);
    RowWrite write(record, probe.row, row_bytes_);
    std::byte* contents = write.Load();
    if (plain_) {
      parts_.optimizer.Apply(reinterpret_cast<float*>(contents), gradient, group_step);
    } else {
      UpdateRounded(probe, contents, gradient, group_step, request);
    }
    write.Commit(probe.shard->index(), probe.place);
    return Outcome::kDone;
  }

  // The whole row (row_width) f32.
  bool Read(RowProbe& probe, float* row) const;
  // `age`: null for a use now. *written says whether there was room.
  Outcome Write(RowProbe& probe, const float* row, const RowAge* age, int tries, Tally& tally, bool* written) const;
  bool Erase(RowProbe& probe) const;

 private:
  bool Reads(const RowProbe& probe, float* out) const;
  bool LockRow(RowProbe& probe) const;
  Outcome Missed(const RowProbe& probe, Tally& tally) const;
  Outcome NotFinite(const RowProbe& probe, Tally& tally) const;
  void UpdateRounded(const RowProbe& probe, std::byte* contents, const float* gradient, uint64_t group_step,
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
