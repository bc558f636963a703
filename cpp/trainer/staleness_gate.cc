#include "trainer/staleness_gate.h"

#include "base/status.h"

namespace persia {

StalenessGate::StalenessGate(uint64_t staleness, bool ordered) : histogram_(staleness + 1) {
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
    GateState& state = gate->state_;
    if (!state.pause_at || step < *state.pause_at) state.SetPause(step);
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
    state.trains_started = state.applied = state.drained_to = step;
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
