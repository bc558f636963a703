// Lookahead: how many batches the lookups of an NN worker run ahead of its updates, from 1 to the staleness bound.
//
// A lookup that starts before anybody needs it reads rows that are older than need be and wins nothing. But one that
// starts too late lets the stages behind it run dry. So the lookahead is the smallest that costs next to no
// throughput, found by trying.
//
// What holding lookups back costs: a pipeline is as fast as its slowest stage, and time is lost only while that one
// has nothing to do. The loss of a few steps (a window) is therefore the least of three times: that in which a lookup
// was held back by the lookahead, that in which train waited for such a lookup, and that in which apply had no work.
// Where one of these stages was busy throughout, more lookahead would only have made queues.
//
// Of all time kShare may be lost. What is not lost of that is saved up, and pays for trying a smaller lookahead; a loss
// of more than there is in hand makes it larger again, and is a debt before the next try. So a lookahead that is too
// small is tried the less often the more it costs.
//
// A pure function of what it is told; no clock, no threads. Thread-safety: none.
#pragma once

#include <algorithm>
#include <cstdint>

namespace persia {

class Lookahead {
 public:
  // Steps whose times are taken together: stages that stall at random do so at different times.
  static constexpr uint64_t kWindow = 16;
  static constexpr double kShare = 0.02;
  // In steps' time: savings that pay for a try, and the largest debt.
  static constexpr double kTry = 2.0, kMostDebt = 10.0;

  // What the stages do at a moment.
  struct Moment {
    bool lookup_held = false;  // there is a batch to look up, and nothing but the lookahead is in its way
    bool train_idle = false;   // train waits for a lookup that was held back
    bool apply_idle = false;
  };

  explicit Lookahead(uint64_t bound) : bound_(bound), steps_(std::min<uint64_t>(1, bound)) {}

  uint64_t steps() const { return steps_; }

  // The stages did this for so long.
  void Spent(double seconds, const Moment& moment) {
    seconds_ += seconds;
    if (moment.lookup_held) held_ += seconds;
    if (moment.train_idle) train_idle_ += seconds;
    if (moment.apply_idle) apply_idle_ += seconds;
  }

  // A step went through the last stage.
  void Applied() {
    if (++applied_ == kWindow) EndWindow();
  }

 private:
  void EndWindow() {
    const double lost = seconds_ > 0 ? std::min({held_, train_idle_, apply_idle_}) / seconds_ : 0.0;
    savings_ = std::clamp(savings_ + (kShare - lost) * kWindow, -kMostDebt, kTry);
    if (savings_ < 0 && lost > kShare) {
      steps_ = std::min(steps_ + 1, bound_);
    } else if (savings_ == kTry && steps_ > 1) {
      --steps_;
      savings_ = 0;
    }
    seconds_ = held_ = train_idle_ = apply_idle_ = 0;
    applied_ = 0;
  }

  uint64_t bound_, steps_;
  double savings_ = kTry;  // in steps' time: one that is late by chance at the start costs nothing
  uint64_t applied_ = 0;  // in this window, as the times below
  double seconds_ = 0, held_ = 0, train_idle_ = 0, apply_idle_ = 0;
};

}  // namespace persia
