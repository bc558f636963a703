#include "table/shard.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <thread>

#include "base/epoch.h"
#include "base/wide.h"

namespace persia {
namespace {

constexpr uint64_t kTicksPerTurnover = 32;
constexpr uint64_t kTicksPerLife = 32;
constexpr uint32_t kClocks = kClockMask + 1;
constexpr uint64_t kFirstUse = uint64_t{1} << 32;  // room for ages before the first use

// Homes of an index that is to hold `rows`: 4.35 of 5 lanes taken at capacity. Small ones are filled less, as their
// fluctuations are larger.
uint64_t HomesFor(uint64_t rows) {
  constexpr uint64_t kSmall = 2048;
  return rows <= kSmall ? std::max<uint64_t>((rows * 2 + 4) / 5, 4) : (rows * 20 + 86) / 87;
}

struct Sizes {
  uint64_t first, most;
};

Sizes SizesFor(uint64_t rows) {
  constexpr uint64_t kFirstHomes = 64;  // so that rounding up to a multiple of 2^k costs 1/64 at most
  const uint64_t homes = HomesFor(rows);
  uint32_t doublings = 0;
  while ((homes >> (doublings + 1)) >= kFirstHomes) ++doublings;
  const uint64_t first = (homes + (uint64_t{1} << doublings) - 1) >> doublings;
  return {first, first << doublings};
}

// Slots beyond the capacity, for rows that were evicted and may still be held: blocks of lookups evict up to
// kBlockSigns rows each under one guard, and a slot is free two epochs later.
uint32_t ReserveOf(uint32_t hash_shift) {
  const uint64_t threads = std::max(2u, std::thread::hardware_concurrency());
  const uint64_t table = 3 * TableParts::kBlockSigns * (threads + 1);
  constexpr uint64_t kUneven = 64;  // shards don't get equal parts of a block
  return static_cast<uint32_t>(std::min(table, 2 * (table >> hash_shift) + kUneven));
}

// Signs fall on shards at random: one of `rows` on average has this many at most, but for one time in a billion.
uint64_t MostRowsOf(uint64_t rows, uint32_t hash_shift) {
  return hash_shift == 0 ? rows : rows + 6 * static_cast<uint64_t>(std::sqrt(static_cast<double>(rows)));
}

}  // namespace

Shard::Shard(const TableParts& parts, uint64_t capacity, uint32_t hash_shift, std::atomic<int64_t>& free_seats)
    : parts_(parts),
      free_seats_(free_seats),
      hash_shift_(hash_shift),
      most_rows_(MostRowsOf(capacity, hash_shift)),
      exact_(capacity <= kExactRows),
      tick_inserts_(std::max<uint64_t>(capacity / kTicksPerTurnover, 1)),
      tick_ms_(std::max<uint64_t>(parts.options.time_to_live_ms / kTicksPerLife, 1)),
      index_(SizesFor(capacity).first, SizesFor(capacity).most, hash_shift),
      slots_(static_cast<uint32_t>(most_rows_) + ReserveOf(hash_shift),
             parts.format.stride_bytes(), ReserveOf(hash_shift)),
      group_rows_(new std::atomic<int64_t>[parts.groups()]()),
      uses_(exact_ ? new std::atomic<uint64_t>[most_rows_ + ReserveOf(hash_shift) + 1]() : nullptr),
      tick_times_(parts.ages() ? new std::atomic<uint64_t>[kClocks]() : nullptr),
      now_(kFirstUse) {
  PERSIA_CHECK(capacity > 0 && capacity <= kMostRows);
  if (!parts.ages()) return;
  // As if the clock had ticked regularly until now: restored ages find their place.
  const uint64_t now = parts.now_ms.load(std::memory_order_relaxed);
  for (uint32_t age = 0; age < kClocks; ++age) {
    tick_times_[(kClocks - age) & kClockMask].store(now - std::min(now, age * tick_ms_), std::memory_order_relaxed);
  }
}

// ---- recency

void Shard::Tick() {
  const uint32_t next = clock_.load(std::memory_order_relaxed) + 1;
  if (tick_times_ != nullptr) {
    tick_times_[next & kClockMask].store(parts_.now_ms.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  clock_.store(next, std::memory_order_relaxed);
}

void Shard::TickByTime() {
  const uint64_t now = parts_.now_ms.load(std::memory_order_relaxed);
  const uint64_t last = tick_times_[clock()].load(std::memory_order_relaxed);
  if (now >= last + tick_ms_) Tick();
}

// A row was last used before the clock left the row's tick.
uint64_t Shard::LastUseMs(uint32_t word) const {
  const uint32_t tick = ClockOf(word);
  if (tick == clock()) return parts_.now_ms.load(std::memory_order_relaxed);
  return tick_times_[(tick + 1) & kClockMask].load(std::memory_order_relaxed);
}

bool Shard::Expired(const RowPlace& place) const {
  if (!parts_.ages()) return false;
  return parts_.now_ms.load(std::memory_order_relaxed) >= LastUseMs(place.word) + parts_.options.time_to_live_ms;
}

RowAge Shard::AgeOf(const RowPlace& place) const {
  RowAge age;
  if (exact_) {
    const uint64_t use = uses_[SlotOf(place.word)].load(std::memory_order_relaxed);
    const uint64_t now = std::max(now_.load(std::memory_order_relaxed), use);  // it may just have been used again
    age.ticks = static_cast<uint32_t>(std::min<uint64_t>(now - use, UINT32_MAX));
  } else {
    age.ticks = (clock() - ClockOf(place.word)) & kClockMask;
  }
  if (parts_.ages()) {
    const uint64_t now = parts_.now_ms.load(std::memory_order_relaxed), last = LastUseMs(place.word);
    age.idle_ms = now - std::min(now, last);
  }
  return age;
}

// Clamps ages from an exact shard, which are uses (RowAge).
uint32_t Shard::ClockFor(const RowAge& age) const {
  const uint32_t now = clock();
  if (!parts_.ages()) return exact_ ? now : (now - std::min(age.ticks, kClockMask)) & kClockMask;
  const uint64_t ms = parts_.now_ms.load(std::memory_order_relaxed);
  uint32_t ticks = 0;
  const auto idle = [&] {
    const uint64_t last = LastUseMs(MakeWord(0, (now - ticks) & kClockMask, LaneState::kLive));
    return ms - std::min(ms, last);
  };
  while (ticks < kClockMask && idle() < age.idle_ms) ++ticks;
  return (now - ticks) & kClockMask;
}

void Shard::SetAge(const RowPlace& place, const RowAge* age) {
  if (age == nullptr) return Touch(place);
  if (exact_ && age->ticks > 0) {
    SetUse(SlotOf(place.word), now_.load(std::memory_order_relaxed) - age->ticks);
  }
  index_.Touch(place, ClockFor(*age));
}

// ---- inserting

Shard::Inserted Shard::Insert(uint64_t hash, uint64_t sign, const std::byte* contents, const RowAge* age, Tally& tally,
                              RowPlace* place) {
  if (!TakeSeat(hash, tally)) return Inserted::kRefused;
  const uint32_t slot = slots_.Take();
  if (slot == 0) {
    // More signs than are likely fell on this shard, or evicted rows are still held.
    if (size() >= most_rows_ && EvictNear(hash, tally)) LeaveSeat();
    LeaveSeat();
    return Inserted::kAgain;
  }
  CopyToShared(slots_.row(slot), contents, parts_.format.row_bytes());
  if (exact_) {
    const uint64_t now = age == nullptr ? now_.fetch_add(1, std::memory_order_relaxed)
                                        : now_.load(std::memory_order_relaxed) - age->ticks;
    SetUse(slot, now);
  }
  const uint32_t word_clock = age == nullptr ? clock() : ClockFor(*age);
  constexpr int kTries = 64;  // other threads may take the lane that was made
  auto inserted = SignIndex<>::Inserted::kFull;
  for (int i = 0; i < kTries && inserted == SignIndex<>::Inserted::kFull; ++i) {
    if (i > 0) MakeLane(hash, tally);
    inserted = index_.Insert(hash, sign, slot, word_clock, place);
  }
  if (inserted != SignIndex<>::Inserted::kYes) {
    slots_.GiveBack(slot);
    LeaveSeat();
    return inserted == SignIndex<>::Inserted::kExists ? Inserted::kExists : Inserted::kRefused;
  }
  CountRow(parts_.GroupOf(sign), 1);
  if (age == nullptr && (inserts_.fetch_add(1, std::memory_order_relaxed) + 1) % tick_inserts_ == 0) Tick();
  GrowIfFull(sign, tally);
  return Inserted::kYes;
}

// Shards fill at the same speed. So that their indices don't all grow at the same moment, each has a limit of its own,
// by its number: the top bits of its signs' hashes.
void Shard::GrowIfFull(uint64_t sign, Tally& tally) {
  constexpr double kMostLoad = 0.85, kLeastLoad = 0.6, kFilling = 0.7;
  const uint64_t number = hash_shift_ == 0 ? 0 : Mix64(sign) >> (64 - hash_shift_);
  const double part = std::ldexp(static_cast<double>(number), -static_cast<int>(hash_shift_));
  const double full = kMostLoad - part * (kMostLoad - kLeastLoad);
  const double load = static_cast<double>(size()) / static_cast<double>(index_.lanes());
  if (load > full) {
    index_.Grow();
  } else if (load > kFilling * full) {
    index_.Prepare();
  }
  if (!index_.growing()) return;
  index_.Move(kMoveBuckets, [&](uint64_t homeless, uint32_t slot) {
    CountEvicted(homeless, false, tally);
    LeaveSeat();
    slots_.Retire(slot);
  });
}

bool Shard::TakeSeat(uint64_t hash, Tally& tally) {
  int64_t seats = free_seats_.load(std::memory_order_relaxed);
  while (seats > 0) {
    if (free_seats_.compare_exchange_weak(seats, seats - 1, std::memory_order_relaxed)) return true;
  }
  return EvictNear(hash, tally);
}

void Shard::CountRow(size_t group, int64_t more) {
  rows_.fetch_add(more, std::memory_order_relaxed);
  group_rows_[group].fetch_add(more, std::memory_order_relaxed);
}

void Shard::Remove(const RowPlace& place, uint64_t hash, uint64_t sign) {
  index_.Remove(place, hash);
  CountRow(parts_.GroupOf(sign), -1);
  LeaveSeat();
  slots_.Retire(SlotOf(place.word));
}

void Shard::MakeLane(uint64_t hash, Tally& tally) {
  constexpr double kWorthGrowing = 0.5;
  if (!index_.at_most() &&
      static_cast<double>(size()) > kWorthGrowing * static_cast<double>(index_.lanes())) {
    index_.Grow();
    return;
  }
  // Many signs of one neighbourhood: one of them has to go.
  if (EvictNear(hash, tally)) LeaveSeat();
}

// ---- evicting

struct Shard::Victim {
  RowPlace place;
  uint64_t sign = 0, hash = 0;
  uint64_t age = 0;       // in ticks or uses; the largest for what has expired
  uint32_t frequency = std::numeric_limits<uint32_t>::max();
  bool found = false;

  bool WorseThan(const Victim& other) const {
    if (frequency != other.frequency) return frequency > other.frequency;
    if (age != other.age) return age < other.age;
    return hash > other.hash;
  }
};

Shard::Eviction Shard::EvictFrom(const SignIndex<>::Array& array, uint64_t home, uint64_t count, bool expired_only,
                                 Tally& tally) {
  constexpr uint64_t kExpiredAge = std::numeric_limits<uint64_t>::max();
  const bool lfu = parts_.options.eviction == EvictionPolicy::kLfu;
  const bool simple = !lfu && !exact_ && !parts_.ages();
  const uint32_t now = clock();
  Victim best;
  auto wanted = [&](uint32_t word) {
    if (StateOf(word) != LaneState::kLive) return false;
    return !simple || !best.found || ((now - ClockOf(word)) & kClockMask) >= best.age;
  };
  index_.VisitHomes(array, home, count, wanted, [&](const RowPlace& place, uint64_t sign, uint64_t hash) {
    Victim one{place, sign, hash, AgeOf(place).ticks, 0, true};
    if (Expired(place)) {
      one.age = kExpiredAge;
    } else if (expired_only) {
      return;
    } else if (lfu) {
      one.frequency = parts_.sketch->Estimate(Mix64(sign));
    }
    if (!best.found || best.WorseThan(one)) best = one;
  });
  if (!best.found) return Eviction::kNone;
  if (!index_.Lock(&best.place)) return Eviction::kLost;
  index_.Remove(best.place, best.hash);
  CountEvicted(best.sign, best.age == kExpiredAge, tally);
  slots_.Retire(SlotOf(best.place.word));
  return Eviction::kDone;
}

void Shard::CountEvicted(uint64_t sign, bool expired, Tally& tally) {
  const size_t group = parts_.GroupOf(sign);
  CountRow(group, -1);
  ++tally[group].evictions;
  tally[group].expired += expired;
}

// The victim's seat becomes the caller's.
bool Shard::EvictNear(uint64_t hash, Tally& tally) {
  const auto& array = index_.current();
  const uint64_t homes = array.buckets, home = array.HomeOf(hash);
  for (uint64_t window = exact_ ? homes : std::min(kWindow, homes);;) {
    const uint64_t first = std::min(home - std::min(home, window / 2), homes - window);
    const Eviction eviction = EvictFrom(array, first, window, false, tally);
    if (eviction == Eviction::kDone) return true;
    if (eviction == Eviction::kLost) continue;  // another thread was faster: the next best
    if (window == homes) return false;
    window = std::min(2 * window, homes);
  }
}

void Shard::Sweep(uint64_t homes, Tally& tally) {
  const auto& array = index_.current();
  const uint64_t all = array.buckets;
  for (uint64_t i = 0; i < std::min(homes, all); ++i) {
    const uint64_t home = sweep_.fetch_add(1, std::memory_order_relaxed) % all;
    while (EvictFrom(array, home, 1, true, tally) == Eviction::kDone) LeaveSeat();
  }
}

// ---- the whole shard

void Shard::Scan(const std::function<void(uint64_t sign, const std::byte* row, RowAge age)>& visit) const {
  constexpr uint64_t kHomesAtOnce = 16;
  struct Found {
    uint64_t hash, sign;
    size_t row;  // in `rows`
    RowAge age;
  };
  const size_t row_bytes = parts_.format.row_bytes();
  std::vector<Found> found;
  std::vector<std::byte> rows;
  uint64_t cursor = 0;  // hashes below it have been visited; arrays double, so it is a boundary of homes in all of them
  for (bool more = true; more;) {
    found.clear();
    {
      Epoch::Guard guard;
      const auto& array = index_.current();
      const uint64_t home = array.HomeOf(cursor);
      const uint64_t count = std::min(kHomesAtOnce, array.buckets - home);
      const auto any = [](uint32_t) { return true; };
      index_.VisitHomes(array, home, count, any, [&](RowPlace place, uint64_t sign, uint64_t hash) {
        const bool twice = std::any_of(found.begin(), found.end(), [&](const Found& one) { return one.sign == sign; });
        if (twice) return;
        rows.resize((found.size() + 1) * row_bytes);
        do {
          if (CopyRow(place, RowOf(place), row_bytes, &rows[found.size() * row_bytes])) {
            found.push_back({hash, sign, found.size(), AgeOf(place)});
            return;
          }
        } while (index_.Find(hash, sign, &place));
      });
      more = home + count < array.buckets;
      if (more) cursor = FirstOf(home + count, array.buckets);
    }
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.hash < b.hash; });
    for (const Found& one : found) visit(one.sign, &rows[one.row * row_bytes], one.age);
  }
}

// An insert is counted a moment after its row can be found, and so can be removed before it is counted.
uint64_t Shard::size() const {
  return static_cast<uint64_t>(std::max<int64_t>(rows_.load(std::memory_order_relaxed), 0));
}

size_t Shard::bytes() const { return index_.bytes() + slots_.bytes(); }

void Shard::SaveState(std::vector<uint64_t>& words) const {
  for (const uint64_t word :
       {uint64_t{clock_.load(std::memory_order_relaxed)}, inserts_.load(std::memory_order_relaxed),
        sweep_.load(std::memory_order_relaxed), now_.load(std::memory_order_relaxed)}) {
    words.push_back(word);
  }
}

void Shard::RestoreState(const uint64_t* words) {
  const auto clock = static_cast<uint32_t>(words[0]);
  if (tick_times_ != nullptr) {  // the times stay with the ages
    std::vector<uint64_t> times(kClocks);
    for (uint32_t age = 0; age < kClocks; ++age) times[age] = tick_times_[(this->clock() - age) & kClockMask].load();
    for (uint32_t age = 0; age < kClocks; ++age) tick_times_[(clock - age) & kClockMask].store(times[age]);
  }
  clock_.store(clock, std::memory_order_relaxed);
  inserts_.store(words[1], std::memory_order_relaxed);
  sweep_.store(words[2], std::memory_order_relaxed);
  now_.store(words[3], std::memory_order_relaxed);
}

}  // namespace persia
