#include "table/slot_pool.h"

#include <bit>

#include "base/environment.h"
#include "base/epoch.h"
#include "base/pretouch.h"
#include "base/shared_copy.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr size_t kAhead = SlotPool::kHugePage / 4;  // that huge pages are touched ahead of their use

// Bytes in front of the huge pages, so that few rows take little memory. Shards fill at the same speed: so that they
// don't want their next huge pages at the same moment, the slabs of a process begin them at different numbers of bytes.
size_t NextHead() {
  constexpr uint32_t kHeads = 64;
  constexpr size_t kLeast = 3 * kAhead;
  static std::atomic<uint32_t> made{0};
  return kLeast + made.fetch_add(1, std::memory_order_relaxed) % kHeads * (SlotPool::kHugePage / kHeads);
}

}  // namespace

SlotPool::SlotPool(uint32_t limit, size_t stride, uint32_t reserve)
    : limit_(limit),
      stride_(stride),
      bytes_(size_t{limit} * stride),
      head_bytes_(NextHead()),
      huge_end_(bytes_ < head_bytes_ ? head_bytes_ : bytes_ - (bytes_ - head_bytes_) % kHugePage),
      rows_(StdEnvironment::NewSlab(bytes_, head_bytes_)),
      mask_(std::bit_ceil(uint64_t{reserve} + 1) - 1),
      cells_(new Cell[mask_ + 1]),
      touched_(head_bytes_) {
  PERSIA_CHECK(limit > 0 && limit < 1u << kSlotBits && stride % sizeof(uint32_t) == 0);
  for (uint64_t i = 0; i <= mask_; ++i) cells_[i].turn.store(i << kSlotBits, std::memory_order_relaxed);
}

SlotPool::~SlotPool() { StdEnvironment::Delete(rows_, bytes_); }

uint32_t SlotPool::Take() {
  if (const uint32_t slot = PopFree(); slot != 0) return slot;
  if (const uint32_t slot = PopLimbo(); slot != 0) return slot;
  if (const uint32_t slot = PopSpill(); slot != 0) return slot;
  uint32_t used = used_.load(std::memory_order_relaxed);
  while (used < limit_) {
    if (!used_.compare_exchange_weak(used, used + 1, std::memory_order_relaxed)) continue;
    TouchAhead(used + 1);
    return used + 1;
  }
  return 0;
}

void SlotPool::TouchAhead(uint32_t used) {
  PaceUse(stride_);
  size_t touched = touched_.load(std::memory_order_relaxed);
  if (used * stride_ + kAhead <= touched || touched == huge_end_) return;
  if (!touched_.compare_exchange_strong(touched, touched + kHugePage, std::memory_order_relaxed)) return;
  PretouchSoon(rows_ + touched, kHugePage);
}

size_t SlotPool::bytes() const {
  const size_t used = used_.load(std::memory_order_relaxed) * stride_;
  const size_t touched = touched_.load(std::memory_order_relaxed);
  const size_t rows = used > huge_end_ ? used : touched > head_bytes_ ? touched : used;
  return rows + (mask_ + 1) * sizeof(Cell);
}

void SlotPool::GiveBack(uint32_t slot) {
  uint64_t head = free_.load(std::memory_order_relaxed);
  do {
    const auto next = static_cast<uint32_t>(head);
    CopyToShared(row(slot), &next, sizeof(next));
  } while (!free_.compare_exchange_weak(head, (head & ~uint64_t{UINT32_MAX}) | slot, std::memory_order_acq_rel,
                                        std::memory_order_relaxed));
}

uint32_t SlotPool::PopFree() {
  uint64_t head = free_.load(std::memory_order_acquire);
  for (;;) {
    const auto slot = static_cast<uint32_t>(head);
    if (slot == 0) return 0;
    uint32_t next;
    CopyFromShared(&next, row(slot), sizeof(next));
    const uint64_t popped = ((head >> 32) + 1) << 32 | next;
    if (free_.compare_exchange_weak(head, popped, std::memory_order_acq_rel, std::memory_order_acquire)) return slot;
  }
}

void SlotPool::Retire(uint32_t slot) {
  if (!Enqueue(slot)) Spill(slot);
}

void SlotPool::Spill(uint32_t slot) {
  std::lock_guard lock(spill_mutex_);
  spill_.emplace_back(Epoch::Stamp(), slot);
  spilled_.store(true, std::memory_order_relaxed);
}

uint32_t SlotPool::PopSpill() {
  if (!spilled_.load(std::memory_order_relaxed)) return 0;  // at worst a fresh slot is taken instead
  std::lock_guard lock(spill_mutex_);
  if (spill_.empty() || !Epoch::Passed(spill_.front().first)) return 0;
  const uint32_t slot = spill_.front().second;
  spill_.pop_front();
  spilled_.store(!spill_.empty(), std::memory_order_relaxed);
  return slot;
}

bool SlotPool::Enqueue(uint32_t slot) {
  uint64_t at = tail_.load(std::memory_order_relaxed);
  for (;;) {
    Cell& cell = cells_[at & mask_];
    const int64_t ahead = Ahead(cell.turn.load(std::memory_order_acquire), at);
    if (ahead == 0) {
      if (!tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) continue;
      cell.stamp.store(Epoch::Stamp(), std::memory_order_relaxed);
      cell.turn.store((at + 1) << kSlotBits | slot, std::memory_order_release);
      return true;
    }
    if (ahead < 0) {  // full: make room if the head may leave
      const uint32_t left = PopLimbo();
      if (left == 0) return false;
      GiveBack(left);
    }
    at = tail_.load(std::memory_order_relaxed);
  }
}

uint32_t SlotPool::PopLimbo() {
  uint64_t at = head_.load(std::memory_order_relaxed);
  for (;;) {
    Cell& cell = cells_[at & mask_];
    const uint64_t turn = cell.turn.load(std::memory_order_acquire);
    const int64_t ahead = Ahead(turn, at + 1);
    if (ahead < 0) return 0;  // empty, or the next one is just being entered
    if (ahead == 0) {
      const uint64_t stamp = cell.stamp.load(std::memory_order_relaxed);
      if (!Epoch::Passed(stamp)) return 0;
      if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
        cell.turn.store((at + mask_ + 1) << kSlotBits, std::memory_order_release);
        return static_cast<uint32_t>(turn & ((1u << kSlotBits) - 1));
      }
      continue;
    }
    at = head_.load(std::memory_order_relaxed);
  }
}

}  // namespace persia
