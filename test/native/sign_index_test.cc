// The index of a shard: against a map, under real threads, and under every schedule of small scenarios.
//
// A scenario is a list of calls for each thread. Whatever the schedule, the calls must be explained by some order of
// them that respects real time (linearizability), and the index must be as its head comment says afterwards.
#include "table/sign_index.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "base/epoch.h"
#include "base/rng.h"
#include "sanitizers.h"
#include "schedule.h"

namespace persia {
namespace {

// ---- signs by their hashes

constexpr uint64_t UndoShift(uint64_t x, int by) {
  uint64_t result = x;
  for (int known = by; known < 64; known += by) result = x ^ result >> by;
  return result;
}

// The sign of which `hash` is the hash.
constexpr uint64_t SignOf(uint64_t hash) {
  uint64_t x = UndoShift(hash, 31) * 0x319642b2d24d8ec3ULL;
  x = UndoShift(x, 27) * 0x96de1b173f119089ULL;
  return UndoShift(x, 30);
}
static_assert(Mix64(SignOf(0x0123456789abcdefULL)) == 0x0123456789abcdefULL && SignOf(Mix64(77)) == 77);

// The n-th sign of a home among `buckets`.
constexpr uint64_t SignAt(uint64_t home, uint64_t buckets, uint64_t n) { return SignOf(FirstOf(home, buckets) + n); }

// ---- what holds when nobody is at work

template <typename Index>
std::string BrokenLane(const Index& index, const typename Index::Array& array, uint64_t i, uint32_t lane,
                       std::set<uint64_t>* signs) {
  const auto& bucket = array.data[i];
  const uint32_t word = bucket.words[lane].load();
  const uint32_t header = bucket.header.load();
  if (StateOf(word) == LaneState::kClaimed) return "a lane is still claimed";
  if (StateOf(word) == LaneState::kLocked) return "a lane is still locked";
  if (!HoldsRow(word)) {
    if (word != kFreeWord && !IsClosed(header)) return "a lane of an open bucket is dead";
    return word == kFreeWord && PendingOf(header) == kPendingDone ? "a lane of a bucket that is done is free" : "";
  }
  if (PendingOf(header) == kPendingDone) return "a lane of a bucket that is done is live";
  const uint64_t sign = bucket.signs[lane].load();
  if (!signs->insert(sign).second) return "a sign is there twice";
  const uint64_t home = array.HomeOf(index.HashOf(sign));
  if (home > i) return "a sign is before its home";
  for (uint64_t passed = home; passed < i; ++passed) {
    if (OverflowOf(array.data[passed].header.load()) == 0) return "a bucket doesn't count a sign behind it";
  }
  typename Index::Place place;
  if (!index.Find(index.HashOf(sign), sign, &place)) return "a sign is out of reach";
  return place.word == word && place.bucket == &bucket && place.lane == lane ? "" : "a search finds another lane";
}

// What the buckets of an array must count: the signs behind each with their homes before or at it.
template <typename Index>
std::vector<uint64_t> Displaced(const Index& index, const typename Index::Array& array) {
  std::vector<uint64_t> displaced(array.all);
  for (uint64_t i = 0; i < array.all; ++i) {
    for (uint32_t lane = 0; lane < kBucketLanes; ++lane) {
      if (!HoldsRow(array.data[i].words[lane].load())) continue;
      const uint64_t home = array.HomeOf(index.HashOf(array.data[i].signs[lane].load()));
      for (uint64_t passed = home; passed < i; ++passed) ++displaced[passed];
    }
  }
  return displaced;
}

// What is wrong with an index that nobody is using, or nothing. The overflow of an array that is being moved away stays
// as it is, and only there a bucket may be closed.
template <typename Index>
std::string Broken(const Index& index, size_t* size = nullptr) {
  std::set<uint64_t> signs;
  for (const auto* array = &index.current(); array != nullptr; array = array->next.load()) {
    const bool last = array->next.load() == nullptr;
    const std::vector<uint64_t> displaced = Displaced(index, *array);
    uint64_t remaining = 0;
    for (uint64_t i = 0; i < array->all; ++i) {
      const uint32_t header = array->data[i].header.load();
      remaining += PendingOf(header) != kPendingDone;
      if (!IsClosed(header) && PendingOf(header) != 0) return "an insert is still pending";
      if (last && IsClosed(header)) return "a bucket is closed though nothing is behind its array";
      for (uint32_t lane = 0; lane < kBucketLanes; ++lane) {
        const std::string broken = BrokenLane(index, *array, i, lane, &signs);
        if (!broken.empty()) return broken;
      }
      const bool exact = OverflowOf(header) == displaced[i] || OverflowOf(header) == kOverflowMost;
      if (last && !exact) return "a bucket counts too many or too few";
    }
    if (array->remaining.load() != remaining) return "the buckets that remain are miscounted";
    if (remaining == 0) return "an empty array is still current";
  }
  if (size != nullptr) *size = signs.size();
  return "";
}

// ---- against a map, one thread

struct OracleSize {
  uint64_t first, most;
  uint32_t hash_shift;
  int steps;
};

// An index and the map that it should equal.
class Oracle {
 public:
  explicit Oracle(const OracleSize& size)
      : size_(size), index_(size.first, size.most, size.hash_shift), rng_(size.most) {}

