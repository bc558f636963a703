#include "table/lru_rows.h"

#include <algorithm>

#include "base/hash.h"

namespace persia {
namespace {

constexpr uint32_t kLineFloats = 16;  // 64 bytes

// Rows on their own cache lines save memory traffic, unless the padding costs more than a quarter of the row.
uint32_t StrideOf(uint32_t row_width) {
  const uint32_t lines = (row_width + kLineFloats - 1) / kLineFloats * kLineFloats;
  return lines - row_width <= row_width / 4 ? lines : (row_width + 3) / 4 * 4;
}

}  // namespace

LruRows::LruRows(uint64_t capacity, uint32_t row_width) : capacity_(capacity), stride_(StrideOf(row_width)) {
  PERSIA_CHECK(capacity > 0 && capacity <= kMostRows);
}

uint32_t LruRows::Insert(uint64_t sign, uint64_t hash) {
  if (full()) Erase(oldest_);
  const uint32_t slot = TakeSlot();
  LinkOf(slot).sign = sign;
  LinkAsNewest(slot);
  index_.Insert(hash, slot);
  return slot;
}

uint32_t LruRows::TakeSlot() {
  if (free_ != kNoSlot) {
    const uint32_t slot = free_;
    free_ = LinkOf(slot).newer;
    return slot;
  }
  const uint32_t slot = used_++;
  const uint32_t chunk = ChunkOf(slot);
  if (slot == FirstSlotOf(chunk)) AddChunk(chunk);
  return slot;
}

void LruRows::AddChunk(uint32_t chunk) {
  const uint64_t first = FirstSlotOf(chunk);
  const uint64_t slots = std::min<uint64_t>(FirstSlotOf(chunk + 1) - first, capacity_ - first);
  chunks_[chunk].links.Resize(slots);
  chunks_[chunk].rows.Resize(slots * stride_);
}

void LruRows::Touch(uint32_t slot) {
  if (slot == newest_) return;
  Unlink(LinkOf(slot));
  LinkAsNewest(slot);
}

void LruRows::Erase(uint32_t slot) {
  Link& link = LinkOf(slot);
  index_.Erase(Mix64(link.sign), slot);
  Unlink(link);
  link.newer = free_;
  free_ = slot;
}

void LruRows::Unlink(const Link& link) {
  (link.older == kNoSlot ? oldest_ : LinkOf(link.older).newer) = link.newer;
  (link.newer == kNoSlot ? newest_ : LinkOf(link.newer).older) = link.older;
}

void LruRows::LinkAsNewest(uint32_t slot) {
  Link& link = LinkOf(slot);
  link.older = newest_;
  link.newer = kNoSlot;
  (newest_ == kNoSlot ? oldest_ : LinkOf(newest_).newer) = slot;
  newest_ = slot;
}

void LruRows::Clear() {
  index_ = SignIndex();
  chunks_ = {};
  used_ = 0;
  free_ = oldest_ = newest_ = kNoSlot;
}

size_t LruRows::bytes() const { return index_.bytes() + used_ * (sizeof(Link) + stride_ * sizeof(float)); }

void LruRows::PrefetchRow(uint64_t hash, uint32_t floats) const {
  const uint32_t slot = index_.Guess(hash);
  if (slot == kNoSlot) return;
  __builtin_prefetch(&LinkOf(slot), 1);
  for (uint32_t i = 0; i < floats; i += kLineFloats) __builtin_prefetch(row(slot) + i, 1);
}

void LruRows::PrefetchNeighbours(uint64_t hash) const {
  const uint32_t slot = index_.Guess(hash);
  if (slot == kNoSlot) return;
  const Link& link = LinkOf(slot);
  if (link.older != kNoSlot) __builtin_prefetch(&LinkOf(link.older), 1);
  if (link.newer != kNoSlot) __builtin_prefetch(&LinkOf(link.newer), 1);
}

}  // namespace persia
