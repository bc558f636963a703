#include "table/table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/copy.h"
#include "base/finite.h"
#include "base/hash.h"
#include "base/rng.h"
#include "table/lru_rows.h"

namespace persia {
namespace {

constexpr uint32_t kMostShards = 1u << Table::kShardBits;
constexpr size_t kPrefetchGroup = 16;  // signs whose cache misses overlap

uint32_t ShardBitsOf(uint64_t capacity_rows) {
  const uint64_t shards = std::clamp<uint64_t>(capacity_rows / Table::kMinShardRows, 1, kMostShards);
  return static_cast<uint32_t>(std::bit_width(shards)) - 1;
}

uint32_t ShardNumber(uint64_t hash, uint32_t shift) {
  return static_cast<uint32_t>(hash >> (64 - Table::kShardBits)) >> shift;
}

}  // namespace

struct alignas(64) Table::Shard {
  Shard(uint64_t capacity, uint32_t row_width) : rows(capacity, row_width) {}

  std::mutex mutex;  // guards everything below
  LruRows rows;
  TableCounters counts;  // without rows and bytes
};

// One sign of a batched call.
struct Table::Probe {
  uint64_t sign;
  uint64_t hash;
  size_t position;  // in the call
};

// The signs of a batched call in order of their shards, within a shard in the order of the call (a counting sort).
class Table::ProbesByShard {
 public:
  void Sort(std::span<const uint64_t> signs, uint32_t shift) {
    probes_.Resize(signs.size());
    std::array<size_t, kMostShards> next{};
    for (const uint64_t sign : signs) ++next[ShardNumber(Mix64(sign), shift)];
    size_t begin = 0;
    for (uint32_t shard = 0; shard < kMostShards; ++shard) {
      begins_[shard] = begin;
      begin += std::exchange(next[shard], begin);
    }
    begins_[kMostShards] = begin;
    for (size_t i = 0; i < signs.size(); ++i) {
      const uint64_t hash = Mix64(signs[i]);
      probes_[next[ShardNumber(hash, shift)]++] = {signs[i], hash, i};
    }
  }

  std::span<const Probe> Of(size_t shard) const {
    return {probes_.data() + begins_[shard], begins_[shard + 1] - begins_[shard]};
  }

  // Calls `use(probe)` for the probes of a shard in order, with the cache misses of a group of them overlapped.
  template <typename Use>
  void ForEach(size_t shard, const LruRows& rows, uint32_t floats, bool touches, Use use) const {
    const auto probes = Of(shard);
    for (size_t begin = 0; begin < probes.size(); begin += kPrefetchGroup) {
      const auto group = probes.subspan(begin, std::min(kPrefetchGroup, probes.size() - begin));
      for (const Probe& probe : group) rows.PrefetchIndex(probe.hash);
      for (const Probe& probe : group) rows.PrefetchRow(probe.hash, floats);
      for (size_t i = 0; touches && i < group.size(); ++i) rows.PrefetchNeighbours(group[i].hash);
      for (const Probe& probe : group) use(probe);
    }
  }

 private:
  AlignedBuffer<Probe> probes_;
  std::array<size_t, kMostShards + 1> begins_{};
};

Table::Table(const TableOptions& options)
    : options_(options),
      optimizer_(options.optimizer, options.dim),
      shard_shift_(kShardBits - ShardBitsOf(options.capacity_rows)) {
  PERSIA_CHECK(options.capacity_rows > 0);
  PERSIA_CHECK(options.admit_probability >= 0.0 && options.admit_probability <= 1.0);
  const uint64_t shards = kMostShards >> shard_shift_;
  for (uint64_t i = 0; i < shards; ++i) {
    const uint64_t share = options.capacity_rows / shards + (i < options.capacity_rows % shards ? 1 : 0);
    // A share beyond kMostRows would never fill up: memory ends first.
    shards_.push_back(std::make_unique<Shard>(std::min(share, LruRows::kMostRows), row_width()));
  }
}

Table::~Table() = default;

uint32_t Table::dim() const { return options_.dim; }
uint32_t Table::row_width() const { return optimizer_.row_width(); }

Table::Shard& Table::ShardOf(uint64_t hash) const { return *shards_[ShardNumber(hash, shard_shift_)]; }

const Table::ProbesByShard& Table::SortByShard(std::span<const uint64_t> signs) const {
  thread_local ProbesByShard probes;  // reused, so that a call allocates nothing in steady state
  probes.Sort(signs, shard_shift_);
  return probes;
}

void Table::Gather(std::span<const uint64_t> signs, LookupMode mode, uint64_t request, float* out) {
  const bool train = mode == LookupMode::kTrain;
  const ProbesByShard& probes = SortByShard(signs);
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (probes.Of(i).empty()) continue;
    Shard& shard = *shards_[i];
    std::lock_guard lock(shard.mutex);
    probes.ForEach(i, shard.rows, options_.dim, train, [&](const Probe& probe) {
      const uint32_t slot = shard.rows.Find(probe.sign, probe.hash);
      const float* row = nullptr;
      if (slot != kNoSlot) {
        ++shard.counts.hits;
        row = shard.rows.row(slot);
        if (train) shard.rows.Touch(slot);
      } else {
        ++shard.counts.misses;
        if (train) row = InsertIfAdmitted(shard, probe, request);
      }
      float* to = out + probe.position * options_.dim;
      if (row == nullptr) {
        std::fill_n(to, options_.dim, 0.0f);
      } else {
        CopyFloats(to, row, options_.dim);
      }
    });
  }
}

