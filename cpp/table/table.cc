#include "table/table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <mutex>

#include <unistd.h>

#include "base/epoch.h"
#include "base/hash.h"
#include "table/pipeline.h"
#include "table/row_access.h"
#include "table/row_kernel.h"
#include "table/shard.h"

namespace persia {
namespace {

uint64_t SystemNowMs() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count());
}

// Rows that this machine's memory could hold, twice over: a larger capacity would never be reached.
uint64_t MostRows(const RowFormat& format) {
  const auto bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return 2 * bytes / format.stride_bytes() + 1;
}

uint64_t CapacityOf(const TableOptions& options, const RowFormat& format) {
  constexpr uint64_t kIndexBytes = 16;  // a row, at most
  const uint64_t bytes = options.capacity_bytes - options.capacity_bytes / 32;  // less what evicted rows still hold
  uint64_t rows = options.capacity_rows > 0 ? options.capacity_rows : UINT64_MAX;
  if (options.capacity_bytes > 0) {
    const bool counts = options.admit_frequency > 1 || options.eviction == EvictionPolicy::kLfu;
    const uint64_t row = format.stride_bytes() + kIndexBytes + (counts ? FrequencySketch::kBytesPerSign : 0);
    rows = std::min(rows, std::max<uint64_t>(bytes / row, 1));
  }
  return std::min(rows, MostRows(format));
}

uint32_t ShardBitsOf(uint64_t capacity_rows) {
  const uint64_t shards =
      std::clamp<uint64_t>(capacity_rows / Table::kMinShardRows, 1, uint64_t{1} << Table::kMostShardBits);
  auto bits = static_cast<uint32_t>(std::bit_width(shards)) - 1;
  while (capacity_rows >> bits >= Shard::kMostRows) ++bits;
  return bits;
}

}  // namespace

TableParts::TableParts(const TableOptions& table_options)
    : options(table_options),
      optimizer(options.optimizer, options.dim),
      format(options.storage, options.dim, optimizer.state_width()) {
  PERSIA_CHECK(options.capacity_rows > 0 || options.capacity_bytes > 0);
  PERSIA_CHECK(options.admit_probability >= 0.0 && options.admit_probability <= 1.0);
  PERSIA_CHECK(options.admit_frequency >= 1 && options.admit_frequency <= FrequencySketch::kMost);
  PERSIA_CHECK(options.prefix_bits >= 1 && options.prefix_bits <= 32);
  if (options.admit_frequency > 1 || options.eviction == EvictionPolicy::kLfu) {
    uint64_t rows = CapacityOf(options, format);
    for (const GroupCapacity& group : options.group_capacities) rows += std::min(group.rows, MostRows(format));
    sketch = std::make_unique<FrequencySketch>(std::min(rows, FrequencySketch::kMostSigns));
  }
  now_ms.store(options.now_ms ? options.now_ms() : SystemNowMs(), std::memory_order_relaxed);
}

// A part of the signs with a capacity, in shards of about equal size.
struct Table::Partition {
  Partition(const TableParts& parts, uint64_t rows)
      : capacity(rows), bits(ShardBitsOf(rows)), free_seats(static_cast<int64_t>(rows)) {
    for (uint64_t i = 0; i < uint64_t{1} << bits; ++i) {
      shards.push_back(std::make_unique<Shard>(parts, (rows + (uint64_t{1} << bits) - 1) >> bits, bits, free_seats));
    }
  }

  Shard& Of(uint64_t sign) const { return *shards[bits == 0 ? 0 : Mix64(sign) >> (64 - bits)]; }

  const uint64_t capacity;
  const uint32_t bits;
  alignas(64) std::atomic<int64_t> free_seats;
  std::vector<std::unique_ptr<Shard>> shards;
};

struct alignas(64) Table::GroupCounters {
  std::atomic<uint64_t> hits{0}, misses{0}, inserts{0}, evictions{0}, expired{0}, refused{0}, missed_updates{0},
      non_finite_skipped{0};
};

Table::Table(const TableOptions& options)
    : parts_(std::make_shared<TableParts>(options)),
      partitions_(options.group_capacities.size() + 1),
      partition_of_group_(parts_->groups(), 0),
      counters_(new GroupCounters[parts_->groups()]),
      group_steps_(new std::atomic<uint64_t>[parts_->groups()]()) {
  owners_.push_back(std::make_shared<Partition>(*parts_, CapacityOf(options, parts_->format)));
  for (const GroupCapacity& group : options.group_capacities) {
    PERSIA_CHECK(group.group < options.group_count && group.rows > 0);
    partition_of_group_[group.group] = static_cast<uint32_t>(owners_.size());
    owners_.push_back(std::make_shared<Partition>(*parts_, std::min(group.rows, MostRows(parts_->format))));
  }
  for (size_t i = 0; i < owners_.size(); ++i) partitions_[i].store(owners_[i].get(), std::memory_order_release);
}

