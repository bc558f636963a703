#include "table/row_access.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "base/rng.h"

namespace persia {
namespace {

// Room for a row of the calling thread, reused so that nothing allocates in steady state.
template <typename T>
T* Scratch(size_t count) {
  thread_local std::vector<T> room;
  if (room.size() < count) room.resize(count);
  return room.data();
}

}  // namespace

// Copies the embedding of a found row; looks again while writers make progress. False: the row has gone.
bool RowAccess::Reads(const RowProbe& found, float* out) const {
  RowPlace place = found.place;
  void* to = plain_ ? static_cast<void*>(out) : Scratch<uint64_t>(embedding_bytes_ / sizeof(uint64_t) + 1);
  while (!CopyRow(place, found.shard->RowOf(place), embedding_bytes_, to)) {
    if (!found.shard->Find(found.hash, found.sign, &place)) return false;
  }
  if (!plain_) parts_.format.DecodeEmbedding(to, out);
  return true;
}

RowAccess::Outcome RowAccess::LookUp(RowProbe& probe, uint64_t request, int tries, float* out, Tally& tally) const {
  const size_t group = parts_.GroupOf(probe.sign);
  if (tries == 0 && parts_.options.eviction == EvictionPolicy::kLfu) parts_.sketch->Increment(Mix64(probe.sign));
  if (probe.found && probe.shard->Expired(probe.place)) DropExpired(probe, tally);
  const bool read = probe.found && Reads(probe, out);
  if (read) probe.shard->Touch(probe.place);
  if (tries == 0) ++(read ? tally[group].hits : tally[group].misses);
  if (read) return Outcome::kDone;
  if (tries > 0 || Admits(probe.sign, request)) return Insert(probe, tries, out, tally);
  Refuse(probe, out, tally);
  return Outcome::kDone;
}

RowAccess::Outcome RowAccess::Peek(RowProbe& probe, float* out, Tally& tally) const {
  const size_t group = parts_.GroupOf(probe.sign);
  const bool there = probe.found && !probe.shard->Expired(probe.place) && Reads(probe, out);
  ++(there ? tally[group].hits : tally[group].misses);
  if (!there) std::fill_n(out, parts_.options.dim, 0.0f);
  return Outcome::kDone;
}

// Doesn't wait for an update of the row: the row then stays for another life.
void RowAccess::DropExpired(RowProbe& probe, Tally& tally) const {
  SignIndex<>& index = probe.shard->index();
  if (!index.Lock(&probe.place)) {
    probe.Search();
  } else if (!probe.shard->Expired(probe.place)) {  // used meanwhile
    index.Unlock(probe.place);
    probe.Search();
  } else {
    const size_t group = parts_.GroupOf(probe.sign);
    ++tally[group].evictions;
    ++tally[group].expired;
    probe.shard->Remove(probe.place, probe.hash, probe.sign);
    probe.found = false;
  }
}

bool RowAccess::Admits(uint64_t sign, uint64_t request) const {
  const TableOptions& options = parts_.options;
  if (options.admit_frequency > 1) {
    const uint64_t hash = Mix64(sign);
    const bool counted = options.eviction == EvictionPolicy::kLfu;
    const uint32_t seen = counted ? parts_.sketch->Estimate(hash) : parts_.sketch->Increment(hash);
    if (seen < options.admit_frequency) return false;
  }
  if (options.admit_probability >= 1.0) return true;
  return Rng(RandomKey(RandomKey(options.seed, sign), request)).Uniform() < options.admit_probability;
}

void RowAccess::Refuse(const RowProbe& probe, float* out, Tally& tally) const {
  ++tally[parts_.GroupOf(probe.sign)].refused;
  std::fill_n(out, parts_.options.dim, 0.0f);
}

RowAccess::Outcome RowAccess::Insert(RowProbe& probe, int tries, float* out, Tally& tally) const {
  float* row = Scratch<float>(parts_.optimizer.row_width());
  auto* contents = reinterpret_cast<std::byte*>(Scratch<uint32_t>(row_bytes_ / sizeof(uint32_t)));
  InitializeRow(parts_.options.initializer, parts_.options.seed, probe.sign, row, parts_.options.dim);
  parts_.optimizer.InitState(row);
  parts_.format.EncodeNearest(row, contents);
  switch (probe.shard->Insert(probe.hash, probe.sign, contents, nullptr, tally, &probe.place)) {
    case Shard::Inserted::kYes:
      ++tally[parts_.GroupOf(probe.sign)].inserts;
      parts_.format.DecodeEmbedding(contents, out);
      break;
    case Shard::Inserted::kExists:  // another thread was faster
      probe.shard->Touch(probe.place);
      // Or inserted and evicted meanwhile: then what it was worth when new.
      if (!Reads(probe, out)) parts_.format.DecodeEmbedding(contents, out);
      break;
    case Shard::Inserted::kAgain:
      if (tries < kMostTries) return Outcome::kRenew;
      [[fallthrough]];
    case Shard::Inserted::kRefused:
      Refuse(probe, out, tally);
      break;
  }
  return Outcome::kDone;
}

// Locks the row of a probe; waits for other updates of it, which are short. False: the row has gone.
bool RowAccess::LockRow(RowProbe& probe) const {
  constexpr int kSpins = 128;
  for (int tries = 0; !probe.shard->index().Lock(&probe.place); ++tries) {
    if (tries < kSpins) {
      StdEnvironment::Pause();
    } else {
      std::this_thread::yield();
    }
    if (!probe.Search()) return false;
  }
  return true;
}

RowAccess::Outcome RowAccess::Update(RowProbe& probe, const float* gradient, uint64_t group_step, uint64_t request,
                                     const RowRecord& record, Tally& tally) const {
  Tally::Counts& counts = tally[parts_.GroupOf(probe.sign)];
  const bool finite = AllFinite({gradient, parts_.options.dim});
  if (!probe.found) {
    ++counts.missed_updates;
  } else if (!finite) {
    ++counts.non_finite_skipped;
  } else if (!LockRow(probe)) {
    ++counts.missed_updates;
  } else {
    UpdateLocked(*probe.shard, probe.place, probe.sign, probe.row(), gradient, group_step, request, record);
  }
  return Outcome::kDone;
}

void RowAccess::UpdateRounded(uint64_t sign, const RowWrite& write, const float* gradient, uint64_t group_step,
                              uint64_t request) const {
  float* row = Scratch<float>(parts_.optimizer.row_width());
  parts_.format.Decode(write.old(), row);
  parts_.optimizer.Apply(row, gradient, group_step);
  parts_.format.EncodeStochastic(row, write.contents(), RandomKey(RandomKey(parts_.options.seed, sign), request));
}

bool RowAccess::Read(RowProbe& probe, float* row) const {
  auto* contents = reinterpret_cast<std::byte*>(Scratch<uint32_t>(row_bytes_ / sizeof(uint32_t)));
  while (probe.found) {
    if (probe.shard->Expired(probe.place)) return false;
    if (CopyRow(probe.place, probe.row(), row_bytes_, contents)) {
      parts_.format.Decode(contents, row);
      return true;
    }
    probe.Search();
  }
  return false;
}

RowAccess::Outcome RowAccess::Write(RowProbe& probe, const float* row, const RowAge* age, int tries, Tally& tally,
                                    bool* written) const {
  auto* contents = reinterpret_cast<std::byte*>(Scratch<uint32_t>(row_bytes_ / sizeof(uint32_t)));
  parts_.format.EncodeNearest(row, contents);
  for (;;) {
    if (probe.found && LockRow(probe)) {
      const RowRecord record(row_bytes_);
      RowWrite write(record, probe.row(), row_bytes_);
      std::memcpy(write.contents(), contents, row_bytes_);
      write.Commit(probe.shard->index(), probe.place);
      if (probe.Search()) probe.shard->SetAge(probe.place, age);
      *written = true;
      return Outcome::kDone;
    }
    const Shard::Inserted inserted = probe.shard->Insert(probe.hash, probe.sign, contents, age, tally, &probe.place);
    if (inserted == Shard::Inserted::kExists) {
      probe.Search();
      continue;
    }
    if (inserted == Shard::Inserted::kAgain && tries < kMostTries) return Outcome::kRenew;
    *written = inserted == Shard::Inserted::kYes;
    return Outcome::kDone;
  }
}

bool RowAccess::Erase(RowProbe& probe) const {
  if (!probe.found || !LockRow(probe)) return false;
  probe.shard->Remove(probe.place, probe.hash, probe.sign);
  return true;
}

}  // namespace persia
