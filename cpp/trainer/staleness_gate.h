// StalenessGate: the one place that decides when a step of an NN worker may be looked up, trained and applied.
//
// Steps are numbered 1, 2, 3, … and pass three stages in order: lookup, train, apply. The *staleness* of a batch is the
// number of earlier batches of this NN worker whose gradients its lookup did not see: looked up and not yet applied.
//
// Rules (S = bound, a = lookahead, A = steps applied, L = lookups done, N = last step before a drain):
//  - lookup(t) starts when A >= t - 1 - a, with a <= S: no batch is ever more than S behind. The lookahead is S, or
//    just in time: as small as keeps the stages busy (trainer/lookahead.h).
//  - ordered (deterministic): apply(a) also waits for lookup(min(a + S, N)), so every lookup sees exactly the gradients
//    up to t - 1 - S and a run is the same on every machine. The lookahead is S then. Without it apply never waits.
//  - while a pause at step k is asked for: lookup stays at <= k + S, train at <= k. The pipeline is *at rest* once
//    A = k and no lookup is under way; from then on no stage starts until the pause is lifted. If ordered,
//    L = min(k + S, N) then, a state which an undisturbed run passes through, so saving it changes nothing.
//
// Several NN workers have a gate each, and pause at the same step: RequestPause takes all of them.
//
// GateState holds the rules as pure functions of the counters (tested over all small schedules); StalenessGate adds the
// mutex and the waiting. All counters are guarded by the mutex; no atomics.
//
// Thread-safety: GateState none, StalenessGate internally synchronised.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "trainer/lookahead.h"

namespace persia {

struct GateState {
  uint64_t staleness = 0;  // S
  bool ordered = false;
  uint64_t lookahead = 0;  // a

  uint64_t lookups_started = 0, lookups_done = 0;  // each stage handles steps in order, one at a time
  bool lookup_waits = false;                       // the next one has its batch, and waits to begin
  bool lookup_held = false;                        // the one that waits or is under way was held by the lookahead
  uint64_t trains_started = 0, trained = 0;
  uint64_t applies_started = 0, applied = 0;
  uint64_t drained_to = 0;                // N: no step after this one was handed in when a drain was asked for
  std::optional<uint64_t> pause_at;       // k
  bool at_rest = false;                   // the pause was reached

  bool MayLookup(uint64_t step) const { return MayLookup(step, lookahead); }
  bool MayTrain(uint64_t step) const { return !pause_at || step <= *pause_at; }
  bool MayApply(uint64_t step) const { return !ordered || lookups_done >= Horizon(step); }

  // To be called after every change: notes what holds a lookup, comes to rest when the pause is reached.
  void Settle() {
    lookup_held = (lookup_held || IsHeld()) && (lookup_waits || lookups_done < lookups_started);
    at_rest = at_rest || (pause_at && applied == *pause_at && trains_started == applied &&
                          lookups_started == lookups_done && (!ordered || lookups_done >= Horizon(*pause_at)));
  }

  // For Lookahead.
  Lookahead::Moment Moment() const {
    return {IsHeld(), lookup_held && trained == trains_started && lookups_done == trained, applied == applies_started};
  }

  // Replaces the pause, or lifts it; never one before EarliestPause().
  void SetPause(std::optional<uint64_t> at) {
    pause_at = at;
    at_rest = false;
    Settle();
  }

  // The earliest step at which training can stop: nothing that is looked up too far ahead is thrown away.
  uint64_t EarliestPause() const {
    return std::max(trains_started, lookups_started > staleness ? lookups_started - staleness : 0);
  }

  // Batches behind the newest lookup right now: never above S.
  uint64_t Staleness() const { return lookups_started > applied ? lookups_started - applied - 1 : 0; }

 private:
  bool MayLookup(uint64_t step, uint64_t ahead) const {
    return !at_rest && applied + ahead + 1 >= step && (!pause_at || step <= *pause_at + staleness);
  }

  // Nothing but the lookahead is in the way of the next lookup.
  bool IsHeld() const {
    const uint64_t next = lookups_started + 1;
    return lookup_waits && !MayLookup(next) && MayLookup(next, staleness);
  }

  // The last lookup that belongs before apply(step) in the ordered schedule.
  uint64_t Horizon(uint64_t step) const {
    return step <= drained_to ? std::min(step + staleness, drained_to) : step + staleness;
  }
};

class StalenessGate {
 public:
  enum class Schedule {
    kOrdered,     // every lookup exactly `staleness` behind
    kEager,       // lookups as early as the bound allows
    kJustInTime,  // as late as keeps the stages busy
  };
  StalenessGate(uint64_t staleness, Schedule schedule);

  // Stage calls. Begin waits until the rules allow the step; false means that the gate was stopped: leave it.
  // BeginApply goes on after Stop, so that every trained step is applied.
  bool BeginLookup(uint64_t step);
  void EndLookup(uint64_t step);
  bool BeginTrain(uint64_t step);
  void EndTrain(uint64_t step);
  void BeginApply(uint64_t step);
  void EndApply(uint64_t step);

  // Nothing follows `last_step` for now: ordered applies stop waiting for lookups beyond it.
  void Drain(uint64_t last_step);

  // Asks all gates for a pause after step `at`, or as soon as all of them can; returns the step, or nothing when `at`
  // is behind already for one of them. Of several pauses the earliest holds.
  static std::optional<uint64_t> RequestPause(std::span<StalenessGate* const> gates, std::optional<uint64_t> at);
  // Goes on to the pause after step `next`, or freely.
  void Resume(std::optional<uint64_t> next);

  void Stop();

  // Starts counting at `step`: all earlier steps count as done (a restored checkpoint). Only before the first stage
  // call.
  void StartAfter(uint64_t step);

  GateState state() const;
  // How many lookups started with a staleness of 0, 1, … bound.
  std::vector<uint64_t> histogram() const;

 private:
  // Under mutex_: changes the state, at this moment of time.
  template <typename Change>
  void Set(Change change);
  // Changes the state and wakes whoever waits.
  template <typename Change>
  void Update(Change change);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  GateState state_;
  std::optional<Lookahead> lookahead_;  // just in time
  double since_;                        // when the state changed last
  std::vector<uint64_t> histogram_;
  bool stopped_ = false;
};

}  // namespace persia