  void Step() {
    const Epoch::Guard guard;
    const uint64_t what = rng_.Next() % 100;
    if (what < 45) Insert();
    if (what >= 45 && what < 65) Remove();
    if (what >= 65 && what < 80) Find(AnySign());
    if (what >= 80 && what < 88) Touch();
    if (what >= 88 && what < 97 && index_.growing()) Move(1 + rng_.Next() % 2);
    if (what >= 97 && model_.size() * 10 > index_.lanes() * 8) index_.Grow();
  }
  void CheckAll() {
    const Epoch::Guard guard;
    size_t size = 0;
    REQUIRE(Broken(index_, &size) == "");
    REQUIRE(size == model_.size());
    for (const auto& [sign, word] : model_) Find(sign);
    CheckVisits(0, index_.current().buckets);
    const uint64_t home = rng_.Next() % index_.current().buckets;
    CheckVisits(home, 1 + rng_.Next() % (index_.current().buckets - home));
  }

  uint64_t buckets() const { return index_.buckets(); }
  bool growing() const { return index_.growing(); }
  uint64_t full() const { return full_; }
  uint64_t evicted() const { return evicted_; }

 private:
  // Of a few homes and a few hashes in each, so that many signs share a home and come back.
  uint64_t AnySign() {
    const uint64_t homes = size_.most, home = rng_.Next() % 3 == 0 ? rng_.Next() % homes / 4 : rng_.Next() % homes;
    const uint64_t hash = FirstOf(home, homes) + (rng_.Next() % per_home_ << size_.hash_shift);
    const uint64_t prefix = size_.hash_shift == 0 ? 0 : uint64_t{1} << (64 - size_.hash_shift);
    return SignOf(prefix | hash >> size_.hash_shift);
  }
  uint64_t KnownSign() {
    const auto at = model_.lower_bound(rng_.Next());
    return at != model_.end() ? at->first : model_.empty() ? AnySign() : model_.begin()->first;
  }

  void Insert() {
    const uint64_t sign = AnySign(), hash = index_.HashOf(sign);
    const auto clock = static_cast<uint32_t>(rng_.Next() & kClockMask);
    SignIndex<>::Place place;
    const auto inserted = index_.Insert(hash, sign, ++slot_, clock, &place);
    const auto known = model_.find(sign);
    REQUIRE((inserted == SignIndex<>::Inserted::kExists) == (known != model_.end()));
    if (inserted == SignIndex<>::Inserted::kExists) REQUIRE(place.word == known->second);
    if (inserted == SignIndex<>::Inserted::kYes) model_[sign] = MakeWord(slot_, clock, LaneState::kLive);
    if (inserted == SignIndex<>::Inserted::kFull) CheckFull(hash);
  }
  // No lane behind the home is free in the array that takes inserts.
  void CheckFull(uint64_t hash) {
    ++full_;
    const auto* array = &index_.current();
    if (const auto* next = array->next.load(); next != nullptr) array = next;
    for (uint64_t i = array->HomeOf(hash); i < array->all; ++i) {
      for (const auto& word : array->data[i].words) REQUIRE(HoldsRow(word.load()));
    }
  }

  void Remove() {
    const uint64_t sign = KnownSign(), hash = index_.HashOf(sign);
    SignIndex<>::Place place;
    if (!index_.Find(hash, sign, &place)) return;
    REQUIRE(index_.Lock(&place));
    CHECK_FALSE(index_.Lock(&place));
    if (rng_.Next() % 4 == 0) return index_.Unlock(place);
    index_.Remove(place, hash);
    model_.erase(sign);
  }

  void Find(uint64_t sign) {
    SignIndex<>::Place place;
    const bool found = index_.Find(index_.HashOf(sign), sign, &place);
    const auto known = model_.find(sign);
    REQUIRE(found == (known != model_.end()));
    if (found) REQUIRE(place.word == known->second);
  }

  void Touch() {
    const uint64_t sign = KnownSign();
    SignIndex<>::Place place;
    if (!index_.Find(index_.HashOf(sign), sign, &place)) return;
    const auto clock = static_cast<uint32_t>(rng_.Next() & kClockMask);
    index_.Touch(place, clock);
    model_[sign] = MakeWord(SlotOf(place.word), clock, LaneState::kLive);
    if (ClockOf(place.word) != clock) index_.Touch(place, 0);  // the word is another now
  }

  void Move(uint64_t count) {
    index_.Move(count, [&](uint64_t sign, uint32_t slot) {
      REQUIRE(SlotOf(model_.at(sign)) == slot);
      model_.erase(sign);
      ++evicted_;
    });
  }

  void CheckVisits(uint64_t home, uint64_t count) {
    std::map<uint64_t, uint32_t> visited, wanted;
    const auto& array = index_.current();
    index_.VisitHomes(array, home, count, [](uint32_t) { return true; },
                      [&](const SignIndex<>::Place& place, uint64_t sign, uint64_t hash) {
                        REQUIRE(hash == index_.HashOf(sign));
                        REQUIRE(visited.emplace(sign, place.word).second);  // nothing moves meanwhile
                      });
    for (const auto& [sign, word] : model_) {
      const uint64_t at = array.HomeOf(index_.HashOf(sign));
      if (at >= home && at < home + count) wanted.emplace(sign, word);
    }
    REQUIRE(visited == wanted);
  }

