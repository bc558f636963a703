#include "trainer/stage_meter.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <utility>

#include "base/clock.h"

namespace persia {

StageMeter::StageMeter(std::string name, uint32_t worker, size_t spans)
    : name_(std::move(name)), worker_(worker), capacity_(spans), since_(NowSeconds()) {}

void StageMeter::Enter(Activity activity, uint64_t step) {
  const double now = NowSeconds();
  const double since = since_.load(std::memory_order_relaxed);
  const Activity before = activity_.load(std::memory_order_relaxed);
  auto& seconds = seconds_[static_cast<size_t>(before)];
  seconds.store(seconds.load(std::memory_order_relaxed) + (now - since), std::memory_order_relaxed);
  since_.store(now, std::memory_order_relaxed);
  activity_.store(activity, std::memory_order_relaxed);
  if (before == Activity::kBusy) {
    steps_.store(steps_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (capacity_ > 0) {
      std::lock_guard lock(mutex_);
      if (ring_.size() < capacity_) ring_.emplace_back();
      ring_[recorded_++ % capacity_] = {step_, since, now};
    }
  }
  step_ = step;
}

void StageMeter::Queued(size_t steps) {
  queued_.store(queued_.load(std::memory_order_relaxed) + steps, std::memory_order_relaxed);
  if (steps > most_queue_.load(std::memory_order_relaxed)) most_queue_.store(steps, std::memory_order_relaxed);
}

StageTotals StageMeter::totals() const {
  StageTotals totals;
  for (size_t i = 0; i < kActivities; ++i) totals.seconds[i] = seconds_[i].load(std::memory_order_relaxed);
  // What the stage is at now counts as well, as far as it has come.
  const double now = NowSeconds(), since = since_.load(std::memory_order_relaxed);
  totals.seconds[static_cast<size_t>(activity_.load(std::memory_order_relaxed))] += std::max(0.0, now - since);
  totals.steps = steps_.load(std::memory_order_relaxed);
  totals.most_queue = most_queue_.load(std::memory_order_relaxed);
  totals.queued = queued_.load(std::memory_order_relaxed);
  return totals;
}

std::vector<StageMeter::Span> StageMeter::spans() const {
  std::lock_guard lock(mutex_);
  std::vector<Span> spans = ring_;
  if (recorded_ > ring_.size()) {
    std::rotate(spans.begin(), spans.begin() + static_cast<ptrdiff_t>(recorded_ % capacity_), spans.end());
  }
  return spans;
}

namespace {

template <typename... Values>
void Append(std::string& text, const char* format, Values... values) {
  char line[256];
  const int length = std::snprintf(line, sizeof(line), format, values...);
  text.append(line, static_cast<size_t>(std::clamp(length, 0, static_cast<int>(sizeof(line)) - 1)));
}

}  // namespace

std::vector<StageSpans> SpansOf(const std::vector<const StageMeter*>& stages) {
  std::vector<StageSpans> spans;
  for (const StageMeter* stage : stages) spans.push_back({stage->name(), stage->worker(), stage->spans()});
  return spans;
}

std::string ChromeTrace(const std::vector<StageSpans>& stages) {
  double start = std::numeric_limits<double>::max();
  for (const StageSpans& stage : stages) {
    if (!stage.spans.empty()) start = std::min(start, stage.spans.front().begin);
  }
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  const char* separator = "\n";
  for (size_t i = 0; i < stages.size(); ++i) {
    const unsigned worker = stages[i].worker + 1, thread = static_cast<unsigned>(i) + 1;
    const char* name = stages[i].name.c_str();
    Append(text, "%s{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%u,", separator, worker);
    Append(text, "\"args\":{\"name\":\"NN worker %u\"}}", worker - 1);
    separator = ",\n";
    Append(text, ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"%s\"}}", worker,
           thread, name);
    for (const StageMeter::Span& span : stages[i].spans) {
      Append(text, ",\n{\"ph\":\"X\",\"cat\":\"stage\",\"name\":\"%s\",\"pid\":%u,\"tid\":%u,", name, worker, thread);
      Append(text, "\"ts\":%.3f,\"dur\":%.3f,", 1e6 * (span.begin - start), 1e6 * (span.end - span.begin));
      Append(text, "\"args\":{\"step\":%llu}}", static_cast<unsigned long long>(span.step));
    }
  }
  return text + "\n]}\n";
}

}  // namespace persia
