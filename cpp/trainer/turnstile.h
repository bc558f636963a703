// Turnstile: lets threads through one after another in the order of numbers, each of which comes once.
//
// In deterministic mode the lookups of several NN workers go through one: rows are inserted, and made recent, in the
// order of steps and ranks, so that tables end in the same bytes on every run.
//
// Thread-safety: internally synchronised.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace persia {

class Turnstile {
 public:
  // Before anybody waits.
  void StartAt(uint64_t turn) {
    std::lock_guard lock(mutex_);
    turn_ = turn;
  }

  // Waits for the turn; false when the turnstile was stopped.
  bool Enter(uint64_t turn) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || turn_ == turn; });
    return !stopped_;
  }

  // The turn under way is over.
  void Leave() {
    {
      std::lock_guard lock(mutex_);
      ++turn_;
    }
    changed_.notify_all();
  }

  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t turn_ = 0;
  bool stopped_ = false;
};

}  // namespace persia