  const OracleSize size_;
  const uint64_t per_home_ = size_.most < 8 ? 150 : 7;
  SignIndex<> index_;
  Rng rng_;
  std::map<uint64_t, uint32_t> model_;  // sign -> word
  uint32_t slot_ = 0;
  uint64_t full_ = 0, evicted_ = 0;
};

TEST_CASE("sign index: does what a map does, through growth, displacement and reuse") {
  const int scale = kSanitized ? 1 : 3;
  for (const OracleSize& size : {OracleSize{1, 1, 0, 2000}, OracleSize{1, 4, 0, 4000}, OracleSize{3, 12, 1, 8000},
                                 OracleSize{2, 64, 2, 10000}, OracleSize{5, 320, 3, 20000}}) {
    CAPTURE(size.most);
    Oracle oracle(size);
    uint64_t mid_growth = 0;
    for (int i = 0; i < size.steps * scale; ++i) {
      oracle.Step();
      if (i % (size.steps / 50) != 0) continue;
      mid_growth += oracle.growing();
      oracle.CheckAll();
    }
    oracle.CheckAll();
    CHECK(oracle.buckets() == size.most);
    CHECK((size.first == size.most || mid_growth > 0));
    if (size.most == 1) CHECK(oracle.full() > 0);
  }
}

// Inserts the n-th sign of home 0 as slot n + 1.
SignIndex<>::Inserted InsertNth(SignIndex<>& index, uint64_t buckets, uint32_t n) {
  const uint64_t sign = SignAt(0, buckets, n);
  SignIndex<>::Place place;
  return index.Insert(index.HashOf(sign), sign, n + 1, 0, &place);
}

TEST_CASE("sign index: a home's signs fill what is in reach, and nothing more") {
  const Epoch::Guard guard;
  SignIndex<> small(1, 1, 0), large(512, 512, 0);
  const auto lanes = static_cast<uint32_t>(small.current().all * kBucketLanes);
  for (uint32_t n = 0; n < lanes; ++n) REQUIRE(InsertNth(small, 1, n) == SignIndex<>::Inserted::kYes);
  CHECK(InsertNth(small, 1, lanes) == SignIndex<>::Inserted::kFull);
  CHECK(InsertNth(small, 1, lanes - 1) == SignIndex<>::Inserted::kExists);
  CHECK(Broken(small) == "");
  for (uint32_t n = 0; n < 256 * kBucketLanes; ++n) REQUIRE(InsertNth(large, 512, n) == SignIndex<>::Inserted::kYes);
  CHECK(InsertNth(large, 512, 5000) == SignIndex<>::Inserted::kFull);
  CHECK(Broken(large) == "");
}

TEST_CASE("sign index: a count of displaced signs that has been at its most stays there") {
  const Epoch::Guard guard;
  SignIndex<> index(64, 64, 0);
  constexpr uint32_t kSigns = 100;
  for (uint32_t n = 0; n < kSigns; ++n) REQUIRE(InsertNth(index, 64, n) == SignIndex<>::Inserted::kYes);
  CHECK(Broken(index) == "");
  const auto& array = index.current();
  CHECK(OverflowOf(array.data[0].header.load()) == kOverflowMost);
  CHECK(OverflowOf(array.data[8].header.load()) == kSigns - 9 * kBucketLanes);
  for (uint32_t n = 0; n < kSigns; ++n) {
    const uint64_t sign = SignAt(0, 64, n), hash = index.HashOf(sign);
    SignIndex<>::Place place;
    REQUIRE(index.Find(hash, sign, &place));
    REQUIRE(index.Lock(&place));
    index.Remove(place, hash);
    REQUIRE(Broken(index) == "");
  }
  CHECK(OverflowOf(array.data[0].header.load()) == kOverflowMost);
  CHECK(OverflowOf(array.data[8].header.load()) == 0);
  CHECK(InsertNth(index, 64, 7) == SignIndex<>::Inserted::kYes);
  CHECK(InsertNth(index, 64, 7) == SignIndex<>::Inserted::kExists);
}

TEST_CASE("sign index: a row that finds no lane when it is moved is given up") {
  const Epoch::Guard guard;
  SignIndex<> index(1, 2, 0);
  // The second of two homes reaches as many lanes as there are in the smaller array.
  const uint64_t all = index.current().all;
  const auto lanes = static_cast<uint32_t>(all * kBucketLanes);
  for (uint32_t n = 0; n < lanes; ++n) {
    const uint64_t sign = SignAt(1, 2, n);
    SignIndex<>::Place place;
    REQUIRE(index.Insert(index.HashOf(sign), sign, n + 1, 0, &place) == SignIndex<>::Inserted::kYes);
  }
  index.Grow();
  const uint64_t late = SignAt(1, 2, lanes);
  SignIndex<>::Place place;
  CHECK(index.Insert(index.HashOf(late), late, lanes + 1, 0, &place) == SignIndex<>::Inserted::kYes);
  std::vector<std::pair<uint64_t, uint32_t>> evicted;
  const auto evict = [&](uint64_t sign, uint32_t slot) { evicted.emplace_back(sign, slot); };
  for (uint64_t round = 0; round < all; ++round) index.Move(1, evict);
  CHECK_FALSE(index.growing());
  REQUIRE(evicted.size() == 1);
  CHECK(evicted[0].first == SignAt(1, 2, evicted[0].second - 1));
  CHECK_FALSE(index.Find(index.HashOf(evicted[0].first), evicted[0].first, &place));
  size_t size = 0;
  CHECK(Broken(index, &size) == "");
  CHECK(size == lanes);
}

// ---- real threads

// Threads that insert, find, update and remove signs of a small set while the index grows. A row is what its writer
// left, in memory that nothing but the index orders: ThreadSanitizer sees a missing release or acquire.
class Stress {
 public:
  static constexpr int kThreads = 4;
  static constexpr uint64_t kSigns = 120;
  static constexpr uint32_t kSteps = kSanitized ? 3000 : 40'000;

