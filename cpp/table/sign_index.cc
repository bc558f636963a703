#include "table/sign_index.h"

#include <utility>

namespace persia {
namespace {

constexpr size_t kFirstEntries = 16;

}  // namespace

SignIndex::SignIndex() : entries_(kFirstEntries), mask_(kFirstEntries - 1) { entries_.Fill({0, kNoSlot}); }

void SignIndex::Insert(uint64_t hash, uint32_t slot) {
  if ((size_ + 1) * 4 > (mask_ + 1) * 3) Grow();
  Place({static_cast<uint32_t>(hash), slot});
  ++size_;
}

void SignIndex::Place(Entry entry) {
  size_t i = entry.tag & mask_;
  while (entries_[i].slot != kNoSlot) i = (i + 1) & mask_;
  entries_[i] = entry;
}

void SignIndex::Grow() {
  AlignedBuffer<Entry> old(2 * (mask_ + 1));
  std::swap(old, entries_);
  entries_.Fill({0, kNoSlot});
  const size_t old_mask = std::exchange(mask_, 2 * mask_ + 1);
  for (size_t i = 0; i <= old_mask; ++i) {
    if (old[i].slot != kNoSlot) Place(old[i]);
  }
}

void SignIndex::Erase(uint64_t hash, uint32_t slot) {
  size_t hole = static_cast<uint32_t>(hash) & mask_;
  while (entries_[hole].slot != slot) {
    PERSIA_CHECK(entries_[hole].slot != kNoSlot);
    hole = (hole + 1) & mask_;
  }
  // An entry may fill the hole when the hole lies between its home and its place, going round.
  for (size_t i = (hole + 1) & mask_; entries_[i].slot != kNoSlot; i = (i + 1) & mask_) {
    const size_t home = entries_[i].tag & mask_;
    if (((i - home) & mask_) < ((i - hole) & mask_)) continue;
    entries_[hole] = entries_[i];
    hole = i;
  }
  entries_[hole].slot = kNoSlot;
  --size_;
}

}  // namespace persia
