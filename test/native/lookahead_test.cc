// What the lookahead comes to, in pipelines whose stages take a given time, and what it costs in throughput.
#include "trainer/lookahead.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include <doctest/doctest.h>

#include "base/rng.h"
#include "trainer/staleness_gate.h"

namespace persia {
namespace {

constexpr uint64_t kBound = 8;
constexpr double kNever = 1e300;

// The three stages in simulated time: each handles one step at a time, as early as the gate lets it.
class Pipeline {
 public:
  // Seconds that a stage takes for a step.
  using Durations = std::function<std::array<double, 3>(uint64_t step)>;

  // `fixed`: a lookahead that never changes.
  Pipeline(Durations durations, std::optional<uint64_t> fixed) : durations_(std::move(durations)), fixed_(fixed) {
    gate_.staleness = kBound;
    gate_.lookahead = fixed.value_or(lookahead_.steps());
    gate_.lookup_waits = true;
  }

  // Seconds of so many more steps.
  double Run(uint64_t steps) {
    const double begin = now_;
    behind_ = lookups_ = 0;
    for (const uint64_t last = gate_.applied + steps; gate_.applied < last;) {
      BeginWhatMay();
      gate_.Settle();
      const double next = *std::ranges::min_element(ends_);
      lookahead_.Spent(next - now_, gate_.Moment());
      now_ = next;
      EndWhatIsDone();
    }
    return now_ - begin;
  }

  uint64_t lookahead() const { return gate_.lookahead; }
  double mean_staleness() const { return static_cast<double>(behind_) / static_cast<double>(lookups_); }

 private:
  void BeginWhatMay() {
    const uint64_t lookup = gate_.lookups_started + 1, train = gate_.trains_started + 1, apply = gate_.applied + 1;
    if (ends_[0] == kNever && gate_.MayLookup(lookup)) {
      gate_.lookups_started = lookup;
      gate_.lookup_waits = false;
      behind_ += gate_.Staleness();
      ++lookups_;
      ends_[0] = now_ + durations_(lookup)[0];
    }
    if (ends_[1] == kNever && train <= gate_.lookups_done) {
      gate_.trains_started = train;
      ends_[1] = now_ + durations_(train)[1];
    }
    if (ends_[2] == kNever && apply <= gate_.trained) {
      gate_.applies_started = apply;
      ends_[2] = now_ + durations_(apply)[2];
    }
  }

  void EndWhatIsDone() {
    if (ends_[0] <= now_) {
      gate_.lookups_done = gate_.lookups_started;
      gate_.lookup_waits = true;
    }
    if (ends_[1] <= now_) gate_.trained = gate_.trains_started;
    if (ends_[2] <= now_) {
      gate_.applied = gate_.applies_started;
      lookahead_.Applied();
      if (!fixed_) gate_.lookahead = lookahead_.steps();
    }
    gate_.Settle();
    for (double& end : ends_) end = end <= now_ ? kNever : end;
  }

  const Durations durations_;
  const std::optional<uint64_t> fixed_;
  Lookahead lookahead_{kBound};
  GateState gate_;
  double now_ = 0;
  std::array<double, 3> ends_{kNever, kNever, kNever};
  uint64_t behind_ = 0, lookups_ = 0;
};

Pipeline::Durations Always(double lookup, double train, double apply) {
  return [=](uint64_t) { return std::array{lookup, train, apply}; };
}

// Lookups that take `mean` on average, most of it in one of ten steps.
Pipeline::Durations Stalling(double mean, double train) {
  return [=](uint64_t step) {
    return std::array{Rng(RandomKey(step, 3)).Uniform() < 0.1 ? mean * 8 : mean * 0.2, train, 0.1 * train};
  };
}

// Throughput in the long run, as a share of that with lookups as early as they may be.
double Throughput(const Pipeline::Durations& durations) {
  Pipeline free(durations, std::nullopt), eager(durations, kBound);
  return eager.Run(20'000) / free.Run(20'000);
}

}  // namespace

TEST_CASE("while lookups and updates together take less time than training, lookups are one batch behind") {
  for (const auto& durations : {Always(0.01, 1, 0.01), Always(0.3, 1, 0.3), Always(0.9, 1, 0.05)}) {
    Pipeline pipeline(durations, std::nullopt);
    pipeline.Run(100);
    pipeline.Run(5'000);
    CHECK(pipeline.lookahead() == 1);
    CHECK(pipeline.mean_staleness() == 1);
    CHECK(Throughput(durations) > 0.999);
  }
}

TEST_CASE("slow lookups and updates make the lookahead as large as it must be, at next to no loss of throughput") {
  struct Case {
    Pipeline::Durations durations;
    double least, most;  // mean staleness
  };
  const Case cases[] = {
      {Always(1, 1, 0.1), 1.5, 2.5},    // 2.1 steps of time from lookup to update, 1 step of time in between
      {Always(1, 1, 1), 1.5, 2.5},
      {Always(0.1, 1, 1.5), 0.9, 2.2},  // more lookahead would only queue up before apply
      {Always(3, 1, 0.1), 0.9, 1.6},    // nor do lookups come any sooner
      {Stalling(0.9, 1), 3, 8},
  };
  for (const Case& one : cases) {
    Pipeline pipeline(one.durations, std::nullopt);
    pipeline.Run(1'000);
    pipeline.Run(20'000);
    CAPTURE(pipeline.mean_staleness());
    CHECK(pipeline.mean_staleness() >= one.least);
    CHECK(pipeline.mean_staleness() <= one.most);
    CHECK(Throughput(one.durations) > 0.965);
  }
}

TEST_CASE("the lookahead grows within a few windows and shrinks again when the store recovers") {
  double lookup = 0.1;
  Pipeline pipeline([&](uint64_t step) { return lookup == 1 ? Stalling(1, 1)(step) : Always(lookup, 1, 0.1)(step); },
                    std::nullopt);
  pipeline.Run(500);
  CHECK(pipeline.lookahead() == 1);
  lookup = 1;
  pipeline.Run(10 * Lookahead::kWindow);
  CHECK(pipeline.lookahead() >= 3);
  lookup = 0.1;
  pipeline.Run(3'000);
  CHECK(pipeline.lookahead() == 1);
}

TEST_CASE("the lookahead never leaves the range from 1 to the bound, whatever the stages do") {
  for (uint64_t bound : {0, 1, 2, 5}) {
    Lookahead lookahead(bound);
    Rng rng(bound);
    uint64_t most = 0;
    for (int step = 0; step < 100'000; ++step) {
      const bool wasteful = step / 10'000 % 2 == 0;
      lookahead.Spent(rng.Uniform(), {wasteful, wasteful, wasteful});
      lookahead.Applied();
      most = std::max(most, lookahead.steps());
      REQUIRE(lookahead.steps() >= std::min<uint64_t>(1, bound));
      REQUIRE(lookahead.steps() <= bound);
    }
    CHECK(most == bound);
    CHECK(lookahead.steps() == std::min<uint64_t>(1, bound));
  }
}

}  // namespace persia