  void Run() {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) threads.emplace_back([this, t] { Work(t); });
    for (std::thread& thread : threads) thread.join();
    size_t size = 0;
    const Epoch::Guard guard;
    CHECK(Broken(index_, &size) == "");
    CHECK(static_cast<int64_t>(size) == inserted_.load() - removed_.load());
    CHECK(errors_.load() == 0);
    CHECK(index_.buckets() == 64);
  }

 private:
  struct Row {
    uint64_t sign = 0;
    uint64_t updates = 0;
  };

  void Work(int thread) {
    Rng rng(RandomKey(3, static_cast<uint64_t>(thread)));
    for (uint32_t i = 0; i < kSteps; ++i) {
      const Epoch::Guard guard;
      const uint64_t sign = SignAt(rng.Next() % kSigns / 2, 64, rng.Next() % 2), hash = index_.HashOf(sign);
      const uint64_t what = rng.Next() % 8;
      SignIndex<>::Place place;
      if (what < 3) {
        Insert(hash, sign);
      } else if (!index_.Find(hash, sign, &place)) {
        continue;
      } else if (rows_[SlotOf(place.word)].sign != sign) {
        ++errors_;
      } else if (what < 5) {
        index_.Touch(place, i & kClockMask);
      } else if (index_.Lock(&place)) {
        UseLocked(place, hash, what < 6);
      }
      if (i % 64 == 0) index_.Grow();
      if (i % 4 == 0) index_.Move(1, [this](uint64_t, uint32_t) { ++removed_; });
    }
  }

  void Insert(uint64_t hash, uint64_t sign) {
    const uint32_t slot = ++slot_;
    rows_[slot].sign = sign;
    SignIndex<>::Place place;
    const auto inserted = index_.Insert(hash, sign, slot, 0, &place);
    if (inserted == SignIndex<>::Inserted::kYes) ++inserted_;
    if (inserted == SignIndex<>::Inserted::kExists && rows_[SlotOf(place.word)].sign != sign) ++errors_;
  }
  void UseLocked(const SignIndex<>::Place& place, uint64_t hash, bool removes) {
    ++rows_[SlotOf(place.word)].updates;
    if (removes) {
      index_.Remove(place, hash);
      ++removed_;
    } else {
      index_.RaiseVersion(place);
      index_.Unlock(place);
    }
  }

  SignIndex<> index_{1, 64, 0};
  std::vector<Row> rows_{std::vector<Row>(kThreads * kSteps + 1)};
  std::atomic<uint32_t> slot_{0};
  std::atomic<int64_t> inserted_{0}, removed_{0};
  std::atomic<uint64_t> errors_{0};
};

TEST_CASE("sign index: threads that insert, find, lock and remove the same signs while it grows") {
  Stress().Run();
}

// ---- every schedule of small scenarios

struct Env : ScheduledEnv {
  static inline int made = 0, retired = 0;  // arrays
  template <typename T>
  static T* NewZeroed(size_t count) {
    ++made;
    return ScheduledEnv::NewZeroed<T>(count);
  }
  static void Retire(std::function<void()> free) {
    ++retired;
    ScheduledEnv::Retire(std::move(free));
  }
};
using SmallIndex = SignIndex<Env>;

enum class Call { kInsert, kFind, kRemove, kUpdate, kTouch, kGrow, kMove, kRead, kWrite };

// One call of a thread, and what came of it.
struct Doing {
  Call call = Call::kFind;
  uint64_t sign = 0;  // of kMove: how many buckets
  bool yes = false;   // inserted, found, removed, updated
  bool full = false;
  bool torn = false;   // what was read
  uint32_t slot = 0;   // that was found or inserted
  uint64_t begin = 0, end = 0;
};

struct Plan {
  uint64_t first = 1, most = 1;         // homes
  std::vector<uint64_t> there = {};     // inserted beforehand, as slots 1, 2, …
  std::vector<uint64_t> removed = {};   // and some of them taken out again
  bool growing = false;
  bool last_bucket = false;  // of growth: all is moved but the first sign that is there
  std::vector<std::vector<Doing>> threads = {};
};

// What a sign is to the caller: its slot, and how often its row was updated.
struct Content {
  uint32_t slot = 0, updates = 0;
  bool operator==(const Content&) const = default;
};
using Model = std::map<uint64_t, Content>;

class World {
 public:
  explicit World(const Plan& plan) : index_(plan.first, plan.most, 0), threads_(plan.threads) {
    Env::made = 1;  // by index_
    Env::retired = 0;
    uint32_t slot = 0;
    for (const uint64_t sign : plan.there) {
      Doing doing{.sign = sign};
      Insert(doing, ++slot);
      before_[sign] = {slot, 0};
    }
    for (const uint64_t sign : plan.removed) {
      Doing doing{.sign = sign};
      Remove(doing);
      before_.erase(sign);
    }
    if (plan.growing || plan.last_bucket) index_.Grow();
    if (plan.last_bucket) MoveAllBut(plan.there[0]);
    model_ = before_;
  }

