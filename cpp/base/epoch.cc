#include "base/epoch.h"

#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "base/environment.h"
#include "base/status.h"

namespace persia {
namespace {

struct Retired {
  uint64_t stamp;
  std::function<void()> free;
  Retired* next;
};

std::atomic<uint64_t> global_epoch{1};
std::atomic<Epoch::Participant*> participants{nullptr};

std::atomic<Retired*> retired{nullptr};

// Pushes a chain of retired things, from `first` to `last`.
void PushRetired(Retired* first, Retired* last) {
  last->next = retired.load(std::memory_order_relaxed);
  while (!retired.compare_exchange_weak(last->next, first, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

Epoch::Participant* Join() {
  for (Epoch::Participant* p = participants.load(std::memory_order_acquire); p != nullptr; p = p->next) {
    bool expected = false;
    if (p->taken.compare_exchange_strong(expected, true, std::memory_order_acq_rel)) return p;
  }
  auto* p = new Epoch::Participant;
  p->taken.store(true, std::memory_order_relaxed);
  p->next = participants.load(std::memory_order_relaxed);
  while (!participants.compare_exchange_weak(p->next, p, std::memory_order_release, std::memory_order_relaxed)) {
  }
  return p;
}

struct Membership {
  Epoch::Participant* const participant = Join();
  ~Membership() { participant->taken.store(false, std::memory_order_release); }
};

// Pins the present epoch; the fence stands between that and the reads that follow.
void Pin(Epoch::Participant& self) {
  self.pinned.store(global_epoch.load(std::memory_order_seq_cst), std::memory_order_relaxed);
  StdEnvironment::Fence(std::memory_order_seq_cst);
}

void TryAdvance() {
  StdEnvironment::Fence(std::memory_order_seq_cst);
  uint64_t epoch = global_epoch.load(std::memory_order_seq_cst);
  for (const Epoch::Participant* p = Epoch::First(); p != nullptr; p = p->next) {
    const uint64_t pinned = p->pinned.load(std::memory_order_seq_cst);
    if (pinned != 0 && pinned != epoch) return;
  }
  global_epoch.compare_exchange_strong(epoch, epoch + 1, std::memory_order_seq_cst);
}

}  // namespace

Epoch::Participant* Epoch::First() { return participants.load(std::memory_order_acquire); }

Epoch::Participant& Epoch::Self() {
  thread_local Membership membership;
  return *membership.participant;
}

Epoch::Guard::Guard() {
  Participant& self = Self();
  if (self.depth++ > 0) return;
  Pin(self);
}

Epoch::Guard::~Guard() {
  Participant& self = Self();
  if (--self.depth > 0) return;
  self.pinned.store(0, std::memory_order_release);  // the guard's reads come before: partner is TryAdvance's load
}

void Epoch::Guard::Renew() {
  Participant& self = Self();
  if (self.depth > 1) return;
  self.pinned.store(0, std::memory_order_release);
  std::this_thread::yield();
  Pin(self);
}

uint64_t Epoch::Stamp() {
  StdEnvironment::Fence(std::memory_order_seq_cst);
  return global_epoch.load(std::memory_order_seq_cst);
}

bool Epoch::Passed(uint64_t stamp) {
  if (global_epoch.load(std::memory_order_seq_cst) >= stamp + 2) return true;
  TryAdvance();
  return global_epoch.load(std::memory_order_seq_cst) >= stamp + 2;
}

void Epoch::Retire(std::function<void()> free) {
  auto* one = new Retired{Stamp(), std::move(free), nullptr};
  PushRetired(one, one);
  Collect();
}

void Epoch::Collect() {
  if (retired.load(std::memory_order_relaxed) == nullptr) return;
  Retired *passed = nullptr, *waiting = nullptr, *last = nullptr;
  for (Retired *one = retired.exchange(nullptr, std::memory_order_acquire), *next; one != nullptr; one = next) {
    next = one->next;
    if (Passed(one->stamp)) {
      one->next = std::exchange(passed, one);
    } else {
      if (waiting == nullptr) last = one;
      one->next = std::exchange(waiting, one);
    }
  }
  if (waiting != nullptr) PushRetired(waiting, last);
  while (passed != nullptr) {
    const std::unique_ptr<Retired> one(std::exchange(passed, passed->next));
    one->free();
  }
}

std::byte* Epoch::RecordRoom(Participant& self, size_t bytes) {
  std::byte* room = self.record_data.load(std::memory_order_relaxed);
  if (bytes <= self.record_bytes) return room;
  constexpr size_t kLine = 64;
  const size_t rounded = (bytes + kLine - 1) / kLine * kLine;
  auto* larger = static_cast<std::byte*>(std::aligned_alloc(kLine, rounded));
  PERSIA_CHECK(larger != nullptr);
  self.record_data.store(larger, std::memory_order_release);
  self.record_bytes = rounded;
  if (room != nullptr) Retire([room] { std::free(room); });  // a reader may be copying from it
  return larger;
}

}  // namespace persia
