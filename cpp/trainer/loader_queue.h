// LoaderQueue: the batches of a data loader that does not drive, between whoever reads the data (TypeScript, ts/data) and
// the driver, which opens a pass over the data, asks for batches by number, and says as which step each is to be trained.
//
//   reader ── NextPass ──────────►           ◄── Open(pass) ────────── driver
//          ── Deliver(number, batch) ► ready ◄── Ask(number): how many rows, or that the pass has no such batch
//          ── Finish ────────────►           ◄── Take(number)
//
// Passes have rising numbers. Opening one ends the one before: what is ready of it is dropped, and whoever waits for it
// gets kAborted, as does everything that is said of it later. Batches have their numbers in the whole pass, of which a
// loader has every n-th; both sides go through them upwards.
//
// Bound: kMostReady batches wait to be taken; the completion of Deliver is the back-pressure.
//
// Thread-safety: internally synchronised. Completions run inside of the call that makes them due, never under a lock.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "batch/batch.h"

namespace persia {

class LoaderQueue {
 public:
  static constexpr size_t kMostReady = 4;

  // What a pass is told to its reader with: text that only readers understand.
  struct Pass {
    uint64_t number = 0;
    std::string text;
  };
  using PassDone = std::function<void(Result<Pass>)>;
  using AskDone = std::function<void(Result<std::optional<uint32_t>> rows)>;
  using Done = std::function<void(Status)>;

  // ---- the reader's side

  // The pass that is open, when it is another one than `last`. One call at a time.
  void NextPass(uint64_t last, PassDone done);
  // `done` runs when there is room for the next batch.
  void Deliver(const BatchPlace& place, std::shared_ptr<const Batch> batch, Done done);
  // The pass has no more batches of this loader.
  Status Finish(uint64_t pass);

  // ---- the driver's side

  // kUsage: passes go upwards.
  Status Open(Pass pass);
  // Waits until the batch is there, or the pass is finished without it.
  void Ask(const BatchPlace& place, AskDone done);
  // kUsage: it is not there. Makes room for another.
  Result<std::shared_ptr<const Batch>> Take(const BatchPlace& place);

  size_t ready() const;
  // Whoever waits, and every later call, gets kClosed. Idempotent.
  void Close();

 private:
  using Calls = std::vector<std::function<void()>>;  // completions that are due, to be run without the lock

  Status Check(uint64_t pass) const;
  void EndPass(const Status& why, Calls& due);

  mutable std::mutex mutex_;  // guards what follows
  bool closed_ = false;
  Pass pass_;
  bool finished_ = false;
  std::map<uint64_t, std::shared_ptr<const Batch>> ready_;  // by number
  std::map<uint64_t, AskDone> asked_;
  Done delivered_;                                          // of the batch that there was no room behind
  std::optional<std::pair<uint64_t, PassDone>> next_pass_;  // the last that the reader knows
};

}  // namespace persia