  void Run(size_t thread) {
    for (size_t i = 0; i < threads_[thread].size(); ++i) {
      Doing& doing = threads_[thread][i];
      doing.begin = ++time_;
      Do(doing, static_cast<uint32_t>(20 + thread * 10 + i));
      doing.end = ++time_;
    }
  }

  std::string Check() {
    size_t size = 0;
    const std::string broken = Broken(index_, &size);
    if (!broken.empty()) return broken;
    if (!Explained(std::vector<size_t>(threads_.size(), 0), size)) return "no order of the calls explains the results";
    return index_.growing() || Env::retired > 0 ? CheckGrown(size) : "";
  }

 private:
  void Do(Doing& doing, uint32_t slot) {
    switch (doing.call) {
      case Call::kInsert:
        return Insert(doing, slot);
      case Call::kFind:
        return Find(doing);
      case Call::kRemove:
        return Remove(doing);
      case Call::kUpdate:
        return Update(doing);
      case Call::kTouch:
        return Touch(doing);
      case Call::kRead:
        return Read(doing);
      case Call::kWrite:
        return Write(doing);
      case Call::kGrow:
        return index_.Grow();
      case Call::kMove:
        return index_.Move(doing.sign, [](uint64_t, uint32_t) { throw std::runtime_error("a row was given up"); });
    }
  }

  void Insert(Doing& doing, uint32_t slot) {
    SmallIndex::Place place;
    const auto inserted = index_.Insert(index_.HashOf(doing.sign), doing.sign, slot, 0, &place);
    doing.yes = inserted == SmallIndex::Inserted::kYes;
    doing.full = inserted == SmallIndex::Inserted::kFull;
    doing.slot = inserted == SmallIndex::Inserted::kExists ? SlotOf(place.word) : slot;
  }
  void Find(Doing& doing) {
    SmallIndex::Place place;
    doing.yes = index_.Find(index_.HashOf(doing.sign), doing.sign, &place);
    if (doing.yes) doing.slot = SlotOf(place.word);
  }
  void MoveAllBut(uint64_t sign) {
    SmallIndex::Place place;
    if (!index_.Find(index_.HashOf(sign), sign, &place) || !index_.Lock(&place)) throw std::runtime_error("no sign");
    Doing doing{.sign = index_.current().all};
    doing.call = Call::kMove;
    Do(doing, 0);
    index_.Unlock(place);
  }

  // With nobody else about, one round ends the growth. The signs are those that were explained.
  std::string CheckGrown(size_t size) {
    const uint64_t buckets = index_.buckets();
    index_.Move(index_.current().all, [](uint64_t, uint32_t) { throw std::runtime_error("a row was given up"); });
    if (index_.growing() || index_.current().buckets != buckets) return "the index still grows";
    if (Env::made != Env::retired + 1) return "an array was not retired once";
    const std::string broken = Broken(index_);
    return broken.empty() && !AsModel(size) ? "a sign was lost at the end of growth" : broken;
  }

  // Locks a sign's lane, as RowAccess does.
  bool LockSign(Doing& doing, SmallIndex::Place* place) {
    const uint64_t hash = index_.HashOf(doing.sign);
    while (index_.Find(hash, doing.sign, place)) {
      if (index_.Lock(place)) {
        doing.slot = SlotOf(place->word);
        return doing.yes = true;
      }
      Env::Pause();
    }
    return false;
  }
  void Remove(Doing& doing) {
    SmallIndex::Place place;
    if (LockSign(doing, &place)) index_.Remove(place, index_.HashOf(doing.sign));
  }
  void Update(Doing& doing) {
    SmallIndex::Place place;
    if (!LockSign(doing, &place)) return;
    rows_[doing.slot].store(rows_[doing.slot].load() + 1);
    index_.RaiseVersion(place);
    index_.Unlock(place);
  }
  // Writes and reads a row of two parts by the protocol of table/row_guard.h.
  void Write(Doing& doing) {
    SmallIndex::Place place;
    if (!LockSign(doing, &place)) return;
    const uint32_t updates = rows_[doing.slot].load() + 1;
    recorded_[doing.slot].store(1);
    rows_[doing.slot].store(updates);
    others_[doing.slot].store(updates);
    index_.RaiseVersion(place);
    recorded_[doing.slot].store(0);
    index_.Unlock(place);
  }
  void Read(Doing& doing) {
    SmallIndex::Place place;
    for (; index_.Find(index_.HashOf(doing.sign), doing.sign, &place); Env::Pause()) {
      doing.slot = SlotOf(place.word);
      const bool locked = StateOf(place.word) == LaneState::kLocked;
      doing.yes = true;
      if (locked && recorded_[doing.slot].load() != 0) return;  // would read the record
      const uint32_t part = rows_[doing.slot].load(), other = others_[doing.slot].load();
      if (locked && recorded_[doing.slot].load() != 0) continue;
      const uint32_t word = place.word_now().load();
      if (word != place.word || VersionOf(place.bucket->header.load()) != VersionOf(place.header)) continue;
      doing.torn = part != other;
      return;
    }
    doing.yes = false;
  }
  void Touch(Doing& doing) {
    SmallIndex::Place place;
    doing.yes = index_.Find(index_.HashOf(doing.sign), doing.sign, &place);
    if (!doing.yes) return;
    doing.slot = SlotOf(place.word);
    index_.Touch(place, 9);
  }

