// StageMeter: what one stage of the pipeline does with its time, and its spans for a trace.
//
// The stage's thread says what it does from now on: idle (nothing there to work on), held (work is there, but it waits
// for the gate or for a free slot) or busy with a step. Totals cost two clock reads and one addition a change. For
// a trace the last busy spans are kept, in a ring of fixed size: memory is bounded, the end of a run is in the trace.
//
// Thread-safety: one stage thread calls Enter and Queued; totals and spans may be read from any thread at any time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace persia {

enum class Activity { kIdle, kHeld, kBusy };
inline constexpr size_t kActivities = 3;

struct StageTotals {
  std::array<double, kActivities> seconds{};  // by Activity, up to now
  uint64_t steps = 0;
  uint64_t queued = 0;      // steps that waited before this stage when it took one, summed over `steps`
  uint64_t most_queue = 0;
};

class StageMeter {
 public:
  struct Span {
    uint64_t step;
    double begin, end;  // NowSeconds()
  };

  // `spans`: how many are kept for a trace; 0: none.
  StageMeter(std::string name, uint32_t worker, size_t spans);

  const std::string& name() const { return name_; }
  uint32_t worker() const { return worker_; }

  // From now on the stage does this; `step` for kBusy.
  void Enter(Activity activity, uint64_t step = 0);
  // So many steps waited before the stage, with the one that it takes now.
  void Queued(size_t steps);

  StageTotals totals() const;
  std::vector<Span> spans() const;  // in the order of time

 private:
  const std::string name_;
  const uint32_t worker_;
  const size_t capacity_;

  // Written by the stage alone, read with relaxed loads: each is a total of its own.
  std::array<std::atomic<double>, kActivities> seconds_{};
  std::atomic<uint64_t> steps_{0}, queued_{0}, most_queue_{0};
  std::atomic<Activity> activity_{Activity::kIdle};
  std::atomic<double> since_;

  uint64_t step_ = 0;  // stage thread only
  mutable std::mutex mutex_;
  std::vector<Span> ring_;  // guarded by mutex_
  uint64_t recorded_ = 0;   // guarded by mutex_
};

// The spans of one stage, wherever it runs.
struct StageSpans {
  std::string name;
  uint32_t worker = 0;
  std::vector<StageMeter::Span> spans;
};
std::vector<StageSpans> SpansOf(const std::vector<const StageMeter*>& stages);

// A trace in Chrome's JSON format, which Perfetto opens: a process for each NN worker, a thread for each stage, a span
// for each step. Times start at the first span.
std::string ChromeTrace(const std::vector<StageSpans>& stages);

}  // namespace persia
