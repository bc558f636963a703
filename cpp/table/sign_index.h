// The index of a shard: an open-addressing map from the hash of a sign to the slot of its row.
//
//   [ tag | slot ] [ empty ] [ tag | slot ] …   a power of two of 8-byte entries, linear probing, at most 3/4 full
//
// The tag is the hash's low 32 bits; an entry's home is its tag modulo the size, so growing and erasing never look at
// the rows. Erasing shifts later entries of the run back, so there are no tombstones and probes stay short forever.
// Equal tags are told apart by the caller, who knows the signs of the slots.
// Thread-safety: externally synchronised.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"

namespace persia {

inline constexpr uint32_t kNoSlot = UINT32_MAX;

class SignIndex {
 public:
  SignIndex();

  // The slot under `hash` for which `holds(slot)` is true, or kNoSlot.
  template <typename Holds>
  uint32_t Find(uint64_t hash, Holds holds) const {
    const auto tag = static_cast<uint32_t>(hash);
    for (size_t i = tag & mask_;; i = (i + 1) & mask_) {
      const Entry& entry = entries_[i];
      if (entry.slot == kNoSlot || (entry.tag == tag && holds(entry.slot))) return entry.slot;
    }
  }

  // The first slot under the tag of `hash`, almost always the right one: what to prefetch.
  uint32_t Guess(uint64_t hash) const {
    return Find(hash, [](uint32_t) { return true; });
  }

  // Adds an entry; `slot` is not in the index yet.
  void Insert(uint64_t hash, uint32_t slot);
  // Removes the entry of `slot`, which is in the index under `hash`.
  void Erase(uint64_t hash, uint32_t slot);

  void Prefetch(uint64_t hash) const { __builtin_prefetch(&entries_[static_cast<uint32_t>(hash) & mask_]); }

  size_t size() const { return size_; }
  size_t bytes() const { return (mask_ + 1) * sizeof(Entry); }

 private:
  struct Entry {
    uint32_t tag;
    uint32_t slot;  // kNoSlot: empty
  };

  void Place(Entry entry);
  void Grow();

  AlignedBuffer<Entry> entries_;
  size_t mask_;
  size_t size_ = 0;
};

}  // namespace persia