const float* Table::InsertIfAdmitted(Shard& shard, const Probe& probe, uint64_t request) const {
  if (options_.admit_probability < 1.0) {
    Rng rng(RandomKey(RandomKey(options_.seed, probe.sign), request));
    if (!(rng.Uniform() < options_.admit_probability)) {
      ++shard.counts.refused;
      return nullptr;
    }
  }
  shard.counts.evictions += shard.rows.full();
  ++shard.counts.inserts;
  float* row = shard.rows.row(shard.rows.Insert(probe.sign, probe.hash));
  InitializeRow(options_.initializer, options_.seed, probe.sign, row, options_.dim);
  optimizer_.InitState(row + options_.dim);
  return row;
}

void Table::Apply(std::span<const uint64_t> signs, const float* gradients) {
  const ProbesByShard& probes = SortByShard(signs);
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (probes.Of(i).empty()) continue;
    Shard& shard = *shards_[i];
    std::lock_guard lock(shard.mutex);
    probes.ForEach(i, shard.rows, row_width(), false, [&](const Probe& probe) {
      const uint32_t slot = shard.rows.Find(probe.sign, probe.hash);
      const float* gradient = gradients + probe.position * options_.dim;
      if (slot == kNoSlot) {
        ++shard.counts.missed_updates;
      } else if (!AllFinite({gradient, options_.dim})) {
        ++shard.counts.non_finite_skipped;
      } else {
        optimizer_.Apply(shard.rows.row(slot), gradient);
      }
    });
  }
}

bool Table::Read(uint64_t sign, float* row) const {
  const uint64_t hash = Mix64(sign);
  Shard& shard = ShardOf(hash);
  std::lock_guard lock(shard.mutex);
  const uint32_t slot = shard.rows.Find(sign, hash);
  if (slot == kNoSlot) return false;
  CopyFloats(row, shard.rows.row(slot), row_width());
  return true;
}

void Table::Write(uint64_t sign, const float* row) {
  const uint64_t hash = Mix64(sign);
  Shard& shard = ShardOf(hash);
  std::lock_guard lock(shard.mutex);
  uint32_t slot = shard.rows.Find(sign, hash);
  if (slot == kNoSlot) {
    shard.counts.evictions += shard.rows.full();
    slot = shard.rows.Insert(sign, hash);
  } else {
    shard.rows.Touch(slot);
  }
  CopyFloats(shard.rows.row(slot), row, row_width());
}

bool Table::Erase(uint64_t sign) {
  const uint64_t hash = Mix64(sign);
  Shard& shard = ShardOf(hash);
  std::lock_guard lock(shard.mutex);
  const uint32_t slot = shard.rows.Find(sign, hash);
  if (slot == kNoSlot) return false;
  shard.rows.Erase(slot);
  return true;
}

void Table::Clear() {
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    shard->rows.Clear();
  }
}

void Table::Scan(const std::function<void(uint64_t sign, const float* row)>& visit) const {
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    const LruRows& rows = shard->rows;
    for (uint32_t slot = rows.oldest(); slot != kNoSlot; slot = rows.newer(slot)) {
      visit(rows.sign(slot), rows.row(slot));
    }
  }
}

uint64_t Table::size() const { return counters().rows; }

TableCounters Table::counters() const {
  TableCounters total;
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    total.rows += shard->rows.size();
    total.bytes += shard->rows.bytes();
    total.hits += shard->counts.hits;
    total.misses += shard->counts.misses;
    total.inserts += shard->counts.inserts;
    total.evictions += shard->counts.evictions;
    total.refused += shard->counts.refused;
    total.missed_updates += shard->counts.missed_updates;
    total.non_finite_skipped += shard->counts.non_finite_skipped;
  }
  return total;
}

}  // namespace persia
