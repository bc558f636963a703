// RowStaleness: the *effective* staleness of rows: how many updates of a row by other batches lie between a batch's
// lookup of it and the batch's own update.
//
// The bound on batches in flight says how old a row may be; this says how old rows are: most rows of a batch are in no
// other batch on the way, so nothing has happened to them.
//
// It is measured on a sample of the signs, chosen by their hash, with a counter of updates for each. At first all are
// sampled; whenever a lookup has more than kMostSampled of them, half as many are from then on, down to one in
// `one_in`: so a small model is measured as well as a large one. Counters are found by the hash as well, without the
// sign: where two of the sampled signs that are on the way at once share one of the 2^18 counters, a little too much is
// counted (about 1 % of the samples with 4000 such signs on the way).
//
// Thread-safety: internally synchronised. Counters are relaxed atomics: stages that are to see each other's updates are
// ordered by the StalenessGate. The mask is relaxed too: it only gains bits, and a sample that it has left behind is
// passed over.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"

namespace persia {

class RowStaleness {
 public:
  static constexpr uint32_t kOneIn = 128;
  static constexpr uint32_t kMostSampled = 256;  // of one lookup, about
  static constexpr uint32_t kMost = 64;  // the histogram's last entry counts this and more

  // A sampled row of a batch, from its lookup to its update.
  struct Sample {
    uint32_t counter;
    uint32_t updates_before;
  };

  struct Totals {
    uint64_t samples = 0;
    uint64_t sum = 0;
    uint64_t most = 0;
    std::array<uint64_t, kMost + 1> histogram{};
  };

  // `one_in` is a power of two.
  explicit RowStaleness(uint32_t one_in = kOneIn);

  // Appends the sampled ones of `signs`, which are looked up now.
  void LookedUp(uint32_t row_class, std::span<const uint64_t> signs, std::vector<Sample>* samples);
  // Measures what was sampled at the lookup of `signs`, or of these and others behind them: the batch's own update comes
  // next.
  void BeforeUpdate(uint32_t row_class, std::span<const uint64_t> signs, std::span<const Sample> samples);
  // These rows were updated, once each.
  void Updated(uint32_t row_class, std::span<const uint64_t> signs);

  Totals totals() const;

 private:
  static constexpr uint32_t kCounters = 1 << 18;

  // Samples fewer signs from now on when so many are looked up.
  void Thin(size_t looked_up);

  // Calls use(counter) for each sampled sign.
  template <typename Use>
  void ForSampled(uint32_t row_class, std::span<const uint64_t> signs, Use use) const;

  const uint64_t most_mask_;
  std::atomic<uint64_t> mask_{0};  // signs are sampled whose hash has none of these bits
  std::vector<std::atomic<uint32_t>> updates_;
  std::array<std::atomic<uint64_t>, kMost + 1> histogram_{};
  std::atomic<uint64_t> sum_{0}, most_{0};
};

}  // namespace persia
