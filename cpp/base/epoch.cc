#include "base/epoch.h"

#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/environment.h"
#include "base/status.h"

namespace persia {
namespace {

struct Retired {
  uint64_t stamp;
  std::function<void()> free;
};

std::atomic<uint64_t> global_epoch{1};
std::atomic<Epoch::Participant*> participants{nullptr};

// Never destroyed: threads may end after static objects have.
struct Graveyard {
  std::atomic<size_t> count{0};  // of items: read before the mutex is taken
  std::mutex mutex;
  std::vector<Retired> items;
};
Graveyard& TheGraveyard() {
  static Graveyard* const graveyard = new Graveyard;
  return *graveyard;
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
  const uint64_t stamp = Stamp();
  {
    Graveyard& graveyard = TheGraveyard();
    std::lock_guard lock(graveyard.mutex);
    graveyard.items.push_back({stamp, std::move(free)});
    graveyard.count.store(graveyard.items.size(), std::memory_order_relaxed);
  }
  Collect();
}

void Epoch::Collect() {
  Graveyard& graveyard = TheGraveyard();
  if (graveyard.count.load(std::memory_order_relaxed) == 0) return;
  std::vector<Retired> free;
  {
    std::lock_guard lock(graveyard.mutex);
    for (size_t i = 0; i < graveyard.items.size();) {
      if (!Passed(graveyard.items[i].stamp)) {
        ++i;
        continue;
      }
      free.push_back(std::move(graveyard.items[i]));
      graveyard.items[i] = std::move(graveyard.items.back());
      graveyard.items.pop_back();
    }
    graveyard.count.store(graveyard.items.size(), std::memory_order_relaxed);
  }
  for (const Retired& item : free) item.free();
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
