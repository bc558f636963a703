#include "trainer/staleness_gate.h"

#include "base/status.h"

namespace persia {

StalenessGate::StalenessGate(uint64_t staleness, bool ordered) {
  state_.staleness = staleness;
  state_.ordered = ordered;
}

template <typename Change>
void StalenessGate::Update(Change change) {
  {
    std::lock_guard lock(mutex_);
    change(state_);
    state_.Settle();
  }
  changed_.notify_all();
}

bool StalenessGate::BeginLookup(uint64_t step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || state_.MayLookup(step); });
  if (stopped_) return false;
  PERSIA_CHECK(step == state_.lookups_started + 1);
  state_.lookups_started = step;
  most_staleness_ = std::max(most_staleness_, state_.Staleness());
  return true;
}

void StalenessGate::EndLookup(uint64_t step) {
  Update([&](GateState& state) { state.lookups_done = step; });
}

bool StalenessGate::BeginTrain(uint64_t step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || state_.MayTrain(step); });
  if (stopped_) return false;
  state_.trains_started = step;
  return true;
}

void StalenessGate::BeginApply(uint64_t step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || state_.MayApply(step); });
  PERSIA_CHECK(step == state_.applied + 1);
}

void StalenessGate::EndApply(uint64_t step) {
  Update([&](GateState& state) { state.applied = step; });
}

void StalenessGate::Drain(uint64_t last_step) {
  Update([&](GateState& state) { state.drained_to = std::max(state.drained_to, last_step); });
}

std::optional<uint64_t> StalenessGate::RequestPause(std::optional<uint64_t> at) {
  std::lock_guard lock(mutex_);
  const uint64_t earliest = state_.EarliestPause();
  if (at && *at < earliest) return std::nullopt;
  const uint64_t step = at ? *at : earliest;
  if (!state_.pause_at || step < *state_.pause_at) state_.SetPause(step);
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
    state.trains_started = state.applied = state.drained_to = step;
  });
}

GateState StalenessGate::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

uint64_t StalenessGate::most_staleness() const {
  std::lock_guard lock(mutex_);
  return most_staleness_;
}

}  // namespace persia
