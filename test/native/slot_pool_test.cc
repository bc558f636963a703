// The slots of a shard: each has one owner, and none comes back while a guard of its time is held.
#include "table/slot_pool.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "base/epoch.h"
#include "base/rng.h"
#include "base/shared_copy.h"
#include "sanitizers.h"

namespace persia {
namespace {

constexpr int kScale = kSanitized ? 1 : 20;

constexpr size_t kStride = 32;

// All slots that can be had now, in order. Some tries: the epoch advances by one with each.
std::vector<uint32_t> TakeAll(SlotPool& pool) {
  std::vector<uint32_t> slots;
  for (int failed = 0; failed < 4;) {
    const uint32_t slot = pool.Take();
    if (slot != 0) slots.push_back(slot);
    failed += slot == 0;
  }
  std::sort(slots.begin(), slots.end());
  return slots;
}

std::vector<uint32_t> UpTo(uint32_t limit) {
  std::vector<uint32_t> slots(limit);
  std::iota(slots.begin(), slots.end(), 1u);
  return slots;
}

TEST_CASE("slot pool: hands out each slot once, and rows that are zero and apart") {
  SlotPool pool(100, kStride, 10);
  CHECK(TakeAll(pool) == UpTo(100));
  CHECK(pool.Take() == 0);
  CHECK(reinterpret_cast<uintptr_t>(pool.row(1)) % 64 == 0);
  for (uint32_t slot = 1; slot <= 100; ++slot) {
    CHECK(pool.row(slot) == pool.row(1) + (slot - 1) * kStride);
    CHECK(std::all_of(pool.row(slot), pool.row(slot) + kStride, [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST_CASE("slot pool: what is given back is had again, whatever its row held") {
  SlotPool pool(5, kStride, 2);
  TakeAll(pool);
  for (uint32_t slot = 1; slot <= 5; ++slot) std::fill_n(pool.row(slot), kStride, std::byte{0xff});
  pool.GiveBack(2);
  pool.GiveBack(4);
  pool.GiveBack(3);
  CHECK(TakeAll(pool) == std::vector<uint32_t>{2, 3, 4});
  CHECK(pool.Take() == 0);
}

TEST_CASE("slot pool: bytes are those of the rows that were in use at once") {
  SlotPool pool(100, kStride, 10);
  const size_t empty = pool.bytes();
  for (int i = 0; i < 50; ++i) pool.GiveBack(pool.Take());
  CHECK(pool.bytes() == empty + kStride);
  TakeAll(pool);
  CHECK(pool.bytes() == empty + 100 * kStride);
}

TEST_CASE("slot pool: slabs of several huge pages count those they have begun, and no more when they are full"
          * OneThread()) {
  constexpr uint32_t kLimit = 4 * SlotPool::kHugePage / kStride + 1000;
  for (int i = 0; i < 5; ++i) {  // pools whose huge pages begin at different rows
    SlotPool pool(kLimit, kStride, 10);
    const size_t empty = pool.bytes();
    std::byte* const first = pool.row(1);
    for (uint32_t slot = 1; slot <= kLimit; ++slot) {
      REQUIRE(pool.Take() == slot);
      REQUIRE(pool.row(slot) == first + (slot - 1) * kStride);
      REQUIRE(pool.row(slot)[kStride - 1] == std::byte{0});
      pool.row(slot)[kStride - 1] = std::byte{1};
      REQUIRE(pool.bytes() >= empty + slot * kStride);
      REQUIRE(pool.bytes() <= empty + slot * kStride + SlotPool::kHugePage * 5 / 4);
    }
    CHECK(pool.bytes() == empty + kLimit * kStride);
  }
}

TEST_CASE("slot pool: a retired slot comes back when the guards of its time have gone, in order") {
  SlotPool pool(3, kStride, 3);
  TakeAll(pool);
  {
    const Epoch::Guard guard;
    pool.Retire(2);
    pool.Retire(1);
    for (int i = 0; i < 100; ++i) CHECK(pool.Take() == 0);
  }
  std::vector<uint32_t> slots;
  for (int i = 0; i < 5; ++i) {
    if (const uint32_t slot = pool.Take(); slot != 0) slots.push_back(slot);
  }
  CHECK(slots == std::vector<uint32_t>{2, 1});
}

TEST_CASE("slot pool: a guard that another thread holds keeps retired slots") {
  SlotPool pool(1, kStride, 1);
  const uint32_t slot = pool.Take();
  std::atomic<int> step{0};
  std::thread holder([&step] {
    const Epoch::Guard guard;
    step.store(1);
    step.notify_all();
    step.wait(1);
  });
  step.wait(0);
  pool.Retire(slot);
  for (int i = 0; i < 100; ++i) CHECK(pool.Take() == 0);
  step.store(2);
  step.notify_all();
  holder.join();
  CHECK(TakeAll(pool) == std::vector<uint32_t>{slot});
}

TEST_CASE("slot pool: slots are retired without end while a guard is held, and all come back after it") {
  constexpr uint32_t kSlots = 50;  // many times what limbo has cells for
  SlotPool pool(kSlots, kStride, 3);
  for (int round = 0; round < 3; ++round) {
    REQUIRE(TakeAll(pool) == UpTo(kSlots));
    const Epoch::Guard guard;
    for (uint32_t slot = 1; slot <= kSlots; ++slot) pool.Retire(slot);
    for (int i = 0; i < 10; ++i) CHECK(pool.Take() == 0);
  }
  CHECK(TakeAll(pool) == UpTo(kSlots));
}

TEST_CASE("slot pool: without a guard, retired slots go round for ever") {
  SlotPool pool(3, kStride, 3);
  for (int i = 0; i < 10'000; ++i) {
    uint32_t slot = 0;
    for (int tries = 0; slot == 0 && tries < 4; ++tries) slot = pool.Take();
    REQUIRE(slot != 0);
    pool.Retire(slot);
  }
  CHECK(TakeAll(pool) == UpTo(3));
}

// Threads take slots, mark them as theirs, write their rows, and let them go in either way.
TEST_CASE("slot pool: a slot has one owner at a time, under contention for few of them") {
  constexpr uint32_t kSlots = 12;
  constexpr int kThreads = 4;
  SlotPool pool(kSlots, kStride, 6);
  std::vector<std::atomic<bool>> owned(kSlots + 1);
  std::atomic<int> shared{0}, torn{0}, taken{0};
  const auto work = [&](int self) {
    Rng rng(RandomKey(11, static_cast<uint64_t>(self)));
    std::vector<uint32_t> mine;
    for (int i = 0; i < 2000 * kScale; ++i) {
      if (mine.size() < 3 && rng.Next() % 2 == 0) {
        const uint32_t slot = pool.Take();
        if (slot == 0) continue;
        ++taken;
        shared += owned[slot].exchange(true, std::memory_order_relaxed);
        const std::vector<uint32_t> contents(kStride / 4, static_cast<uint32_t>(self));
        CopyToShared(pool.row(slot), contents.data(), kStride);
        mine.push_back(slot);
      } else if (!mine.empty()) {
        const uint32_t slot = mine.back();
        std::vector<uint32_t> contents(kStride / 4);
        CopyFromShared(contents.data(), pool.row(slot), kStride);
        torn += contents != std::vector<uint32_t>(kStride / 4, static_cast<uint32_t>(self));
        mine.pop_back();
        owned[slot].store(false, std::memory_order_relaxed);
        if (rng.Next() % 2 == 0) {
          pool.GiveBack(slot);
        } else {
          pool.Retire(slot);
        }
      }
    }
    for (const uint32_t slot : mine) {
      owned[slot].store(false, std::memory_order_relaxed);
      pool.GiveBack(slot);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  CHECK(shared.load() == 0);
  CHECK(torn.load() == 0);
  CHECK(taken.load() > 1000);
  CHECK(TakeAll(pool) == UpTo(kSlots));
}

// Threads publish slots in a few places and retire what was there before; a reader's slot keeps its row while the
// reader holds its guard. The first four bytes of a row are the pool's when it is free, its number is behind them.
TEST_CASE("slot pool: a row that a reader found stays as it is under the reader's guard") {
  constexpr uint32_t kPlaces = 3;
  constexpr int kThreads = 4;
  SlotPool pool(40, kStride, 24);
  std::vector<std::atomic<uint32_t>> places(kPlaces);
  std::atomic<uint32_t> number{0};
  std::atomic<int> changed{0}, published{0};
  const auto read = [&](uint32_t slot) {
    uint32_t row[2];
    CopyFromShared(row, pool.row(slot), sizeof(row));
    return row[1];
  };
  const auto work = [&](int self) {
    Rng rng(RandomKey(12, static_cast<uint64_t>(self)));
    for (int i = 0; i < 2000 * kScale; ++i) {
      const Epoch::Guard guard;
      std::atomic<uint32_t>& place = places[rng.Next() % kPlaces];
      const uint32_t found = place.load(std::memory_order_acquire);
      const uint32_t before = found == 0 ? 0 : read(found);
      if (rng.Next() % 4 == 0) {
        if (const uint32_t slot = pool.Take(); slot != 0) {
          const uint32_t row[2] = {UINT32_MAX, ++number};
          CopyToShared(pool.row(slot), row, sizeof(row));
          const uint32_t old = place.exchange(slot, std::memory_order_acq_rel);
          if (old != 0) pool.Retire(old);
          ++published;
        }
      }
      if (rng.Next() % 32 == 0) std::this_thread::yield();
      changed += found != 0 && read(found) != before;
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  CHECK(changed.load() == 0);
  CHECK(published.load() > 100);
  for (const auto& place : places) {
    if (place.load() != 0) pool.GiveBack(place.load());
  }
  CHECK(TakeAll(pool) == UpTo(40));
}

}  // namespace
}  // namespace persia
