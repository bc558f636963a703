// The index of a shard: a lock-free open-addressing map from a sign to a word that names the slot of its row.
//
//   bucket (one cache line)
//     [ sign 0 | sign 1 | sign 2 | sign 3 | sign 4 ][ word 0 … word 4 ][ header ]      5 × 8 + 5 × 4 + 4 = 64 bytes
//   word    31          8 7       2 1     0
//           [    slot    ][  clock  ][ state ]     state: free, claimed, live, locked;  clock: when it was last used
//   header  31         17 16       11 10      0
//           [   version   ][ overflow ][ pending ] pending: the insert that is being committed, or closed, or done
//
// A sign's *home* is the bucket at hash · buckets / 2^64. A sign that finds its home full goes to the first free lane
// behind it; `overflow` of each bucket that it passed over counts it (saturating: then for good), so that a search ends
// at the first bucket with overflow 0. At a load of 0.85 nearly nine of ten searches read one line.
//
// Lane:  free -> claimed (an insert owns it) -> live -> locked (one thread owns the row) -> live | free
//        and, when the array closes: free -> dead, claimed -> killed, locked -> dead (it has moved)
//
// Insert. Signs of one home are inserted one at a time, without a lock: an insert prepares a claimed lane, then puts
// the lane's place into the home's header as `pending`, by a compare-and-swap that fails if anything was inserted
// since it looked for the sign. Whoever finds a pending insert completes it: makes the lane live, clears `pending`,
// raises the version. A thread that stops in the middle never stops another.
//
// Growth. When the newest array is full for its size, one of twice the size is linked behind it. Buckets are *closed*
// (no insert commits there any more) and their lanes moved, a few by each call that inserts, in any order. A sign is
// inserted into the new array only after its home in the old one is closed. Searches read the old array first, and
// the new one if they met a closed bucket. A lane is locked in the new array before it is dead in the old one, and live
// after that, so a sign is never out of sight. When every bucket is done, the new array is the current one and the old
// one is retired.
// Rows don't move.
//
// Invariants
//  1. At most one lane of an array is live or locked for a sign; in both arrays at once only while its mover holds
//     both locked. So whoever finds the row locked in the old array and finds that again after copying it can trust
//     the copy: nobody could write it through the new one.
//  2. A live lane's sign and slot don't change while it is live. A slot goes back to use only after its stamp has
//     passed (base/epoch.h), so within a guard "the word names slot s" cannot end and become true again.
//  3. overflow(b) counts at least the live signs with home <= b that lie behind b.
//  4. A closed header stays closed; a dead or killed lane stays so.
//
// Memory orders (partners)
//  - word -> live is a release, reading it is an acquire: sign and row are seen (Insert / Find).
//  - a claimed lane's sign is a release store, reads are acquire: whoever sees the new sign sees the word claimed or
//    later, so a stale word is never taken for it. Find reads sign, word, sign, word (invariant 2 does the rest).
//  - header changes are acq_rel compare-and-swaps. Find reads lanes first and the header after them (acquire): if a
//    lane had died, the header is seen closed.
//  - locking is an acquire, unlocking and raising the version are releases: row contents (table/row_guard.h).
//
// 15 bits of version wrap: an insert that stands still between its search and its commit while exactly a multiple
// of 32768 versions go by in that one bucket would not notice. No scheduler does that.
//
// Thread-safety: lock-free. Callers hold an Epoch::Guard from a search to the last use of what it found.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/cpu.h"
#include "base/environment.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/wide.h"

