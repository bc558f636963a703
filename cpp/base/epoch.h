// Epochs: when memory that lock-free readers may still hold can be used again (Fraser 2004, "Practical lock-freedom").
//
// A thread holds a Guard while it uses pointers or slots that others may take out of reach. What was taken out of reach
// is stamped with the epoch of that moment and is free two epochs later; the epoch advances when all guards of the
// moment have seen the present one.
//
// Invariants and memory orders
//  - The global epoch is read and advanced with seq_cst, and seq_cst fences stand between "pin, then read" (Guard) and
//    "take out of reach, then read the epoch" (Stamp). So a guard that pins epoch e + 1 or later sees everything that
//    was taken out of reach before a stamp of e.
//  - A guard that pins e keeps the epoch at e + 1 or less. What is stamped e is free from e + 2 on: no guard that could
//    have seen it is left.
//  - A guard that pins an epoch of the past (it was suspended between reading and pinning) only keeps the epoch back.
//
// Each thread is a Participant while it lives. A participant also has room for one *record*: the new contents of the
// row it is writing, for readers that meet the row meanwhile (table/row_guard.h).
//
// What was retired waits in a list that is only pushed to and taken as a whole: whoever collects takes all of it, frees
// what has passed and pushes back the rest. (So there is no ABA; partners: the push's release, the taking's acquire.)
//
// Thread-safety: internally synchronised, lock-free; a Guard is thread-confined, guards nest. What Collect runs may
// wait: unmapping memory waits for a step of base/pretouch.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace persia {

class Epoch {
 public:
  struct alignas(64) Participant {
    std::atomic<uint64_t> pinned{0};  // 0: no guard
    std::atomic<bool> taken{false};   // by a thread that lives
    uint32_t depth = 0;               // of nested guards, the thread's own
    Participant* next = nullptr;      // in the list of all; constant once listed

    // The record. See table/row_guard.h for its protocol.
    std::atomic<const void*> record_row{nullptr};
    std::atomic<uint64_t> record_number{0};
    std::atomic<std::byte*> record_data{nullptr};
    size_t record_bytes = 0;  // room, the thread's own
  };

  class Guard {
   public:
    Guard();
    ~Guard();
    // Lets go and pins the present epoch: what was found before must be searched again. Does nothing within another
    // guard of this thread.
    void Renew();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
  };

  // The stamp for what the caller has just taken out of reach.
  static uint64_t Stamp();
  // Whether everything stamped so is free. Tries to advance the epoch when it is not.
  static bool Passed(uint64_t stamp);

  // Calls `free` some time after it is safe, on whichever thread comes by. For rare, large things.
  static void Retire(std::function<void()> free);
  // Frees what can be freed now: cheap when there is nothing. Without a guard, which would keep things back.
  static void Collect();

  // The calling thread's own participant.
  static Participant& Self();
  // Room for `bytes` in the caller's record.
  static std::byte* RecordRoom(Participant& self, size_t bytes);
  // The list of all participants, taken or not.
  static Participant* First();
};

}  // namespace persia