Table::~Table() = default;

uint32_t Table::dim() const { return parts_->options.dim; }
uint32_t Table::row_width() const { return parts_->optimizer.row_width(); }
size_t Table::row_bytes() const { return parts_->format.row_bytes(); }

uint64_t Table::capacity_rows() const {
  const Epoch::Guard guard;
  uint64_t rows = 0;
  for (const auto& partition : partitions_) rows += partition.load(std::memory_order_acquire)->capacity;
  return rows;
}

Shard& Table::ShardOf(uint64_t sign) const {
  const size_t partition = partitions_.size() == 1 ? 0 : partition_of_group_[parts_->GroupOf(sign)];
  return partitions_[partition].load(std::memory_order_acquire)->Of(sign);
}

template <typename Visit>
void Table::ForEachShard(Visit visit) const {
  for (const auto& partition : partitions_) {
    for (const auto& shard : partition.load(std::memory_order_acquire)->shards) visit(*shard);
  }
}

// ---- batched calls

// Calls `fast(group, i)` for each sign in order and, where that is false, `slow(i of the call, probe, tries)`, again as
// long as it asks for a new guard.
template <typename Fast, typename Slow>
PERSIA_ALWAYS_INLINE void Table::ForEach(std::span<const uint64_t> signs, size_t row_bytes, Fast fast,
                                         Slow slow) const {
  Pipeline pipeline(signs, row_bytes);
  const FrequencySketch* sketch = parts_->sketch.get();
  for (size_t begin = 0; begin < signs.size(); begin += TableParts::kBlockSigns) {
    Epoch::Guard guard;
    const Partition* only = partitions_.size() == 1 ? partitions_[0].load(std::memory_order_acquire) : nullptr;
    const auto shard_of = [&](uint64_t sign) __attribute__((always_inline)) -> Shard& {
      if (sketch != nullptr) sketch->Prefetch(Mix64(sign));
      return only != nullptr ? only->Of(sign) : ShardOf(sign);
    };
    const auto use = [&](const Pipeline::Group& group, size_t i) __attribute__((always_inline)) {
      if (fast(group, i)) [[likely]] return;
      const size_t at = group.begin + i;
      for (int tries = 0;; ++tries) {
        RowProbe probe = Probe(signs[at]);
        if (slow(at, probe, tries) == RowAccess::Outcome::kDone) return;
        guard.Renew();
        if (only != nullptr) only = partitions_[0].load(std::memory_order_acquire);
        pipeline.Refresh(shard_of);
      }
    };
    pipeline.Run(begin, std::min(begin + TableParts::kBlockSigns, signs.size()), shard_of, use);
  }
}

// The common case of a lookup, whose hits it counts: they mostly come in runs of one group.
class Table::HitReader {
 public:
  HitReader(const RowAccess& access, const TableParts& parts, Tally& tally)
      : access_(access), parts_(parts), shift_(64 - parts.options.prefix_bits), tally_(tally) {}

  // Copies the embedding (dim) f32 of a sign of a group and leaves in *place where it was; false: it has to be looked
  // up the long way.
  PERSIA_ALWAYS_INLINE bool Read(const Pipeline::Group& group, size_t i, uint64_t sign, uint32_t dim, float* out,
                                 RowPlace* place) {
    if (group.rows[i] == nullptr) return false;
    *place = group.place(i);
    if (!SignIndex<>::Confirm(sign, place)) return false;
    if (!access_.TryRead(*place, group.rows[i], dim * sizeof(float), out)) return false;
    Count(sign);
    return true;
  }

 private:
  PERSIA_ALWAYS_INLINE void Count(uint64_t sign) {
    if (sign >> shift_ != prefix_) [[unlikely]] {
      prefix_ = sign >> shift_;
      hits_ = &tally_[parts_.GroupOf(sign)].hits;
    }
    ++*hits_;
  }

  const RowAccess& access_;
  const TableParts& parts_;
  const uint32_t shift_;
  Tally& tally_;
  uint64_t prefix_ = UINT64_MAX;  // of no sign: a prefix has 32 bits at most
  uint32_t* hits_ = nullptr;
};

