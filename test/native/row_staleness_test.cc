#include "store/row_staleness.h"

#include <numeric>
#include <vector>

#include "doctest/doctest.h"

using namespace persia;

namespace {

std::vector<uint64_t> SignsFrom(uint64_t first, size_t count) {
  std::vector<uint64_t> signs(count);
  std::iota(signs.begin(), signs.end(), first);
  return signs;
}

// One batch looks `signs` up, `others` batches update them, then the batch's own update is measured.
void Pass(RowStaleness* staleness, const std::vector<uint64_t>& signs, uint32_t others) {
  std::vector<RowStaleness::Sample> samples;
  staleness->LookedUp(0, signs, &samples);
  for (uint32_t i = 0; i < others; ++i) staleness->Updated(0, signs);
  staleness->BeforeUpdate(0, signs, samples);
  staleness->Updated(0, signs);
}

}  // namespace

TEST_CASE("all rows of a small batch are measured, about a bounded number of a larger one") {
  RowStaleness small;
  Pass(&small, SignsFrom(0, 3), 2);
  CHECK(small.totals().samples == 3);
  CHECK(small.totals().sum == 6);
  CHECK(small.totals().most == 2);

  for (const size_t count : {1'000u, 10'000u, 30'000u}) {
    RowStaleness staleness;
    Pass(&staleness, SignsFrom(0, count), 1);
    CHECK(staleness.totals().samples > RowStaleness::kMostSampled / 4);
    CHECK(staleness.totals().samples < RowStaleness::kMostSampled * 5 / 4);
  }
  RowStaleness huge;
  Pass(&huge, SignsFrom(0, 1'000'000), 1);
  const double expected = 1e6 / RowStaleness::kOneIn;
  CHECK(huge.totals().samples > 0.9 * expected);  // never fewer than one in kOneIn
  CHECK(huge.totals().samples < 1.1 * expected);
}

TEST_CASE("a batch on the way while fewer rows begin to be sampled is measured by those that still are") {
  RowStaleness staleness;
  const std::vector<uint64_t> signs = SignsFrom(0, 200);
  std::vector<RowStaleness::Sample> samples;
  staleness.LookedUp(0, signs, &samples);
  CHECK(samples.size() == signs.size());
  staleness.Updated(0, signs);
  std::vector<RowStaleness::Sample> many;
  staleness.LookedUp(0, SignsFrom(1'000, 4 * RowStaleness::kMostSampled), &many);
  staleness.Updated(0, signs);
  staleness.BeforeUpdate(0, signs, samples);
  const RowStaleness::Totals totals = staleness.totals();
  CHECK(totals.samples > 20);  // a quarter of 200
  CHECK(totals.samples < 90);
  CHECK(totals.histogram[2] == totals.samples);  // no update of a row that is still sampled was missed
}
