// Epochs: what is retired is freed once, after the guards of that time, and not before.
#include "base/epoch.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "sanitizers.h"

namespace persia {
namespace {

constexpr int kScale = kSanitized ? 1 : 10;

// Tries to free as often as it takes when no guard is held: two advances of the epoch.
void CollectAll() {
  for (int i = 0; i < 3; ++i) Epoch::Collect();
}

// A thread that holds a guard (guards, nested) until it is told to leave.
class Holder {
 public:
  explicit Holder(int guards = 1) : thread_([this, guards] { Hold(guards); }) { Wait(1); }
  ~Holder() {
    if (thread_.joinable()) Leave();
  }
  void Leave() {
    step_.store(2);
    step_.notify_all();
    thread_.join();
  }

 private:
  void Hold(int guards) {
    const Epoch::Guard guard;
    if (guards > 1) return Hold(guards - 1);
    step_.store(1);
    step_.notify_all();
    Wait(2);
  }
  void Wait(int step) {
    for (int now = step_.load(); now < step; now = step_.load()) step_.wait(now);
  }

  std::atomic<int> step_{0};
  std::thread thread_;
};

TEST_CASE("epoch: what is retired is freed once, soon after when nobody holds a guard") {
  int freed = 0;
  Epoch::Retire([&freed] { ++freed; });
  CollectAll();
  CHECK(freed == 1);
  CollectAll();
  CHECK(freed == 1);
}

TEST_CASE("epoch: a guard of another thread keeps what is retired, until it goes") {
  int freed = 0;
  Holder holder;
  Epoch::Retire([&freed] { ++freed; });
  const uint64_t stamp = Epoch::Stamp();
  for (int i = 0; i < 100; ++i) Epoch::Collect();
  CHECK(freed == 0);
  CHECK_FALSE(Epoch::Passed(stamp));
  holder.Leave();
  CollectAll();
  CHECK(freed == 1);
  CHECK(Epoch::Passed(stamp));
}

TEST_CASE("epoch: a guard keeps what its own thread retires, and inner guards that go change nothing") {
  int freed = 0;
  {
    const Epoch::Guard outer;
    {
      const Epoch::Guard inner;
      Epoch::Retire([&freed] { ++freed; });
    }
    for (int i = 0; i < 100; ++i) Epoch::Collect();
    CHECK(freed == 0);
    { const Epoch::Guard again; }
    CollectAll();
    CHECK(freed == 0);
  }
  CollectAll();
  CHECK(freed == 1);
}

TEST_CASE("epoch: nested guards of another thread end with the outermost") {
  int freed = 0;
  Holder holder(3);
  Epoch::Retire([&freed] { ++freed; });
  for (int i = 0; i < 10; ++i) Epoch::Collect();
  CHECK(freed == 0);
  holder.Leave();
  CollectAll();
  CHECK(freed == 1);
}

TEST_CASE("epoch: guards that begin later don't keep what was retired before them") {
  int freed = 0;
  Epoch::Retire([&freed] { ++freed; });
  for (int i = 0; i < 3; ++i) {
    const Holder holder;
    Epoch::Collect();
  }
  CHECK(freed == 1);
}

TEST_CASE("epoch: what is freed may retire more") {
  int freed = 0;
  Epoch::Retire([&freed] { Epoch::Retire([&freed] { ++freed; }); });
  CollectAll();
  CollectAll();
  CHECK(freed == 1);
}

size_t Participants() {
  size_t count = 0;
  for (const Epoch::Participant* p = Epoch::First(); p != nullptr; p = p->next) ++count;
  return count;
}

TEST_CASE("epoch: threads that end leave their places to others") {
  std::thread([] { Epoch::Self(); }).join();
  const size_t before = Participants();
  for (int i = 0; i < 20; ++i) std::thread([] { const Epoch::Guard guard; }).join();
  CHECK(Participants() == before);
}

TEST_CASE("epoch: a record has room on a line's boundary, keeps it, and grows while others may read the old") {
  Epoch::Participant& self = Epoch::Self();
  std::byte* room = Epoch::RecordRoom(self, 40);
  CHECK(reinterpret_cast<uintptr_t>(room) % 64 == 0);
  CHECK(Epoch::RecordRoom(self, 8) == room);
  CHECK(self.record_data.load() == room);
  std::memset(room, 7, 40);
  const size_t larger = self.record_bytes + 1;
  {
    const Epoch::Guard guard;
    std::byte* grown = Epoch::RecordRoom(self, larger);
    CHECK(grown != room);
    CHECK(self.record_data.load() == grown);
    CHECK(self.record_bytes >= larger);
    std::memset(grown, 8, larger);
    CollectAll();
    CHECK(room[39] == std::byte{7});  // or AddressSanitizer objects
  }
  CollectAll();
}

// Threads replace nodes and read them meanwhile. A node says whether it is alive; TSan and ASan see the rest.
TEST_CASE("epoch: readers never meet what was freed, and everything is freed once") {
  struct Node {
    uint64_t alive = 0x600d;
  };
  constexpr int kThreads = 4;
  const int steps = 1000 * kScale;
  std::array<std::atomic<Node*>, 3> shared;
  for (auto& place : shared) place.store(new Node);
  std::atomic<int> dead{0}, retired{0}, freed{0};
  const auto work = [&](int self) {
    for (int i = 0; i < steps; ++i) {
      const Epoch::Guard guard;
      std::atomic<Node*>& place = shared[static_cast<size_t>(i % 3)];
      const Node* node = place.load(std::memory_order_acquire);
      if (i % 16 == self) {
        Node* old = place.exchange(new Node, std::memory_order_acq_rel);
        ++retired;
        Epoch::Retire([old, &freed] {
          old->alive = 0xdead;
          delete old;
          ++freed;
        });
      }
      if (i % 64 == 0) std::this_thread::yield();
      dead += node->alive != 0x600d;
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  CHECK(dead.load() == 0);
  CHECK(freed.load() > 0);
  CollectAll();
  CHECK(freed.load() == retired.load());
  for (auto& place : shared) delete place.load();
}

}  // namespace
}  // namespace persia