// The bodies of the calls, compiled once for every instruction set that copies rows faster.
struct Table::Bodies {
  // `dim` is the table's; a constant for the usual ones.
  struct Train {
    static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, Table& table, std::span<const uint64_t> signs, uint64_t request,
                                         float* out, Tally& tally) {
      const RowAccess access(*table.parts_);
      const bool counts_use = table.parts_->options.eviction == EvictionPolicy::kLfu;
      HitReader hits(access, *table.parts_, tally);
      table.ForEach(
          signs, table.parts_->format.embedding_bytes(),
          [&](const Pipeline::Group& group, size_t i) __attribute__((always_inline)) {
            const size_t at = group.begin + i;
            RowPlace place;
            if (counts_use || !hits.Read(group, i, signs[at], dim, out + at * dim, &place)) return false;
            group.shards[i]->Touch(place);
            return true;
          },
          [&](size_t at, RowProbe& probe, int tries) {
            return access.LookUp(probe, request, tries, out + at * dim, tally);
          });
    }
  };

  struct Peek {
    static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, Table& table, std::span<const uint64_t> signs, uint64_t,
                                         float* out, Tally& tally) {
      const RowAccess access(*table.parts_);
      HitReader hits(access, *table.parts_, tally);
      table.ForEach(
          signs, table.parts_->format.embedding_bytes(),
          [&](const Pipeline::Group& group, size_t i) __attribute__((always_inline)) {
            const size_t at = group.begin + i;
            RowPlace place;
            return hits.Read(group, i, signs[at], dim, out + at * dim, &place);
          },
          [&](size_t at, RowProbe& probe, int) { return access.Peek(probe, out + at * dim, tally); });
    }
  };

  struct Update {
    static PERSIA_ALWAYS_INLINE void Run(uint32_t dim, Table& table, std::span<const uint64_t> signs, uint64_t request,
                                         const float* gradients, const uint64_t* steps, Tally& tally) {
      const RowAccess access(*table.parts_);
      const RowRecord record(table.row_bytes());
      const auto step_of = [&](uint64_t sign) __attribute__((always_inline)) {
        return steps == nullptr ? 1 : steps[table.parts_->GroupOf(sign)];
      };
      table.ForEach(
          signs, table.row_bytes(),
          [&](const Pipeline::Group& group, size_t i) __attribute__((always_inline)) {
            RowPlace place = group.place(i);
            const uint64_t sign = signs[group.begin + i];
            const float* gradient = gradients + (group.begin + i) * dim;
            Shard& shard = *group.shards[i];
            if (group.rows[i] == nullptr || !AllFinite({gradient, dim})) return false;
            if (!shard.index().LockGlanced(sign, &place)) return false;
            access.UpdateLocked(shard, place, sign, group.rows[i], gradient, step_of(sign), request, record);
            return true;
          },
          [&](size_t at, RowProbe& probe, int) {
            return access.Update(probe, gradients + at * dim, step_of(probe.sign), request, record, tally);
          });
    }
  };

  template <typename Body, typename... Args>
  static void Run(Table& table, std::span<const uint64_t> signs, Args... args) {
    RowKernel<Table&, std::span<const uint64_t>, Args...> kernel = nullptr;
    PickRowKernel<Body>(std::min(BestSimd(), SimdLevel::kAvx2), table.dim(), &kernel);
    kernel(table.dim(), table, signs, args...);
  }
};

void Table::Gather(std::span<const uint64_t> signs, LookupMode mode, uint64_t request, float* out) {
  Tally& tally = BeginCall();
  if (mode == LookupMode::kTrain) {
    KeepTime(tally);
    Bodies::Run<Bodies::Train, uint64_t, float*, Tally&>(*this, signs, request, out, tally);
  } else {
    Bodies::Run<Bodies::Peek, uint64_t, float*, Tally&>(*this, signs, request, out, tally);
  }
  EndCall(tally);
}

void Table::Apply(std::span<const uint64_t> signs, const float* gradients, uint64_t request) {
  thread_local std::vector<uint64_t> steps;
  const bool stepped = parts_->optimizer.needs_group_step();
  if (stepped) CountSteps(signs, steps);
  Tally& tally = BeginCall();
  Bodies::Run<Bodies::Update, uint64_t, const float*, const uint64_t*, Tally&>(
      *this, signs, request, gradients, stepped ? steps.data() : nullptr, tally);
  EndCall(tally);
}