  // Whether the calls from `at` of each thread on, done in some order on the model, give what they gave, and the model
  // ends up as the index.
  bool Explained(const std::vector<size_t>& at, size_t size) {
    bool done = true;
    uint64_t first_end = UINT64_MAX;
    for (size_t t = 0; t < at.size(); ++t) {
      if (at[t] < threads_[t].size()) first_end = std::min(first_end, threads_[t][at[t]].end);
    }
    for (size_t t = 0; t < at.size(); ++t) {
      if (at[t] == threads_[t].size()) continue;
      done = false;
      const Doing& doing = threads_[t][at[t]];
      if (doing.begin > first_end) continue;  // another call had ended before it began
      const auto known = model_.find(doing.sign);
      const std::optional<Content> before = known == model_.end() ? std::nullopt : std::optional(known->second);
      if (!Apply(doing, before)) continue;
      std::vector<size_t> rest = at;
      ++rest[t];
      if (Explained(rest, size)) return true;
      model_.erase(doing.sign);
      if (before) model_[doing.sign] = *before;
    }
    return done && AsModel(size);
  }

  // Does a call on the model; false: it would have given something else.
  bool Apply(const Doing& doing, const std::optional<Content>& before) {
    switch (doing.call) {
      case Call::kGrow:
      case Call::kMove:
        return true;
      case Call::kInsert:
        if (doing.full) return !before;
        if (doing.yes) return !before && model_.emplace(doing.sign, Content{doing.slot, 0}).second;
        return before && before->slot == doing.slot;
      case Call::kRemove:
      case Call::kFind:
      case Call::kTouch:
      case Call::kUpdate:
      case Call::kRead:
      case Call::kWrite:
        if (doing.torn) return false;
        if (doing.yes != before.has_value() || (before && before->slot != doing.slot)) return false;
        if (before && doing.call == Call::kRemove) model_.erase(doing.sign);
        if (before && (doing.call == Call::kUpdate || doing.call == Call::kWrite)) ++model_[doing.sign].updates;
        return true;
    }
    return false;
  }

  bool AsModel(size_t size) {
    for (const auto& [sign, content] : model_) {
      SmallIndex::Place place;
      if (!index_.Find(index_.HashOf(sign), sign, &place)) return false;
      if (content != Content{SlotOf(place.word), rows_[SlotOf(place.word)].load()}) return false;
    }
    return size == model_.size();
  }

