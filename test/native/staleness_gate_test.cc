// The gate's rules over every schedule of small runs, and its waiting with real threads.
#include "trainer/staleness_gate.h"

#include <atomic>
#include <numeric>
#include <set>
#include <thread>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>

#include "base/rng.h"

namespace persia {
namespace {

// One pipeline of `steps` steps, reduced to its counters. Every stage is one thread that handles steps in order, so a
// schedule is a sequence of these moves.
enum class Move { kBeginLookup, kEndLookup, kBeginTrain, kEndTrain, kBeginApply, kEndApply, kDrain, kMore, kLess };
constexpr Move kMoves[] = {Move::kBeginLookup, Move::kEndLookup, Move::kBeginTrain, Move::kEndTrain, Move::kBeginApply,
                           Move::kEndApply,    Move::kDrain,     Move::kMore,       Move::kLess};

struct Model {
  GateState gate;
  uint64_t steps = 0;
  bool just_in_time = false;   // the lookahead changes at any time
  std::vector<uint64_t> seen;  // for each lookup: steps applied when it started (ordered: whatever the schedule)

  auto Key() const {
    return std::make_tuple(gate.lookups_started, gate.lookups_done, gate.trains_started, gate.trained,
                           gate.applies_started, gate.applied, gate.drained_to, gate.lookahead, gate.at_rest, seen);
  }

  bool Can(Move move) const {
    switch (move) {
      case Move::kBeginLookup: {
        const uint64_t next = gate.lookups_started + 1;
        return gate.lookups_started == gate.lookups_done && next <= steps && gate.MayLookup(next);
      }
      case Move::kEndLookup: return gate.lookups_done < gate.lookups_started;
      case Move::kBeginTrain: {
        const uint64_t next = gate.trains_started + 1;
        return gate.trains_started == gate.trained && next <= gate.lookups_done && gate.MayTrain(next);
      }
      case Move::kEndTrain: return gate.trained < gate.trains_started;
      case Move::kBeginApply: {
        const uint64_t next = gate.applies_started + 1;
        return gate.applies_started == gate.applied && next <= gate.trained && gate.MayApply(next);
      }
      case Move::kEndApply: return gate.applied < gate.applies_started;
      case Move::kDrain: return gate.drained_to < steps;
      case Move::kMore: return just_in_time && gate.lookahead < gate.staleness;
      case Move::kLess: return just_in_time && gate.lookahead > 1;
    }
    return false;
  }