// The step of each group that has a sign in the call; the others' are not used.
void Table::CountSteps(std::span<const uint64_t> signs, std::vector<uint64_t>& steps) const {
  steps.assign(parts_->groups(), 0);
  for (const uint64_t sign : signs) {
    const size_t group = parts_->GroupOf(sign);
    if (steps[group] == 0) steps[group] = group_steps_[group].fetch_add(1, std::memory_order_relaxed) + 1;
  }
}

// With a time to live: reads the clock and evicts a little of what has outlived its time.
void Table::KeepTime(Tally& tally) const {
  if (!parts_->ages()) return;
  constexpr uint64_t kSweepHomes = 4;
  parts_->now_ms.store(parts_->options.now_ms ? parts_->options.now_ms() : SystemNowMs(), std::memory_order_relaxed);
  const Epoch::Guard guard;
  ForEachShard([&](Shard& shard) {
    shard.TickByTime();
    shard.Sweep(kSweepHomes, tally);
  });
}

Tally& Table::BeginCall() const {
  thread_local Tally tally(0);
  tally.all().assign(parts_->groups(), {});
  return tally;
}

void Table::EndCall(Tally& tally) const {
  auto add = [](std::atomic<uint64_t>& to, uint32_t count) {
    if (count > 0) to.fetch_add(count, std::memory_order_relaxed);
  };
  for (size_t group = 0; group < parts_->groups(); ++group) {
    const Tally::Counts& counts = tally[group];
    GroupCounters& to = counters_[group];
    add(to.hits, counts.hits);
    add(to.misses, counts.misses);
    add(to.inserts, counts.inserts);
    add(to.evictions, counts.evictions);
    add(to.expired, counts.expired);
    add(to.refused, counts.refused);
    add(to.missed_updates, counts.missed_updates);
    add(to.non_finite_skipped, counts.non_finite_skipped);
  }
  Epoch::Collect();
}

// ---- single rows

RowProbe Table::Probe(uint64_t sign) const {
  RowProbe probe(ShardOf(sign), sign);
  probe.Search();
  return probe;
}

bool Table::Read(uint64_t sign, float* row) const {
  const Epoch::Guard guard;
  RowProbe probe = Probe(sign);
  return RowAccess(*parts_).Read(probe, row);
}

bool Table::Write(uint64_t sign, const float* row, std::optional<RowAge> age) {
  Tally& tally = BeginCall();
  bool written = false;
  {
    Epoch::Guard guard;
    const RowAge* at = age.has_value() ? &*age : nullptr;
    RowProbe probe = Probe(sign);
    for (int tries = 0;
         RowAccess(*parts_).Write(probe, row, at, tries, tally, &written) == RowAccess::Outcome::kRenew; ++tries) {
      guard.Renew();
      probe = Probe(sign);
    }
  }
  tally[parts_->GroupOf(sign)].refused += !written;
  EndCall(tally);
  return written;
}

bool Table::Erase(uint64_t sign) {
  const Epoch::Guard guard;
  RowProbe probe = Probe(sign);
  return RowAccess(*parts_).Erase(probe);
}

// Each partition is exchanged for an empty one; calls that hold the old one finish there.
void Table::Clear() {
  std::lock_guard lock(owners_mutex_);
  for (size_t i = 0; i < owners_.size(); ++i) {
    auto empty = std::make_shared<Partition>(*parts_, owners_[i]->capacity);
    partitions_[i].store(empty.get(), std::memory_order_release);
    // The parts live until then: a call holds the table while it holds a guard.
    Epoch::Retire([old = std::move(owners_[i]), parts = parts_]() mutable { old.reset(); });
    owners_[i] = std::move(empty);
  }
  if (parts_->sketch != nullptr) parts_->sketch->Clear();
}

// ---- the whole table

void Table::Scan(const std::function<void(uint64_t sign, const float* row, RowAge age)>& visit) const {
  std::vector<std::shared_ptr<Partition>> partitions;
  {
    std::lock_guard lock(owners_mutex_);
    partitions = owners_;
  }
  std::vector<float> row(row_width());
  for (const auto& partition : partitions) {
    for (const auto& shard : partition->shards) {
      shard->Scan([&](uint64_t sign, const std::byte* contents, RowAge age) {
        parts_->format.Decode(contents, row.data());
        visit(sign, row.data(), age);
      });
    }
  }
}

uint64_t Table::size() const {
  const Epoch::Guard guard;
  uint64_t rows = 0;
  ForEachShard([&](const Shard& shard) { rows += shard.size(); });
  return rows;
}