  SmallIndex index_;
  std::vector<std::vector<Doing>> threads_;
  std::array<Env::Atomic<uint32_t>, 64> rows_, others_, recorded_;  // by slot
  Model before_, model_;
  uint64_t time_ = 0;
};

MakeScenario ScenarioOf(const Plan& plan) {
  return [plan] {
    auto world = std::make_shared<World>(plan);
    Scenario scenario;
    for (size_t t = 0; t < plan.threads.size(); ++t) scenario.threads.push_back([world, t] { world->Run(t); });
    scenario.check = [world] { return world->Check(); };
    return scenario;
  };
}

// Every schedule with at most so many preemptions. Sanitizers look at fewer of them: they are for the memory.
void Explore(const Plan& plan, uint32_t preemptions) {
  const ScheduleResult result = ExploreSchedules(
      {.preemptions = kSanitized ? 1 : preemptions, .prune = true}, ScenarioOf(plan));
  CHECK(result.failure == "");
  CHECK(result.complete);
}

Doing Insert(uint64_t sign) { return {.call = Call::kInsert, .sign = sign}; }
Doing Find(uint64_t sign) { return {.call = Call::kFind, .sign = sign}; }
Doing Remove(uint64_t sign) { return {.call = Call::kRemove, .sign = sign}; }
Doing Update(uint64_t sign) { return {.call = Call::kUpdate, .sign = sign}; }
Doing Read(uint64_t sign) { return {.call = Call::kRead, .sign = sign}; }
Doing Write(uint64_t sign) { return {.call = Call::kWrite, .sign = sign}; }
Doing Touch(uint64_t sign) { return {.call = Call::kTouch, .sign = sign}; }
Doing Grow() { return {.call = Call::kGrow}; }
Doing Move(uint64_t buckets) { return {.call = Call::kMove, .sign = buckets}; }

// `count` signs of a home among 2 buckets, from the n-th on.
std::vector<uint64_t> Signs(uint64_t home, uint64_t n, uint64_t count) {
  std::vector<uint64_t> signs;
  for (uint64_t i = n; i < n + count; ++i) signs.push_back(SignAt(home, 2, i));
  return signs;
}

// Signs of home 0 and of home 1 of two.
constexpr uint64_t kA = SignAt(0, 2, 100), kB = SignAt(0, 2, 101), kC = SignAt(1, 2, 102), kD = SignAt(1, 2, 103);

TEST_CASE("sign index schedules: threads that insert one sign agree on who did") {
  Explore({.threads = {{Insert(kA), Find(kA)}, {Insert(kA), Find(kA)}}}, 4);
  Explore({.threads = {{Insert(kA)}, {Insert(kA)}, {Insert(kA), Find(kA)}}}, 2);
  // Behind four others, and displaced.
  Explore({.there = Signs(0, 0, 4), .threads = {{Insert(kA)}, {Insert(kA)}}}, 4);
  Explore({.there = Signs(0, 0, 5), .threads = {{Insert(kA)}, {Insert(kA)}}}, 3);
}

TEST_CASE("sign index schedules: different signs of one home find different lanes") {
  Explore({.there = Signs(0, 0, 3), .threads = {{Insert(kA)}, {Insert(kB)}, {Insert(kC)}}}, 2);
  Explore({.there = Signs(0, 0, 5), .threads = {{Insert(kA), Find(kB)}, {Insert(kB), Find(kA)}}}, 3);
  // Of two homes, the first of which overflows into the second.
  Explore({.first = 2, .most = 2, .there = Signs(0, 0, 5), .threads = {{Insert(kA)}, {Insert(kC)}, {Insert(kC)}}}, 2);
}

TEST_CASE("sign index schedules: an insert beside removals finds its sign or puts it in once") {
  // The sign itself comes and goes.
  Explore({.there = {kA}, .threads = {{Insert(kA)}, {Remove(kA), Insert(kA)}}}, 3);
  Explore({.there = {kA}, .threads = {{Insert(kA)}, {Remove(kA)}, {Insert(kA)}}}, 2);
  // The sign is displaced, and a lane before it becomes free.
  std::vector<uint64_t> displaced = Signs(0, 0, 5);
  displaced.push_back(kA);
  Explore({.there = displaced, .threads = {{Insert(kA)}, {Remove(displaced[2]), Insert(kA)}}}, 3);
  Explore({.there = displaced, .removed = {displaced[1]}, .threads = {{Insert(kA)}, {Remove(kA), Insert(kA)}}}, 3);
  Explore({.there = displaced, .removed = {displaced[1]}, .threads = {{Insert(kA)}, {Remove(kA)}, {Insert(kA)}}}, 2);
}

TEST_CASE("sign index schedules: completing an insert never touches the next claim of its lane") {
  // A lane of home 1 is inserted, removed and claimed again by a sign that home 0 displaces, while inserts of home 1
  // still complete the first.
  const std::vector<uint64_t> full = Signs(0, 0, 5);
  Explore({.first = 2, .most = 2, .there = full, .threads = {{Insert(kC)}, {Remove(kC), Insert(kA)}, {Insert(kD)}}}, 2);
  Explore({.first = 2, .most = 2, .there = full, .threads = {{Insert(kC)}, {Remove(kC), Insert(kA)}, {Insert(kA)}}}, 2);
  // The same with a lane that is displaced itself, so that the removal changes the home's header.
  std::vector<uint64_t> both = full;
  for (const uint64_t sign : Signs(1, 0, 5)) both.push_back(sign);
  Explore({.first = 2, .most = 2, .there = both, .threads = {{Insert(kC)}, {Remove(kC), Insert(kA)}}}, 3);
}

TEST_CASE("sign index schedules: a search finds what is there, whatever comes and goes beside it") {
  std::vector<uint64_t> displaced = Signs(0, 0, 5);
  displaced.push_back(kA);
  Explore({.there = displaced, .threads = {{Find(kA), Find(kA)}, {Remove(displaced[0]), Insert(kB)}}}, 3);
  Explore({.there = displaced, .threads = {{Find(kA)}, {Remove(kA), Insert(kA)}, {Remove(displaced[4])}}}, 2);
  Explore({.there = {kA}, .threads = {{Find(kA), Find(kA)}, {Remove(kA), Insert(kB)}, {Insert(kA)}}}, 2);
  // The lane is another sign's for a while.
  Explore({.there = {kA}, .removed = {kA}, .threads = {{Find(kA)}, {Insert(kB), Remove(kB), Insert(kA)}}}, 3);
}

TEST_CASE("sign index schedules: updates of one row are never lost") {
  Explore({.there = {kA}, .threads = {{Update(kA)}, {Update(kA)}, {Update(kA)}}}, 2);
  Explore({.there = {kA}, .threads = {{Update(kA), Find(kA)}, {Update(kA), Update(kA)}, {Remove(kA)}}}, 2);
  Explore({.there = {kA}, .threads = {{Update(kA)}, {Update(kA)}, {Insert(kB)}}}, 2);
  // The lane becomes another row's between finding and locking it.
  Explore({.there = {kA}, .threads = {{Update(kA)}, {Remove(kA), Insert(kB), Update(kB)}}}, 3);
}

TEST_CASE("sign index schedules: setting a clock changes nothing else") {
  Explore({.there = {kA}, .threads = {{Update(kA)}, {Touch(kA), Update(kA)}}}, 4);
  Explore({.there = {kA}, .threads = {{Touch(kA)}, {Remove(kA), Insert(kA)}, {Update(kA)}}}, 2);
  Explore({.there = {kA}, .growing = true, .threads = {{Touch(kA), Find(kA)}, {Move(1), Update(kA)}}}, 3);
}

// ---- growth

TEST_CASE("sign index schedules: the array grows under those who use it") {
  const std::vector<uint64_t> some{kA, kC};
  Explore({.most = 2, .there = some, .threads = {{Grow(), Move(2)}, {Grow(), Move(2)}}}, 2);
  Explore({.most = 2, .there = some, .threads = {{Grow(), Move(2)}, {Find(kA), Find(kC)}}}, 3);
  Explore({.most = 2, .there = some, .threads = {{Grow(), Move(2)}, {Insert(kA), Insert(kB)}}}, 2);
}

TEST_CASE("sign index schedules: a sign that moves is found and not inserted again") {
  std::vector<uint64_t> displaced = Signs(0, 0, 5);
  displaced.push_back(kA);
  // Home and lane are moved by different threads.
  Explore({.most = 2, .there = displaced, .growing = true, .threads = {{Move(1)}, {Move(1)}, {Find(kA)}}}, 2);
  Explore({.most = 2, .there = displaced, .growing = true, .threads = {{Move(1)}, {Move(1)}, {Insert(kA)}}}, 2);
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(2)}, {Insert(kA), Find(kA)}}}, 2);
  // The insert began before growth. The sign is moved while its home is open, and there is a free lane before it.
  const std::vector<uint64_t> hole{displaced[1]};
  const std::vector<Doing> move{Grow(), Move(1)};
  Explore({.most = 2, .there = displaced, .removed = hole, .threads = {{Insert(kA)}, move, {Move(1)}}}, 2);
}

