#include "trainer/staleness_gate.h"

#include "base/clock.h"
#include "base/status.h"

namespace persia {

StalenessGate::StalenessGate(uint64_t staleness, Schedule schedule) : since_(NowSeconds()), histogram_(staleness + 1) {
  state_.staleness = state_.lookahead = staleness;
  state_.ordered = schedule == Schedule::kOrdered;
  if (schedule != Schedule::kJustInTime) return;
  lookahead_.emplace(staleness);
  state_.lookahead = lookahead_->steps();
}

template <typename Change>
void StalenessGate::Set(Change change) {
  if (lookahead_) {
    const double now = NowSeconds();
    lookahead_->Spent(now - since_, state_.Moment());
    since_ = now;
  }
  change(state_);
  state_.Settle();
}

template <typename Change>
void StalenessGate::Update(Change change) {
  {
    std::lock_guard lock(mutex_);
    Set(change);
  }
  changed_.notify_all();
}

bool StalenessGate::BeginLookup(uint64_t step) {
  std::unique_lock lock(mutex_);
  Set([](GateState& state) { state.lookup_waits = true; });
  changed_.wait(lock, [&] { return stopped_ || state_.MayLookup(step); });
  if (stopped_) return false;
  PERSIA_CHECK(step == state_.lookups_started + 1);
  Set([&](GateState& state) {
    state.lookup_waits = false;
    state.lookups_started = step;
  });
  const uint64_t staleness = state_.Staleness();
  PERSIA_CHECK(staleness <= state_.staleness);
  ++histogram_[staleness];
  return true;
}

void StalenessGate::EndLookup(uint64_t step) {
  Update([&](GateState& state) { state.lookups_done = step; });
}

bool StalenessGate::BeginTrain(uint64_t step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || state_.MayTrain(step); });
  if (stopped_) return false;
  Set([&](GateState& state) { state.trains_started = step; });
  return true;
}

void StalenessGate::EndTrain(uint64_t step) {
  std::lock_guard lock(mutex_);
  Set([&](GateState& state) { state.trained = step; });
}

void StalenessGate::BeginApply(uint64_t step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || state_.MayApply(step); });
  PERSIA_CHECK(step == state_.applied + 1);
  Set([&](GateState& state) { state.applies_started = step; });
}

void StalenessGate::EndApply(uint64_t step) {
  Update([&](GateState& state) {
    state.applied = step;
    if (!lookahead_) return;
    lookahead_->Applied();
    state.lookahead = lookahead_->steps();
  });
}

void StalenessGate::Drain(uint64_t last_step) {
  Update([&](GateState& state) { state.drained_to = std::max(state.drained_to, last_step); });
}

// All gates are locked at once, so that none passes the step that the others agree on.
std::optional<uint64_t> StalenessGate::RequestPause(std::span<StalenessGate* const> gates,
                                                    std::optional<uint64_t> at) {
  std::vector<std::unique_lock<std::mutex>> locks;
  uint64_t earliest = 0;
  for (StalenessGate* gate : gates) {
    locks.emplace_back(gate->mutex_);
    earliest = std::max(earliest, gate->state_.EarliestPause());
  }
  if (at && *at < earliest) return std::nullopt;
  const uint64_t step = at ? *at : earliest;
  for (StalenessGate* gate : gates) {
    gate->Set([step](GateState& state) {
      if (!state.pause_at || step < *state.pause_at) state.SetPause(step);
    });
  }
  return step;
}

void StalenessGate::Resume(std::optional<uint64_t> next) {
  Update([&](GateState& state) { state.SetPause(next); });
}

void StalenessGate::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

void StalenessGate::StartAfter(uint64_t step) {
  Update([&](GateState& state) {
    state.lookups_started = state.lookups_done = step;
    state.trains_started = state.trained = step;
    state.applies_started = state.applied = state.drained_to = step;
  });
}

GateState StalenessGate::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

std::vector<uint64_t> StalenessGate::histogram() const {
  std::lock_guard lock(mutex_);
  return histogram_;
}

}  // namespace persia
