// How rows are written by one thread at a time and read by any number without waiting, whole.
//
// A writer has locked the row's lane (SignIndex::Lock). It
//   1. works the new contents out in its record (Epoch::Participant), where nobody reads yet;
//   2. publishes the record: record_number + 1, then record_row = the row (release);
//   3. writes the row and raises the version of the bucket's header (release);
//   4. withdraws the record: record_row = null (release), and only then
//   5. unlocks the lane (release): a record that outlived the lock could be taken for a later writer's.
// A reader copies the row and looks again:
//   - the lane was live before and after with the same slot and version: nobody wrote; the copy is the row.
//   - the lane was locked, by a writer or by who moves it to a larger index: if some record is the row's, the record's
//     contents are the row (checked by its number). If none is, before and after copying, and version and word are
//     unchanged, the writer had not begun to write: the copy is the row. Otherwise a writer has made progress: the
//     reader searches again.
// So a lookup never waits for a writer, even one that was suspended in the middle of a row.
//
// Memory orders: a release fence stands between publishing and writing the row, so that a reader that sees any of the
// new row sees the record (acquire fence after the copy); another stands between withdrawing and the next use of the
// record. A version wraps after 2^15 writes to one bucket: a reader suspended in its copy for exactly a multiple of
// that could take a mixture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/environment.h"
#include "base/epoch.h"
#include "base/shared_copy.h"
#include "table/sign_index.h"

namespace persia {

using RowPlace = SignIndex<>::Place;

// Whether the lane is as it was when it was found, apart from its clock.
PERSIA_ALWAYS_INLINE bool Unchanged(const RowPlace& place) {
  // The word first: unlocked after a write, it brings the header's new version along.
  const uint32_t word = place.word_now().load(std::memory_order_acquire);
  const uint32_t header = place.bucket->header.load(std::memory_order_relaxed);
  return ((word ^ place.word) & ~(kClockMask << 2)) == 0 && VersionOf(header) == VersionOf(place.header);
}

enum class RecordRead { kNone, kCopied, kChanged };

// Copies the first `bytes` of a row from the record of whoever is writing it.
inline RecordRead CopyFromRecord(const void* row, size_t bytes, void* out) {
  for (const Epoch::Participant* p = Epoch::First(); p != nullptr; p = p->next) {
    if (p->record_row.load(std::memory_order_acquire) != row) continue;
    const uint64_t number = p->record_number.load(std::memory_order_acquire);
    CopyFromShared(out, p->record_data.load(std::memory_order_acquire), bytes);
    StdEnvironment::Fence(std::memory_order_acquire);
    const bool same = p->record_row.load(std::memory_order_acquire) == row &&
                      p->record_number.load(std::memory_order_relaxed) == number;
    return same ? RecordRead::kCopied : RecordRead::kChanged;
  }
  return RecordRead::kNone;
}

inline bool CopyLockedRow(const RowPlace& place, const std::byte* row, size_t bytes, void* out) {
  const RecordRead before = CopyFromRecord(row, bytes, out);
  if (before != RecordRead::kNone) return before == RecordRead::kCopied;
  CopyFromShared(out, row, bytes);
  StdEnvironment::Fence(std::memory_order_acquire);
  for (const Epoch::Participant* p = Epoch::First(); p != nullptr; p = p->next) {
    if (p->record_row.load(std::memory_order_acquire) == row) return false;
  }
  StdEnvironment::Fence(std::memory_order_acquire);
  return Unchanged(place);
}

// Copies the first `bytes` of a found row. False: it has changed meanwhile; search again.
PERSIA_ALWAYS_INLINE bool CopyRow(const RowPlace& place, const std::byte* row, size_t bytes, void* out) {
  if (StateOf(place.word) != LaneState::kLive) return CopyLockedRow(place, row, bytes, out);
  CopyFromShared(out, row, bytes);
  StdEnvironment::Fence(std::memory_order_acquire);
  return Unchanged(place);
}

// The calling thread's record, with room for rows of `bytes`.
class RowRecord {
 public:
  explicit RowRecord(size_t bytes) : self_(Epoch::Self()), contents_(Epoch::RecordRoom(self_, bytes)) {
#if defined(__SANITIZE_THREAD__)
    scratch_.resize(bytes);
#endif
  }

 private:
  friend class RowWrite;
  Epoch::Participant& self_;
  std::byte* const contents_;
#if defined(__SANITIZE_THREAD__)
  mutable std::vector<std::byte> scratch_;  // ThreadSanitizer must see atomic stores to the record
#endif
};

// One write of a row whose lane the caller has locked: fill contents(), then Commit.
class RowWrite {
 public:
  RowWrite(RowRecord&& record, std::byte* row, size_t bytes) = delete;  // the record outlives the write
  PERSIA_ALWAYS_INLINE RowWrite(const RowRecord& record, std::byte* row, size_t bytes)
      : self_(record.self_),
        row_(row),
        bytes_(bytes),
        record_(record.contents_),
#if defined(__SANITIZE_THREAD__)
        contents_(record.scratch_.data()) {
  }
#else
        contents_(record.contents_) {
  }
#endif

  // The row as it is (nobody else writes it), and where all of its new contents go.
  const std::byte* old() const { return row_; }
  std::byte* contents() const { return contents_; }

  PERSIA_ALWAYS_INLINE void Commit(SignIndex<>& index, const RowPlace& place) {
    if (contents_ != record_) CopyToShared(record_, contents_, bytes_);
    self_.record_number.store(self_.record_number.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    self_.record_row.store(row_, std::memory_order_release);
    StdEnvironment::Fence(std::memory_order_release);
    CopyToShared(row_, contents_, bytes_);
    index.RaiseVersion(place);
    self_.record_row.store(nullptr, std::memory_order_release);
    StdEnvironment::Fence(std::memory_order_release);
    index.Unlock(place);
  }

 private:
  Epoch::Participant& self_;
  std::byte* const row_;
  const size_t bytes_;
  std::byte* const record_;
  std::byte* const contents_;
};

}  // namespace persia