TEST_CASE("sign index schedules: an insert whose lane is moved away ends up in the new array once") {
  Explore({.most = 2, .growing = true, .threads = {{Move(2)}, {Insert(kA), Find(kA)}}}, 3);
  Explore({.most = 2, .threads = {{Grow(), Move(2)}, {Insert(kA), Find(kA)}}}, 3);
  Explore({.most = 2, .threads = {{Grow(), Move(2)}, {Insert(kA)}, {Insert(kA)}}}, 2);
  // Claimed behind its home, which another thread closes at another time.
  const std::vector<uint64_t> full = Signs(0, 0, 5);
  Explore({.most = 2, .there = full, .threads = {{Insert(kA)}, {Grow(), Move(1)}, {Move(1)}}}, 2);
  Explore({.most = 2, .there = full, .threads = {{Grow(), Move(2)}, {Insert(kA)}, {Insert(kA)}}}, 2);
}

TEST_CASE("sign index schedules: growth ends once, under those who use the index") {
  const std::vector<Doing> move{Move(1)};
  for (const Doing& other : {Find(kA), Insert(kA), Update(kA), Remove(kA), Touch(kA), Insert(kC), Grow()}) {
    Explore({.most = 2, .there = {kA, kB}, .last_bucket = true, .threads = {move, {other, Find(kB)}, move}}, 2);
  }
  Explore({.most = 4, .there = {kA}, .last_bucket = true, .threads = {{Move(1), Grow(), Move(2)}, {Find(kA)}}}, 3);
  Explore({.most = 4, .there = {kA}, .last_bucket = true, .threads = {{Move(1), Grow(), Move(2)}, {Insert(kA)}}}, 3);
}

TEST_CASE("sign index schedules: rows are removed and updated while they move") {
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(2)}, {Remove(kA), Insert(kA)}}}, 3);
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(1)}, {Remove(kA)}, {Insert(kA)}}}, 2);
  // A lane that is locked is left for a later round.
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(2), Move(2)}, {Update(kA), Update(kA)}}}, 3);
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(1)}, {Update(kA)}, {Update(kA)}}}, 2);
  std::vector<uint64_t> displaced = Signs(0, 0, 5);
  displaced.push_back(kA);
  Explore({.most = 2, .there = displaced, .growing = true, .threads = {{Move(2)}, {Remove(kA), Insert(kA)}}}, 2);
  const std::vector<Doing> other{Remove(displaced[1]), Insert(kA)};
  Explore({.most = 2, .there = displaced, .growing = true, .threads = {{Move(2)}, other}}, 2);
}

TEST_CASE("sign index schedules: a row that moves while it is written is read whole") {
  Explore({.there = {kA}, .threads = {{Write(kA), Write(kA)}, {Read(kA), Read(kA)}}}, 3);
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(2)}, {Write(kA)}, {Read(kA)}}}, 3);
  Explore({.most = 2, .there = {kA}, .growing = true, .threads = {{Move(1)}, {Write(kA), Remove(kA)}, {Read(kA)}}}, 2);
}

}  // namespace
}  // namespace persia