  void Do(Move move) {
    switch (move) {
      case Move::kBeginLookup:
        ++gate.lookups_started;
        seen.push_back(gate.applied);
        break;
      case Move::kEndLookup: gate.lookups_done = gate.lookups_started; break;
      case Move::kBeginTrain: ++gate.trains_started; break;
      case Move::kEndTrain: gate.trained = gate.trains_started; break;
      case Move::kBeginApply: ++gate.applies_started; break;
      case Move::kEndApply: gate.applied = gate.applies_started; break;
      case Move::kDrain: gate.drained_to = steps; break;
      case Move::kMore: ++gate.lookahead; break;
      case Move::kLess: --gate.lookahead; break;
    }
    gate.Settle();
  }
};

// Visits every reachable state; `visit(model, stuck)` is called once for each. A model whose lookahead alone can change
// is stuck too.
template <typename Visit>
size_t Explore(const Model& start, Visit visit) {
  std::set<decltype(start.Key())> known{start.Key()};
  std::vector<Model> open{start};
  while (!open.empty()) {
    const Model model = open.back();
    open.pop_back();
    bool stuck = true;
    for (Move move : kMoves) {
      if (!model.Can(move)) continue;
      stuck = stuck && (move == Move::kMore || move == Move::kLess);
      Model next = model;
      next.Do(move);
      if (known.insert(next.Key()).second) open.push_back(next);
    }
    visit(model, stuck);
  }
  return known.size();
}

Model Start(uint64_t steps, uint64_t staleness, bool ordered) {
  Model model;
  model.steps = steps;
  model.gate.staleness = model.gate.lookahead = staleness;
  model.gate.ordered = ordered;
  return model;
}

Model StartJustInTime(uint64_t steps, uint64_t staleness) {
  Model model = Start(steps, staleness, false);
  model.just_in_time = true;
  model.gate.lookahead = Lookahead(staleness).steps();
  return model;
}

}  // namespace

TEST_CASE("in every schedule staleness stays within the bound and every step is applied") {
  for (uint64_t steps = 1; steps <= 5; ++steps) {
    for (uint64_t staleness = 0; staleness <= 4; ++staleness) {
      for (bool ordered : {false, true}) {
        const size_t states = Explore(Start(steps, staleness, ordered), [&](const Model& model, bool stuck) {
          REQUIRE(model.gate.Staleness() <= staleness);
          for (uint64_t t = 1; t <= model.seen.size(); ++t) REQUIRE(t - 1 - model.seen[t - 1] <= staleness);
          if (stuck) REQUIRE(model.gate.applied == steps);
        });
        CHECK(states > steps);
      }
    }
  }
}

TEST_CASE("however the lookahead changes, staleness stays within the bound, every step is applied and pauses are reached") {
  for (uint64_t staleness = 0; staleness <= 3; ++staleness) {
    constexpr uint64_t kSteps = 4;
    Explore(StartJustInTime(kSteps, staleness), [&](const Model& model, bool stuck) {
      for (uint64_t t = 1; t <= model.seen.size(); ++t) REQUIRE(t - 1 - model.seen[t - 1] <= staleness);
      if (stuck) REQUIRE(model.gate.applied == kSteps);
      Model pausing = model;
      pausing.seen.clear();  // so that states are few: what was seen before the pause is checked above
      const uint64_t at = pausing.gate.EarliestPause();
      pausing.gate.SetPause(at);
      Explore(pausing, [&](const Model& reached, bool ended) {
        REQUIRE(reached.gate.lookups_started <= at + staleness);
        if (reached.gate.at_rest) REQUIRE(reached.gate.applied == at);
        if (ended) REQUIRE(reached.gate.at_rest);
      });
    });
  }
}

TEST_CASE("a lookup is at most as far behind as the lookahead was when it started") {
  for (uint64_t lookahead = 1; lookahead <= 3; ++lookahead) {
    Model model = Start(5, 3, false);
    model.gate.lookahead = lookahead;
    bool reached = false;
    Explore(model, [&](const Model& now, bool) {
      REQUIRE(now.gate.Staleness() <= lookahead);
      reached = reached || now.gate.Staleness() == lookahead;
    });
    CHECK(reached);
  }
}

TEST_CASE("a lookup is held back where the lookahead alone is in its way") {
  const auto held = [](uint64_t started, uint64_t applied, bool waits, std::optional<uint64_t> pause_at) {
    GateState gate;
    gate.staleness = 2;
    gate.lookahead = 1;
    gate.lookups_started = gate.lookups_done = started;
    gate.applied = gate.applies_started = applied;
    gate.lookup_waits = waits;
    gate.pause_at = pause_at;
    return gate.Moment().lookup_held;
  };
  CHECK(held(2, 0, true, std::nullopt));
  CHECK_FALSE(held(2, 0, false, std::nullopt));  // no batch waits
  CHECK_FALSE(held(2, 0, true, 0));              // lookups end at step 2, which a pause asks for
  CHECK_FALSE(held(3, 0, true, std::nullopt));   // the bound is in its way
  CHECK_FALSE(held(2, 1, true, std::nullopt));   // nothing is
}

TEST_CASE("train is idle for the lookahead's sake while it waits for a lookup that was held back") {
  for (const bool held : {false, true}) {
    GateState gate;
    gate.staleness = 2;
    gate.lookahead = held ? 1 : 2;
    const auto idle = [&] {
      gate.Settle();
      return gate.Moment().train_idle;
    };
    gate.lookups_started = gate.lookups_done = gate.trains_started = gate.trained = 2;
    gate.lookup_waits = true;  // step 3
    CHECK(idle() == held);
    gate.applied = gate.applies_started = 1;
    gate.lookup_waits = false;
    gate.lookups_started = 3;
    CHECK(idle() == held);  // still for the late beginning
    gate.lookups_done = 3;
    CHECK_FALSE(idle());
    gate.trains_started = gate.trained = 3;
    CHECK_FALSE(idle());  // no batch waits
  }
}

TEST_CASE("in every ordered schedule a lookup sees exactly the steps up to its own less the bound and one") {
  for (uint64_t staleness = 0; staleness <= 3; ++staleness) {
    Explore(Start(5, staleness, true), [&](const Model& model, bool) {
      for (uint64_t t = 1; t <= model.seen.size(); ++t) {
        REQUIRE(model.seen[t - 1] == (t > staleness + 1 ? t - 1 - staleness : 0));
      }
    });
  }
}

TEST_CASE("without order some schedules see fresher rows than others") {
  std::set<std::vector<uint64_t>> outcomes;
  Explore(Start(4, 2, false), [&](const Model& model, bool stuck) {
    if (stuck) outcomes.insert(model.seen);
  });
  CHECK(outcomes.size() > 1);
}

TEST_CASE("a pause asked for in any state comes to rest at its step, in the state of an undisturbed run") {
  for (uint64_t staleness = 0; staleness <= 3; ++staleness) {
    for (bool ordered : {false, true}) {
      Explore(Start(4, staleness, ordered), [&](const Model& model, bool) {
        Model pausing = model;
        const uint64_t at = pausing.gate.EarliestPause();
        pausing.gate.SetPause(at);
        Explore(pausing, [&](const Model& reached, bool stuck) {
          REQUIRE(reached.gate.applied <= at);
          REQUIRE(reached.gate.lookups_started <= at + staleness);
          if (reached.gate.at_rest) REQUIRE(reached.gate.applied == at);
          if (!stuck) return;
          REQUIRE(reached.gate.at_rest);
          // Before the first step there are no gradients that a lookup ahead could miss.
          if (ordered && at > 0) REQUIRE(reached.gate.lookups_done == std::min(at + staleness, reached.steps));
        });
      });
    }
  }
}

TEST_CASE("threads that go through the gate never exceed the bound and see the same schedule when it is ordered") {
  constexpr uint64_t kSteps = 2000;
  using enum StalenessGate::Schedule;
  for (uint64_t staleness : {0, 1, 5}) {
    for (const auto schedule : {kEager, kJustInTime, kOrdered}) {
      const bool ordered = schedule == kOrdered;
      StalenessGate gate(staleness, schedule);
      std::atomic<uint64_t> looked_up{0}, trained{0}, applied{0};
      std::vector<uint64_t> seen;
      std::thread lookup([&] {
        for (uint64_t t = 1; t <= kSteps; ++t) {
          REQUIRE(gate.BeginLookup(t));
          seen.push_back(applied.load());
          looked_up.store(t);
          gate.EndLookup(t);
        }
        gate.Drain(kSteps);
      });
      std::thread train([&] {
        for (uint64_t t = 1; t <= kSteps; ++t) {
          while (looked_up.load() < t) std::this_thread::yield();
          REQUIRE(gate.BeginTrain(t));
          gate.EndTrain(t);
          trained.store(t);
        }
      });
      for (uint64_t t = 1; t <= kSteps; ++t) {
        while (trained.load() < t) std::this_thread::yield();
        gate.BeginApply(t);
        applied.store(t);
        gate.EndApply(t);
      }
      lookup.join();
      train.join();
      const std::vector<uint64_t> histogram = gate.histogram();
      CHECK(histogram.size() == staleness + 1);
      CHECK(std::accumulate(histogram.begin(), histogram.end(), uint64_t{0}) == kSteps);
      CHECK(gate.state().Staleness() == 0);
      for (uint64_t t = 1; ordered && t <= kSteps; ++t) {
        REQUIRE(seen[t - 1] == (t > staleness + 1 ? t - 1 - staleness : 0));
      }
    }
  }
}

TEST_CASE("a stopped gate lets waiting stages go") {
  StalenessGate gate(0, StalenessGate::Schedule::kEager);
  REQUIRE(gate.BeginLookup(1));
  gate.EndLookup(1);
  std::thread waiting([&] { CHECK_FALSE(gate.BeginLookup(2)); });
  gate.Stop();
  waiting.join();
  CHECK_FALSE(gate.BeginTrain(1));
}

TEST_CASE("a pause at a step that has passed is refused") {
  StalenessGate gate(2, StalenessGate::Schedule::kEager);
  for (uint64_t t = 1; t <= 3; ++t) {
    REQUIRE(gate.BeginLookup(t));
    gate.EndLookup(t);
    REQUIRE(gate.BeginTrain(t));
    gate.BeginApply(t);
    gate.EndApply(t);
  }
  StalenessGate* const gates[] = {&gate};
  CHECK_FALSE(StalenessGate::RequestPause(gates, 2).has_value());
  CHECK(StalenessGate::RequestPause(gates, 3) == 3);
  CHECK(gate.state().at_rest);
  CHECK_FALSE(gate.state().MayLookup(4));
  gate.Resume(std::nullopt);
  CHECK_FALSE(gate.state().at_rest);
  CHECK(gate.state().MayLookup(4));
}

TEST_CASE("gates of several workers pause at one step, which none of them has passed") {
  StalenessGate ahead(3, StalenessGate::Schedule::kEager), behind(3, StalenessGate::Schedule::kEager);
  StalenessGate* const gates[] = {&behind, &ahead};
  for (uint64_t t = 1; t <= 2; ++t) {
    REQUIRE(ahead.BeginLookup(t));
    ahead.EndLookup(t);
    REQUIRE(ahead.BeginTrain(t));
  }
  CHECK_FALSE(StalenessGate::RequestPause(gates, 1).has_value());
  CHECK_FALSE(behind.state().pause_at.has_value());
  CHECK(StalenessGate::RequestPause(gates, std::nullopt) == 2);
  CHECK(behind.state().pause_at == 2);
  CHECK(ahead.state().pause_at == 2);
}

}  // namespace persia