namespace persia {

// ---- words and headers

inline constexpr uint32_t kBucketLanes = 5;
inline constexpr uint32_t kMostSlots = (1u << 24) - 2;  // slots are 1 … kMostSlots
inline constexpr uint32_t kClockBits = 6;
inline constexpr uint32_t kClockMask = (1u << kClockBits) - 1;

enum class LaneState : uint32_t { kFree = 0, kClaimed = 1, kLive = 2, kLocked = 3 };

constexpr uint32_t MakeWord(uint32_t slot, uint32_t clock, LaneState state) {
  return slot << 8 | clock << 2 | static_cast<uint32_t>(state);
}
constexpr LaneState StateOf(uint32_t word) { return static_cast<LaneState>(word & 3); }
constexpr uint32_t ClockOf(uint32_t word) { return word >> 2 & kClockMask; }
constexpr uint32_t SlotOf(uint32_t word) { return word >> 8; }
constexpr uint32_t WithState(uint32_t word, LaneState state) { return (word & ~3u) | static_cast<uint32_t>(state); }
constexpr bool HoldsRow(uint32_t word) { return (word & 2) != 0; }  // live or locked
inline constexpr uint32_t kFreeWord = 0;
inline constexpr uint32_t kDeadWord = 0xFFFFFF00u;
constexpr uint32_t KilledWord(uint32_t slot) { return MakeWord(slot, 1, LaneState::kFree); }

inline constexpr uint32_t kPendingMask = (1u << 11) - 1;
inline constexpr uint32_t kPendingClosed = kPendingMask;    // values of `pending`
inline constexpr uint32_t kPendingDone = kPendingMask - 1;  // closed, and all lanes dead
inline constexpr uint32_t kOverflowOne = 1u << 11;
inline constexpr uint32_t kOverflowMost = 63;
inline constexpr uint32_t kVersionOne = 1u << 17;

constexpr uint32_t PendingOf(uint32_t header) { return header & kPendingMask; }
constexpr bool IsClosed(uint32_t header) { return PendingOf(header) >= kPendingDone; }
constexpr uint32_t OverflowOf(uint32_t header) { return header >> 11 & kOverflowMost; }
constexpr uint32_t VersionOf(uint32_t header) { return header >> 17; }
constexpr uint32_t WithPending(uint32_t header, uint32_t pending) { return (header & ~kPendingMask) | pending; }

template <typename Env = StdEnvironment>
class SignIndex {
 public:
  template <typename T>
  using Atomic = typename Env::template Atomic<T>;

  struct alignas(64) Bucket {
    Atomic<uint64_t> signs[kBucketLanes];
    Atomic<uint32_t> words[kBucketLanes];
    Atomic<uint32_t> header;

