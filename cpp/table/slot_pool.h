// The rows of a shard: numbered slots in address space that is reserved at once and takes memory when first touched, in
// huge pages but for its beginning and end. A row never moves. The next huge page is touched ahead (base/pretouch.h).
//
// A slot is fresh (never used), the caller's, in a row of the table, in limbo (its row was removed, readers may still
// hold it: base/epoch.h) or free (on a stack that is linked through the rows' first four bytes).
//
// Invariants
//  - A slot is in one of these places only. Slots are 1 … limit.
//  - Limbo is a bounded queue in order of retirement (Vyukov's array queue: a cell's sequence says whose turn it is);
//    its head leaves only when its stamp has passed. What doesn't fit (a thread was suspended with a guard, or erases
//    very many rows) spills into a list under a mutex.
//  - The stack's head carries a tag that every pop raises, so that a popper that was late (the row it read its link
//    from may hold floats by now) fails to exchange it.
//
// Memory orders: cells are handed over by release stores and acquire loads of their sequence; the stack's head by
// acq_rel exchanges; the link in a row is a relaxed 4-byte value, as all row contents.
//
// Thread-safety: internally synchronised; lock-free but for the spill. Where memory is used up faster than it can be
// touched, Take sleeps for fractions of a millisecond (PaceUse).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

namespace persia {

class SlotPool {
 public:
  static constexpr size_t kHugePage = size_t{2} << 20;

  // `limit` slots of `stride` bytes, of which at most `reserve` are expected to be in limbo.
  SlotPool(uint32_t limit, size_t stride, uint32_t reserve);
  ~SlotPool();
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  std::byte* row(uint32_t slot) const { return rows_ + size_t{slot - 1} * stride_; }

  // A slot for the caller, or 0 when all are in rows or in limbo.
  uint32_t Take();
  // Gives back a slot that no other thread has seen.
  void GiveBack(uint32_t slot);
  // Puts a slot whose row was taken out of reach into limbo.
  void Retire(uint32_t slot);

  // Of the slots handed out so far, of huge pages that were begun or asked for, and of limbo.
  size_t bytes() const;

 private:
  struct Cell {
    std::atomic<uint64_t> turn;   // sequence << 24 | slot
    std::atomic<uint64_t> stamp;  // of the epoch
  };
  static constexpr uint32_t kSlotBits = 24;

  // How far the sequence in a cell's turn (40 bits, which wrap) is ahead of a position.
  static int64_t Ahead(uint64_t turn, uint64_t at) {
    return static_cast<int64_t>((turn >> kSlotBits << kSlotBits) - (at << kSlotBits)) >> kSlotBits;
  }

  uint32_t PopFree();
  uint32_t PopLimbo();
  bool Enqueue(uint32_t slot);
  void Spill(uint32_t slot);
  uint32_t PopSpill();
  void TouchAhead(uint32_t used);

  const uint32_t limit_;
  const size_t stride_;
  const size_t bytes_;
  const size_t head_bytes_;  // huge pages begin here
  const size_t huge_end_;    // and end here; before and behind are small ones
  std::byte* const rows_;
  const uint64_t mask_;  // of the ring of cells
  const std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<uint64_t> head_{0};  // of limbo: next to leave
  alignas(64) std::atomic<uint64_t> tail_{0};  // next to enter
  alignas(64) std::atomic<uint64_t> free_{0};  // tag << 32 | slot, slot 0: empty
  alignas(64) std::atomic<uint32_t> used_{0};
  std::atomic<size_t> touched_;  // where the huge pages end that were asked to be touched
  std::atomic<bool> spilled_{false};  // whether spill_ has any: read before the mutex is taken
  std::mutex spill_mutex_;
  std::deque<std::pair<uint64_t, uint32_t>> spill_;  // stamp and slot, in order of stamps; guarded by spill_mutex_
};

}  // namespace persia