TableCounters Table::counters() const {
  TableCounters total;
  for (const TableCounters& group : group_counters()) {
    total.hits += group.hits;
    total.misses += group.misses;
    total.inserts += group.inserts;
    total.evictions += group.evictions;
    total.expired += group.expired;
    total.refused += group.refused;
    total.missed_updates += group.missed_updates;
    total.non_finite_skipped += group.non_finite_skipped;
  }
  const Epoch::Guard guard;
  ForEachShard([&](const Shard& shard) {
    total.rows += shard.size();
    total.bytes += shard.bytes();
    total.lanes += shard.lanes();
  });
  if (parts_->sketch != nullptr) total.bytes += parts_->sketch->bytes();
  return total;
}

std::vector<TableCounters> Table::group_counters() const {
  const Epoch::Guard guard;
  std::vector<TableCounters> groups(parts_->groups());
  std::vector<int64_t> group_rows(parts_->groups());
  uint64_t rows = 0, bytes = 0, lanes = 0;
  ForEachShard([&](const Shard& shard) {
    rows += shard.size();
    bytes += shard.bytes();
    lanes += shard.lanes();
    for (size_t group = 0; group < groups.size(); ++group) group_rows[group] += shard.rows_of(group);
  });
  for (size_t group = 0; group < groups.size(); ++group) {
    TableCounters& counts = groups[group];
    const GroupCounters& from = counters_[group];
    counts.rows = static_cast<uint64_t>(std::max<int64_t>(group_rows[group], 0));
    const double share = rows == 0 ? 0.0 : static_cast<double>(counts.rows) / static_cast<double>(rows);
    counts.bytes = static_cast<uint64_t>(share * static_cast<double>(bytes));
    counts.lanes = static_cast<uint64_t>(share * static_cast<double>(lanes));
    counts.hits = from.hits.load(std::memory_order_relaxed);
    counts.misses = from.misses.load(std::memory_order_relaxed);
    counts.inserts = from.inserts.load(std::memory_order_relaxed);
    counts.evictions = from.evictions.load(std::memory_order_relaxed);
    counts.expired = from.expired.load(std::memory_order_relaxed);
    counts.refused = from.refused.load(std::memory_order_relaxed);
    counts.missed_updates = from.missed_updates.load(std::memory_order_relaxed);
    counts.non_finite_skipped = from.non_finite_skipped.load(std::memory_order_relaxed);
  }
  return groups;
}

// Words: groups | steps of each | partitions | capacity of each | shards' words | sketch.
std::vector<uint64_t> Table::SaveState() const {
  const Epoch::Guard guard;
  std::vector<uint64_t> words{parts_->groups()};
  for (size_t group = 0; group < parts_->groups(); ++group) {
    words.push_back(group_steps_[group].load(std::memory_order_relaxed));
  }
  words.push_back(partitions_.size());
  for (const auto& partition : partitions_) words.push_back(partition.load(std::memory_order_acquire)->capacity);
  ForEachShard([&](const Shard& shard) { shard.SaveState(words); });
  if (parts_->sketch != nullptr) parts_->sketch->Save(words);
  return words;
}

bool Table::RestoreState(std::span<const uint64_t> words) {
  constexpr uint64_t kMostSteps = uint64_t{1} << 62;  // no run gets there: a file that says so is wrong
  if (words.size() <= parts_->groups() || words[0] != parts_->groups()) return false;
  const auto steps = words.subspan(1, parts_->groups());
  if (std::any_of(steps.begin(), steps.end(), [](uint64_t step) { return step > kMostSteps; })) return false;
  for (size_t group = 0; group < parts_->groups(); ++group) {
    group_steps_[group].store(words[1 + group], std::memory_order_relaxed);
  }
  words = words.subspan(1 + parts_->groups());
  const Epoch::Guard guard;
  std::vector<uint64_t> shape{partitions_.size()};
  for (const auto& partition : partitions_) shape.push_back(partition.load(std::memory_order_acquire)->capacity);
  size_t shards = 0;
  ForEachShard([&](const Shard&) { ++shards; });
  const size_t fixed = shape.size() + shards * Shard::kStateWords;
  if (words.size() < fixed || !std::equal(shape.begin(), shape.end(), words.begin())) return false;
  const auto sketch = words.subspan(fixed);
  if (parts_->sketch == nullptr ? !sketch.empty() : !parts_->sketch->Restore(sketch)) return false;
  const uint64_t* next = words.data() + shape.size();
  ForEachShard([&](Shard& shard) {
    shard.RestoreState(next);
    next += Shard::kStateWords;
  });
  return true;
}

}  // namespace persia
