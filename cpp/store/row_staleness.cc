#include "store/row_staleness.h"

#include <algorithm>

#include "base/hash.h"
#include "base/status.h"

namespace persia {

RowStaleness::RowStaleness(uint32_t one_in) : most_mask_(one_in - 1), updates_(kCounters) {
  PERSIA_CHECK(one_in > 0 && (one_in & (one_in - 1)) == 0);
}

template <typename Use>
void RowStaleness::ForSampled(uint32_t row_class, std::span<const uint64_t> signs, Use use) const {
  const uint64_t mask = mask_.load(std::memory_order_relaxed);
  for (const uint64_t sign : signs) {
    const uint64_t hash = Mix64(sign + row_class);
    if ((hash & mask) == 0) use(static_cast<uint32_t>(hash >> 32) % kCounters);
  }
}

void RowStaleness::Thin(size_t looked_up) {
  uint64_t mask = mask_.load(std::memory_order_relaxed);
  while (mask < most_mask_ && looked_up > kMostSampled * (mask + 1)) {
    if (mask_.compare_exchange_weak(mask, 2 * mask + 1, std::memory_order_relaxed)) mask = 2 * mask + 1;
  }
}

void RowStaleness::LookedUp(uint32_t row_class, std::span<const uint64_t> signs, std::vector<Sample>* samples) {
  Thin(signs.size());
  ForSampled(row_class, signs, [&](uint32_t counter) {
    samples->push_back({counter, updates_[counter].load(std::memory_order_relaxed)});
  });
}

void RowStaleness::BeforeUpdate(uint32_t row_class, std::span<const uint64_t> signs, std::span<const Sample> samples) {
  auto sample = samples.begin();
  ForSampled(row_class, signs, [&](uint32_t counter) {
    while (sample != samples.end() && sample->counter != counter) ++sample;  // sampled before there were too many
    if (sample == samples.end()) return;
    // Counters wrap around; the difference doesn't mind.
    const uint32_t others = updates_[counter].load(std::memory_order_relaxed) - sample++->updates_before;
    histogram_[std::min(others, kMost)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(others, std::memory_order_relaxed);
    for (uint64_t most = most_.load(std::memory_order_relaxed);
         others > most && !most_.compare_exchange_weak(most, others, std::memory_order_relaxed);) {
    }
  });
}

void RowStaleness::Updated(uint32_t row_class, std::span<const uint64_t> signs) {
  ForSampled(row_class, signs, [&](uint32_t counter) { updates_[counter].fetch_add(1, std::memory_order_relaxed); });
}

RowStaleness::Totals RowStaleness::totals() const {
  Totals totals;
  for (size_t i = 0; i < totals.histogram.size(); ++i) {
    totals.histogram[i] = histogram_[i].load(std::memory_order_relaxed);
    totals.samples += totals.histogram[i];
  }
  totals.sum = sum_.load(std::memory_order_relaxed);
  totals.most = most_.load(std::memory_order_relaxed);
  return totals;
}

}  // namespace persia