    // A bit for each lane that has the sign, valid or not.
    PERSIA_ALWAYS_INLINE uint32_t Match(uint64_t sign) const {
#if defined(__SSE2__)
      if constexpr (Env::kVector) {
        const auto* lines = reinterpret_cast<const __m128i*>(this);
        const __m128i wanted = _mm_set1_epi64x(static_cast<int64_t>(sign));
        const __m128i a = _mm_cmpeq_epi32(_mm_load_si128(lines), wanted);
        const __m128i b = _mm_cmpeq_epi32(_mm_load_si128(lines + 1), wanted);
        const __m128i c = _mm_cmpeq_epi32(_mm_load_si128(lines + 2), wanted);
        asm volatile("" ::: "memory");  // plain loads, which the compiler could move behind acquires that follow
        const auto halves = static_cast<uint32_t>(
            _mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, c))));
        return halves & halves >> 1 & 0x155;  // bit 2·lane
      }
#endif
      uint32_t lanes = 0;
      for (uint32_t lane = 0; lane < kBucketLanes; ++lane) {
        lanes |= static_cast<uint32_t>(signs[lane].load(std::memory_order_acquire) == sign) << 2 * lane;
      }
      return lanes;
    }
  };

  // Where a search found its sign, and what it read there.
  struct Place {
    Bucket* bucket = nullptr;
    uint32_t lane = 0;
    uint32_t word = 0;    // live or locked
    uint32_t header = 0;  // read before the word

    Atomic<uint32_t>& word_now() const { return bucket->words[lane]; }
  };

  struct Array {
    Array(uint64_t bucket_count, uint64_t tail)
        : buckets(bucket_count), all(bucket_count + tail), data(Env::template NewZeroed<Bucket>(all)) {
      remaining.store(all, std::memory_order_relaxed);
    }
    ~Array() { Env::template Delete<Bucket>(data, all); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    PERSIA_ALWAYS_INLINE uint64_t HomeOf(uint64_t hash) const {
      return ScaleDown(hash, buckets);
    }
    Bucket* end() const { return data + all; }

    const uint64_t buckets;  // homes
    const uint64_t all;      // and room behind the last home, so that nothing wraps
    Bucket* const data;
    Atomic<Array*> next{};         // set once, when growth begins
    Atomic<uint64_t> cursor{};     // next bucket to move
    Atomic<uint64_t> remaining{};  // buckets that are not done
  };

  // `first` and `most` buckets, both > 0, most = first · 2^k. All signs of this index agree in the top `hash_shift`
  // bits of Mix64(sign).
  SignIndex(uint64_t first, uint64_t most, uint32_t hash_shift) : most_(most), hash_shift_(hash_shift) {
    PERSIA_CHECK(first > 0 && most >= first && most % first == 0 && std::has_single_bit(most / first));
    current_.store(new Array(first, TailOf(first)), std::memory_order_release);
  }
  // No other thread is in here.
  ~SignIndex() {
    delete spare_.load(std::memory_order_acquire);
    for (Array* array = current_.load(std::memory_order_acquire); array != nullptr;) {
      Array* next = array->next.load(std::memory_order_acquire);
      delete array;
      array = next;
    }
  }
  SignIndex(const SignIndex&) = delete;
  SignIndex& operator=(const SignIndex&) = delete;

  // The hash of a sign in this index: what the calls below take beside it.
  PERSIA_ALWAYS_INLINE uint64_t HashOf(uint64_t sign) const { return Mix64(sign) << hash_shift_; }

  // The bucket where a search begins: to be asked from memory, then given to GlanceAt.
  PERSIA_ALWAYS_INLINE Bucket* HomeBucket(uint64_t hash) const {
    const Array* array = current_.load(std::memory_order_acquire);
    return array->data + array->HomeOf(hash);
  }

  // Looks into the bucket of *place only. True: the sign seems to be there, and *place says where; Confirm tells.
  // Without branches: whether a sign is in its home can't be predicted.
  PERSIA_ALWAYS_INLINE static bool GlanceAt(uint64_t sign, Place* place) {
    const uint32_t lanes = place->bucket->Match(sign);
    place->lane = static_cast<uint32_t>(std::countr_zero(lanes | 1u << 2 * (kBucketLanes - 1))) / 2;
    place->word = place->word_now().load(std::memory_order_acquire);
    return static_cast<bool>(static_cast<uint32_t>(lanes != 0) & (place->word >> 1));
  }
  // Whether the sign is where a glance saw it; then *place is as Find would leave it. The word held the slot before the
  // sign was read and holds it after that: so it did in between (invariant 2).
  PERSIA_ALWAYS_INLINE static bool Confirm(uint64_t sign, Place* place) {
    place->header = place->bucket->header.load(std::memory_order_acquire);
    if (place->bucket->signs[place->lane].load(std::memory_order_acquire) != sign) return false;
    const uint32_t glanced = place->word;
    place->word = place->word_now().load(std::memory_order_acquire);
    return HoldsRow(place->word) && SlotOf(place->word) == SlotOf(glanced);
  }
  // Whether a sign that isn't in its home bucket may be in another one.
  PERSIA_ALWAYS_INLINE static bool MayBeElsewhere(const Bucket& home) {
    const uint32_t header = home.header.load(std::memory_order_acquire);
    return OverflowOf(header) != 0 || IsClosed(header);
  }

  bool Find(uint64_t hash, uint64_t sign, Place* place) const {
    for (const Array* array = current_.load(std::memory_order_acquire); array != nullptr;
         array = array->next.load(std::memory_order_acquire)) {
      bool closed = false;
      if (FindIn(*array, array->HomeOf(hash), sign, place, &closed)) return true;
      if (!closed) return false;
    }
    return false;
  }

  enum class Inserted { kYes, kExists, kFull };

  // Makes `sign` live with `slot`, whose row is ready, unless it is there already (then *place says where). kFull: no
  // lane within reach, though growth may help; nothing has changed.
  Inserted Insert(uint64_t hash, uint64_t sign, uint32_t slot, uint32_t clock, Place* place) {
    for (Array* array = current_.load(std::memory_order_acquire);;) {
      if (Array* next = array->next.load(std::memory_order_acquire); next != nullptr) {
        Close(*array, array->HomeOf(hash));
        bool closed = false;
        if (FindIn(*array, array->HomeOf(hash), sign, place, &closed)) return Inserted::kExists;
        array = next;
        continue;
      }
      const Step step = InsertIn(*array, hash, sign, slot, clock, place);
      if (step == Step::kClosed) continue;  // growth has begun meanwhile: `next` is set
      return step == Step::kInserted ? Inserted::kYes : step == Step::kExists ? Inserted::kExists : Inserted::kFull;
    }
  }

  // Locks a found lane: true if it is the caller's now. False: another holds it, or the row has gone or moved (search
  // again). `place->word` becomes the word as it is locked.
  PERSIA_ALWAYS_INLINE bool Lock(Place* place) {
    uint32_t word = place->word_now().load(std::memory_order_relaxed);
    while (StateOf(word) == LaneState::kLive && SlotOf(word) == SlotOf(place->word)) {
      const uint32_t locked = WithState(word, LaneState::kLocked);
      if (place->word_now().compare_exchange_weak(word, locked, std::memory_order_acquire, std::memory_order_relaxed)) {
        place->word = locked;
        return true;
      }
    }
    return false;
  }
  // The same for a sign where a glance saw it.
  PERSIA_ALWAYS_INLINE bool LockGlanced(uint64_t sign, Place* place) {
    return place->bucket->signs[place->lane].load(std::memory_order_acquire) == sign && Lock(place);
  }
  // After the row of a locked lane was written: lookups that began before will look again.
  void RaiseVersion(const Place& place) { place.bucket->header.fetch_add(kVersionOne, std::memory_order_release); }
  // Gives the lane back.
  void Unlock(const Place& place) {
    place.word_now().store(WithState(place.word, LaneState::kLive), std::memory_order_release);
  }
  // Takes a locked lane's sign out. The caller retires the slot.
  void Remove(const Place& place, uint64_t hash) {
    Array* array = ArrayOf(place.bucket);
    PERSIA_CHECK(array != nullptr);  // an array with a locked lane is not done
    const uint64_t home = array->HomeOf(hash), at = static_cast<uint64_t>(place.bucket - array->data);
    // The insert that made the lane live may be pending still. It must not be when the lane is claimed again: whoever
    // helps it would take the new claim for its own.
    const uint32_t pending = PendingFor(home, at, place.lane);
    if (PendingOf(array->data[home].header.load(std::memory_order_acquire)) == pending) Complete(*array, home, pending);
    place.word_now().store(kFreeWord, std::memory_order_release);
    AddOverflow(*array, home, at, false);
  }
  // Sets the clock of a live lane; does nothing when anything has changed, or when the lane was found locked.
  void Touch(const Place& place, uint32_t clock) {
    uint32_t word = place.word;
    if (StateOf(word) != LaneState::kLive) return;  // would unlock it
    const uint32_t touched = MakeWord(SlotOf(word), clock, LaneState::kLive);
    place.word_now().compare_exchange_strong(word, touched, std::memory_order_relaxed, std::memory_order_relaxed);
  }

  uint64_t buckets() const { return Newest()->buckets; }
  uint64_t lanes() const { return buckets() * kBucketLanes; }
  size_t bytes() const {
    size_t bytes = 0;
    for (const Array* array = current_.load(std::memory_order_acquire); array != nullptr;
         array = array->next.load(std::memory_order_acquire)) {
      bytes += array->all * sizeof(Bucket);
    }
    const Array* spare = spare_.load(std::memory_order_acquire);
    return bytes + (spare == nullptr ? 0 : spare->all * sizeof(Bucket));
  }
  bool growing() const {
    return current_.load(std::memory_order_acquire)->next.load(std::memory_order_acquire) != nullptr;
  }
  bool at_most() const { return Newest()->buckets == most_; }

  // Gets the next array ready before it is needed, so that its memory can be touched meanwhile.
  void Prepare() {
    const Array* array = Newest();
    if (array->buckets == most_ || spare_.load(std::memory_order_relaxed) != nullptr) return;
    auto* spare = new Array(array->buckets * 2, TailOf(array->buckets * 2));
    Array* none = nullptr;
    // Release: the array's contents, for who takes it in Grow.
    if (!spare_.compare_exchange_strong(none, spare, std::memory_order_acq_rel, std::memory_order_relaxed)) {
      Env::Retire([spare] { delete spare; });  // not at once: unmapping takes a while
      return;
    }
    Env::TouchSoon(spare->data, spare->all * sizeof(Bucket));
    DropStaleSpare();
  }

  // Begins to double the index, unless it is as large as it may be. It may be growing already: when a thread is
  // suspended while it moves a lane, the others need not wait for it.
  void Grow() {
    Array* array = Newest();
    if (array->buckets == most_) return;
    Array* next = spare_.exchange(nullptr, std::memory_order_acq_rel);
    if (next != nullptr && next->buckets != array->buckets * 2) {  // of a growth that another thread has begun
      Env::Retire([next] { delete next; });
      next = nullptr;
    }
    if (next == nullptr) next = new Array(array->buckets * 2, TailOf(array->buckets * 2));
    Array* none = nullptr;
    if (!array->next.compare_exchange_strong(none, next, std::memory_order_acq_rel, std::memory_order_acquire)) {
      Env::Retire([next] { delete next; });
    }
    DropStaleSpare();
  }

  // Moves up to `count` buckets if the index grows. Never waits: a bucket with a locked lane is left for a later
  // round. A row that finds no lane in the new array is passed to `evict(sign, slot)`: it is out of reach then.
  template <typename Evict>
  void Move(uint64_t count, Evict evict) {
    Array* array = current_.load(std::memory_order_acquire);
    Array* next = array->next.load(std::memory_order_acquire);
    if (next == nullptr) return;
    const uint64_t first = array->cursor.fetch_add(count, std::memory_order_relaxed);
    for (uint64_t i = first; i < first + count; ++i) MoveBucket(*array, *next, i % array->all, evict);
    if (array->remaining.load(std::memory_order_acquire) > 0) return;
    if (current_.compare_exchange_strong(array, next, std::memory_order_acq_rel, std::memory_order_relaxed)) {
      Env::Retire([array] { delete array; });
    }
  }

  // Calls `visit(place, sign, hash)` for the signs of `count` homes of `array`, which is or was current, from `home`
  // on, if `wanted(word)`. A sign that is there from beginning to end is visited; one that moves meanwhile perhaps
  // twice.
  template <typename Wanted, typename Visit>
  void VisitHomes(const Array& array, uint64_t home, uint64_t count, Wanted wanted, Visit visit) const {
    for (Bucket* bucket = array.data + home; bucket != array.end(); ++bucket) {
      for (uint32_t lane = 0; lane < kBucketLanes; ++lane) {
        Place place{bucket, lane, 0, bucket->header.load(std::memory_order_acquire)};
        place.word = place.word_now().load(std::memory_order_acquire);
        if (!HoldsRow(place.word) || !wanted(place.word)) continue;
        const uint64_t sign = bucket->signs[lane].load(std::memory_order_acquire);
        const uint32_t again = place.word_now().load(std::memory_order_relaxed);
        if (!HoldsRow(again) || SlotOf(again) != SlotOf(place.word)) continue;
        const uint64_t hash = HashOf(sign);
        if (array.HomeOf(hash) - home < count) visit(place, sign, hash);
      }
      const bool last = bucket - array.data >= static_cast<ptrdiff_t>(home + count - 1);
      if (last && OverflowOf(bucket->header.load(std::memory_order_acquire)) == 0) break;
    }
    const Array* next = array.next.load(std::memory_order_acquire);
    if (next != nullptr) VisitHomes(*next, 2 * home, 2 * count, wanted, visit);
  }

  const Array& current() const { return *current_.load(std::memory_order_acquire); }

 private:
  enum class Step { kInserted, kExists, kFull, kClosed };
  static constexpr uint64_t kMostDisplacement = 256;  // buckets; 5 lanes each fit into `pending`
  static_assert(1 + kMostDisplacement * kBucketLanes + kBucketLanes < kPendingDone);

  struct Claim {
    uint64_t bucket = 0;
    uint32_t lane = 0;
    bool held = false;
  };

  // How a home's header names a lane.
  static uint32_t PendingFor(uint64_t home, uint64_t bucket, uint32_t lane) {
    return 1 + static_cast<uint32_t>(bucket - home) * kBucketLanes + lane;
  }

  static uint64_t TailOf(uint64_t buckets) { return std::clamp<uint64_t>(buckets / 64, 16, 64); }

  Array* Newest() const {
    Array* array = current_.load(std::memory_order_acquire);
    while (Array* next = array->next.load(std::memory_order_acquire)) array = next;
    return array;
  }
  // Gives back a spare array of a size that isn't needed any more: growth may have overtaken its maker.
  void DropStaleSpare() {
    Array* spare = spare_.load(std::memory_order_acquire);
    if (spare == nullptr || spare->buckets == Newest()->buckets * 2) return;
    if (!spare_.compare_exchange_strong(spare, nullptr, std::memory_order_acq_rel, std::memory_order_relaxed)) return;
    Env::Retire([spare] { delete spare; });
  }
  Array* ArrayOf(const Bucket* bucket) const {
    for (Array* array = current_.load(std::memory_order_acquire); array != nullptr;
         array = array->next.load(std::memory_order_acquire)) {
      if (bucket >= array->data && bucket < array->end()) return array;
    }
    return nullptr;
  }

  // Searches one array. *closed becomes true if a closed bucket was met: the sign may be in the next array.
  static bool FindIn(const Array& array, uint64_t home, uint64_t sign, Place* place, bool* closed) {
    for (Bucket* bucket = array.data + home; bucket != array.end(); ++bucket) {
      for (uint32_t lanes = bucket->Match(sign); lanes != 0; lanes &= lanes - 1) {
        Place here{bucket, static_cast<uint32_t>(std::countr_zero(lanes)) / 2, 0, 0};
        here.word = here.word_now().load(std::memory_order_acquire);
        if (!HoldsRow(here.word) || !Confirm(sign, &here)) continue;
        *place = here;
        return true;
      }
      // Read after the lanes: a closing that killed a lane is seen.
      const uint32_t header = bucket->header.load(std::memory_order_acquire);
      *closed |= IsClosed(header);
      if (OverflowOf(header) == 0) return false;
    }
    return false;
  }

  // kClosed: a bucket of the sign's chain has closed; nothing is held.
  Step InsertIn(Array& array, uint64_t hash, uint64_t sign, uint32_t slot, uint32_t clock, Place* place) {
    const uint64_t home = array.HomeOf(hash);
    Bucket& bucket = array.data[home];
    Claim claim;
    for (;;) {
      uint32_t header = bucket.header.load(std::memory_order_acquire);
      bool closed = IsClosed(header);
      if (!closed && PendingOf(header) != 0) {
        Complete(array, home, PendingOf(header));
        continue;
      }
      const bool found = !closed && FindIn(array, home, sign, place, &closed);
      if (found || closed) {
        Release(array, home, claim, slot);
        return found ? Step::kExists : Step::kClosed;
      }
      if (!claim.held) {
        const Step step = TryClaim(array, home, sign, slot, clock, &claim);
        if (step != Step::kInserted) return step;
      }
      const uint32_t pending = PendingFor(home, claim.bucket, claim.lane);
      // What was inserted since the search has raised the version.
      if (!bucket.header.compare_exchange_strong(header, WithPending(header, pending), std::memory_order_acq_rel,
                                                 std::memory_order_relaxed)) {
        continue;
      }
      Complete(array, home, pending);
      const bool killed =
          array.data[claim.bucket].words[claim.lane].load(std::memory_order_acquire) == KilledWord(slot);
      return killed ? Step::kClosed : Step::kInserted;
    }
  }

  // Completes the insert that is pending as `pending` in a home's header.
  static void Complete(Array& array, uint64_t home, uint32_t pending) {
    Atomic<uint32_t>& word = array.data[home + (pending - 1) / kBucketLanes].words[(pending - 1) % kBucketLanes];
    Atomic<uint32_t>& header = array.data[home].header;
    for (uint32_t seen = header.load(std::memory_order_acquire); PendingOf(seen) == pending;) {
      uint32_t claimed = word.load(std::memory_order_acquire);
      const uint32_t again = header.load(std::memory_order_acquire);
      if (again != seen) {
        seen = again;
        continue;
      }
      // The word is the pending insert's (Remove sees to it), and its slot can't come back within our guard.
      if (StateOf(claimed) == LaneState::kClaimed) {
        word.compare_exchange_strong(claimed, WithState(claimed, LaneState::kLive), std::memory_order_acq_rel,
                                     std::memory_order_relaxed);
      }
      if (header.compare_exchange_strong(seen, WithPending(seen, 0) + kVersionOne, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
        return;
      }
    }
  }

  // Takes the first free lane from the home on, counting the buckets passed over.
  static Step TryClaim(Array& array, uint64_t home, uint64_t sign, uint32_t slot, uint32_t clock, Claim* claim) {
    const uint64_t end = std::min(home + kMostDisplacement, array.all);
    for (uint64_t i = home; i < end; ++i) {
      Bucket& bucket = array.data[i];
      if (IsClosed(bucket.header.load(std::memory_order_acquire))) {
        AddOverflow(array, home, i, false);
        return Step::kClosed;
      }
      for (uint32_t lane = 0; lane < kBucketLanes; ++lane) {
        uint32_t word = kFreeWord;
        if (bucket.words[lane].load(std::memory_order_relaxed) != kFreeWord ||
            !bucket.words[lane].compare_exchange_strong(word, MakeWord(slot, clock, LaneState::kClaimed),
                                                        std::memory_order_acq_rel, std::memory_order_relaxed)) {
          continue;
        }
        bucket.signs[lane].store(sign, std::memory_order_release);
        *claim = {i, lane, true};
        return Step::kInserted;
      }
      AddOverflow(array, i, i + 1, true);
    }
    AddOverflow(array, home, end, false);
    return Step::kFull;
  }

  static void Release(Array& array, uint64_t home, const Claim& claim, uint32_t slot) {
    if (!claim.held) return;
    Atomic<uint32_t>& word = array.data[claim.bucket].words[claim.lane];
    uint32_t claimed = word.load(std::memory_order_relaxed);
    if (StateOf(claimed) == LaneState::kClaimed && SlotOf(claimed) == slot) {
      word.compare_exchange_strong(claimed, kFreeWord, std::memory_order_acq_rel, std::memory_order_relaxed);
    }
    AddOverflow(array, home, claim.bucket, false);
  }

  // Counts one sign more or less in the buckets [begin, end).
  static void AddOverflow(Array& array, uint64_t begin, uint64_t end, bool more) {
    for (uint64_t i = begin; i < end; ++i) {
      Atomic<uint32_t>& header = array.data[i].header;
      uint32_t old = header.load(std::memory_order_relaxed);
      while (OverflowOf(old) < kOverflowMost &&
             !header.compare_exchange_weak(old, more ? old + kOverflowOne : old - kOverflowOne,
                                           std::memory_order_acq_rel, std::memory_order_relaxed)) {
      }
    }
  }

  static void Close(Array& array, uint64_t i) {
    Atomic<uint32_t>& header = array.data[i].header;
    uint32_t old = header.load(std::memory_order_acquire);
    while (!IsClosed(old)) {
      if (PendingOf(old) != 0) {
        Complete(array, i, PendingOf(old));
        old = header.load(std::memory_order_acquire);
      } else {
        header.compare_exchange_weak(old, WithPending(old, kPendingClosed), std::memory_order_acq_rel,
                                     std::memory_order_acquire);
      }
    }
  }

  template <typename Evict>
  void MoveBucket(Array& array, Array& next, uint64_t i, Evict& evict) {
    Bucket& bucket = array.data[i];
    if (PendingOf(bucket.header.load(std::memory_order_acquire)) == kPendingDone) return;
    Close(array, i);
    bool done = true;
    for (uint32_t lane = 0; lane < kBucketLanes; ++lane) done &= MoveLane(next, bucket, lane, evict);
    if (!done) return;
    uint32_t header = bucket.header.load(std::memory_order_acquire);
    while (PendingOf(header) != kPendingDone) {
      if (bucket.header.compare_exchange_weak(header, WithPending(header, kPendingDone), std::memory_order_acq_rel,
                                              std::memory_order_acquire)) {
        array.remaining.fetch_sub(1, std::memory_order_acq_rel);
        return;
      }
    }
  }

  // True when the lane is dead.
  template <typename Evict>
  bool MoveLane(Array& next, Bucket& bucket, uint32_t lane, Evict& evict) {
    Atomic<uint32_t>& at = bucket.words[lane];
    for (uint32_t word = at.load(std::memory_order_acquire);;) {
      switch (StateOf(word)) {
        case LaneState::kFree:
          if (word != kFreeWord) return true;
          if (at.compare_exchange_weak(word, kDeadWord, std::memory_order_acq_rel, std::memory_order_acquire)) {
            return true;
          }
          break;
        case LaneState::kClaimed:
          if (at.compare_exchange_weak(word, KilledWord(SlotOf(word)), std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
            return true;
          }
          break;
        case LaneState::kLocked:
          return false;
        case LaneState::kLive: {
          if (!at.compare_exchange_weak(word, WithState(word, LaneState::kLocked), std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
            break;
          }
          const uint64_t sign = bucket.signs[lane].load(std::memory_order_relaxed);
          Atomic<uint32_t>* moved = MoveIn(next, sign, word);
          at.store(kDeadWord, std::memory_order_release);
          if (moved != nullptr) {
            moved->store(word, std::memory_order_release);  // live
          } else {
            evict(sign, SlotOf(word));
          }
          return true;
        }
      }
    }
  }

  // Puts a sign that only its mover can insert, because all others find it locked, into the newest array, locked too,
  // and gives its word there; null: no lane. No lane of that is killed meanwhile: its buckets move only when all older ones
  // are done.
  Atomic<uint32_t>* MoveIn(Array& next, uint64_t sign, uint32_t word) {
    const uint64_t hash = HashOf(sign);
    for (Array* array = &next;;) {
      const uint64_t home = array->HomeOf(hash);
      if (Array* newer = array->next.load(std::memory_order_acquire); newer != nullptr) {
        Close(*array, home);
        array = newer;
        continue;
      }
      Claim claim;
      const Step step = TryClaim(*array, home, sign, SlotOf(word), ClockOf(word), &claim);
      if (step == Step::kClosed) continue;  // it has a newer one by now
      if (step != Step::kInserted) return nullptr;
      Atomic<uint32_t>& moved = array->data[claim.bucket].words[claim.lane];
      moved.store(WithState(word, LaneState::kLocked), std::memory_order_release);
      return &moved;
    }
  }

  const uint64_t most_;
  const uint32_t hash_shift_;
  Atomic<Array*> current_{};
  Atomic<Array*> spare_{};  // for the next growth
};

}  // namespace persia
