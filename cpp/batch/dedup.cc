#include "batch/dedup.h"

#include <algorithm>
#include <bit>

#include "base/hash.h"
#include "base/status.h"

namespace persia {

void Deduplicator::Reset(size_t most_signs) {
  PERSIA_CHECK(most_signs <= UINT32_MAX);
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * most_signs, 16));
  const bool grows = slots > slots_.size();
  if (grows) slots_.Resize(slots);
  const bool wraps = generation_ == most_generations_;
  if (grows || wraps) slots_.Fill(Slot{0, 0, 0});
  generation_ = wraps ? 1 : generation_ + 1;
  mask_ = slots - 1;
  distinct_ = 0;
}

uint32_t Deduplicator::Insert(uint64_t sign, uint64_t* signs_out) {
  for (size_t i = Mix64(sign) & mask_;; i = (i + 1) & mask_) {
    Slot& slot = slots_[i];
    if (slot.generation != generation_) {
      PERSIA_CHECK(distinct_ < mask_);  // a set that never fills up always ends a probe
      slot = {sign, distinct_, generation_};
      signs_out[distinct_] = sign;
      return distinct_++;
    }
    if (slot.sign == sign) return slot.number;
  }
}

}  // namespace persia
