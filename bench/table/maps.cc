// The maps: ours, and what else keeps rows under 64-bit keys for several threads.
//
//   tbb    tbb::concurrent_hash_map<uint64_t, row>, an accessor a row
//   absl   the parallel flat hash map with mutexed submaps of phmap and gtl, which Debian does not package, over the
//          flat map that theirs descends from: 64 x (absl::flat_hash_map<uint64_t, row>, std::mutex), chosen by hash
//
// Both take the common way of their users: sign by sign. A training lookup looks for the row first and inserts only
// when there is none. Huge pages are on for them too: main() asks malloc for them.
#include <algorithm>
#include <array>
#include <bit>
#include <mutex>

#ifdef PERSIA_BENCH_ABSL
#include <absl/container/flat_hash_map.h>
#endif
#ifdef PERSIA_BENCH_TBB
#include <tbb/concurrent_hash_map.h>
#endif

#include "base/copy.h"
#include "base/hash.h"
#include "base/status.h"
#include "side.h"
#include "table/initializer.h"
#include "table/row_optimizer.h"

namespace persia::bench {
namespace {

constexpr uint64_t kSeed = 7;
constexpr uint32_t kSubmapBits = 6, kSubmaps = 1u << kSubmapBits;

class OurTable final : public Side {
 public:
  explicit OurTable(const SideOptions& options) : table_(OptionsOfOurs(options.dim, options.rows + options.headroom)) {}

  void Gather(std::span<const uint64_t> signs, LookupMode mode, float* out) override {
    table_.Gather(signs, mode, NextRequest(), out);
  }
  void GatherApply(std::span<const uint64_t> signs, const float* gradients, float* out) override {
    const uint64_t request = NextRequest();
    table_.Gather(signs, LookupMode::kTrain, request, out);
    table_.Apply(signs, gradients, request);
  }
  void Erase(std::span<const uint64_t> signs) override {
    for (const uint64_t sign : signs) PERSIA_CHECK(table_.Erase(sign));
  }
  uint64_t size() const override { return table_.size(); }
  uint64_t bytes() const override { return table_.counters().bytes; }
  uint64_t lost() const override { return table_.counters().evictions; }

 private:
  // Distinct for each call, and without a line that all threads write.
  static uint64_t NextRequest() {
    thread_local uint64_t request = 0;
    return ++request;
  }

  Table table_;
};

// What the rows of the peers have in common with ours: how they begin and how they learn.
struct RowRules {
  explicit RowRules(uint32_t row_dim) : dim(row_dim), optimizer({}, row_dim) {}

  void Init(uint64_t sign, float* row) const {
    InitializeRow({}, kSeed, sign, row, dim);
    std::fill_n(row + dim, optimizer.state_width(), 0.0f);
  }

  uint32_t dim;
  RowOptimizer optimizer;
};

#if defined(PERSIA_BENCH_TBB) || defined(PERSIA_BENCH_ABSL)
// Calls `make` with the row width of a dim as a constant: the peers keep rows inside their nodes and slots.
template <typename Make>
std::unique_ptr<Side> WithWidth(uint32_t dim, Make make) {
  switch (dim) {
    case 8: return make(std::integral_constant<uint32_t, 16>());
    case 16: return make(std::integral_constant<uint32_t, 32>());
    case 64: return make(std::integral_constant<uint32_t, 128>());
    default: return nullptr;
  }
}
#endif

#ifdef PERSIA_BENCH_TBB
template <uint32_t kWidth>
class TbbMap final : public Side {
 public:
  explicit TbbMap(const SideOptions& options) : rules_(options.dim), map_(options.rows + options.headroom) {}

  void Gather(std::span<const uint64_t> signs, LookupMode mode, float* out) override {
    for (size_t i = 0; i < signs.size(); ++i, out += rules_.dim) {
      if (typename Map::const_accessor found; map_.find(found, signs[i])) {
        CopyFloats(out, found->second.data(), rules_.dim);
      } else if (mode == LookupMode::kTrain) {
        Insert(signs[i], out);
      } else {
        std::fill_n(out, rules_.dim, 0.0f);
      }
    }
  }
  void GatherApply(std::span<const uint64_t> signs, const float* gradients, float* out) override {
    Gather(signs, LookupMode::kTrain, out);
    for (size_t i = 0; i < signs.size(); ++i, gradients += rules_.dim) {
      if (typename Map::accessor found; map_.find(found, signs[i])) {
        rules_.optimizer.Apply(found->second.data(), gradients);
      }
    }
  }
  void Erase(std::span<const uint64_t> signs) override {
    for (const uint64_t sign : signs) PERSIA_CHECK(map_.erase(sign));
  }
  uint64_t size() const override { return map_.size(); }

 private:
  using Row = std::array<float, kWidth>;
  using Map = tbb::concurrent_hash_map<uint64_t, Row, tbb::tbb_hash_compare<uint64_t>,
                                       std::allocator<std::pair<const uint64_t, Row>>>;

  void Insert(uint64_t sign, float* out) {
    typename Map::accessor row;
    if (map_.insert(row, sign)) rules_.Init(sign, row->second.data());
    CopyFloats(out, row->second.data(), rules_.dim);
  }

  RowRules rules_;
  Map map_;
};

// A node of next, mutex, key and row behind malloc's header; 16-byte buckets, a power of two of them.
uint64_t TbbBytes(const SideOptions& options) {
  const uint64_t rows = options.rows + options.headroom;
  return rows * (2 * options.dim * sizeof(float) + 40) + std::bit_ceil(rows) * 16;
}
#endif

#ifdef PERSIA_BENCH_ABSL
template <uint32_t kWidth>
class SubmapMap final : public Side {
 public:
  explicit SubmapMap(const SideOptions& options) : rules_(options.dim), submaps_(kSubmaps) {
    for (Submap& submap : submaps_) submap.rows.reserve(RowsOfSubmap(options));
  }

  void Gather(std::span<const uint64_t> signs, LookupMode mode, float* out) override {
    for (size_t i = 0; i < signs.size(); ++i, out += rules_.dim) {
      Submap& submap = SubmapOf(signs[i]);
      const std::lock_guard lock(submap.mutex);
      auto found = submap.rows.find(signs[i]);
      if (found == submap.rows.end() && mode == LookupMode::kTrain) {
        found = submap.rows.try_emplace(signs[i]).first;
        rules_.Init(signs[i], found->second.data());
      }
      if (found != submap.rows.end()) {
        CopyFloats(out, found->second.data(), rules_.dim);
      } else {
        std::fill_n(out, rules_.dim, 0.0f);
      }
    }
  }
  void GatherApply(std::span<const uint64_t> signs, const float* gradients, float* out) override {
    Gather(signs, LookupMode::kTrain, out);
    for (size_t i = 0; i < signs.size(); ++i, gradients += rules_.dim) {
      Submap& submap = SubmapOf(signs[i]);
      const std::lock_guard lock(submap.mutex);
      const auto found = submap.rows.find(signs[i]);
      if (found != submap.rows.end()) rules_.optimizer.Apply(found->second.data(), gradients);
    }
  }
  void Erase(std::span<const uint64_t> signs) override {
    for (const uint64_t sign : signs) {
      Submap& submap = SubmapOf(sign);
      const std::lock_guard lock(submap.mutex);
      PERSIA_CHECK(submap.rows.erase(sign) == 1);
    }
  }
  uint64_t size() const override {
    uint64_t rows = 0;
    for (const Submap& submap : submaps_) rows += submap.rows.size();
    return rows;
  }

  static uint64_t RowsOfSubmap(const SideOptions& options) {
    const uint64_t rows = (options.rows + options.headroom) / kSubmaps;
    return rows + rows / 50;  // they are not all filled alike
  }

 private:
  struct alignas(128) Submap {
    std::mutex mutex;
    absl::flat_hash_map<uint64_t, std::array<float, kWidth>> rows;
  };

  Submap& SubmapOf(uint64_t sign) { return submaps_[Mix64(sign) >> (64 - kSubmapBits)]; }

  RowRules rules_;
  std::vector<Submap> submaps_;
};

// Slots of key and row with a control byte: a power of two, at most 7/8 full.
uint64_t SubmapBytes(const SideOptions& options) {
  const uint64_t slots = std::bit_ceil(SubmapMap<16>::RowsOfSubmap(options) * 8 / 7);
  return kSubmaps * slots * (2 * options.dim * sizeof(float) + 9);
}
#endif

}  // namespace

TableOptions OptionsOfOurs(uint32_t dim, uint64_t capacity_rows) {
  TableOptions options;
  options.dim = dim;
  options.seed = kSeed;
  options.capacity_rows = capacity_rows;
  return options;
}

SideKind Ours() {
  return {"ours",
          [](const SideOptions& options) {
            return (options.rows + options.headroom) * (2 * options.dim * sizeof(float) + 32);
          },
          [](const SideOptions& options) { return std::make_unique<OurTable>(options); }};
}

std::vector<SideKind> PeerMaps() {
  std::vector<SideKind> peers;
#ifdef PERSIA_BENCH_TBB
  peers.push_back({"tbb", TbbBytes, [](const SideOptions& options) {
                     return WithWidth(options.dim, [&](auto width) -> std::unique_ptr<Side> {
                       return std::make_unique<TbbMap<width()>>(options);
                     });
                   }});
#endif
#ifdef PERSIA_BENCH_ABSL
  peers.push_back({"absl", SubmapBytes, [](const SideOptions& options) {
                     return WithWidth(options.dim, [&](auto width) -> std::unique_ptr<Side> {
                       return std::make_unique<SubmapMap<width()>>(options);
                     });
                   }});
#endif
  return peers;
}

std::vector<SideKind> SideKinds() {
  std::vector<SideKind> kinds = {OneLineBound(), TwoLineBound(), Ours()};
  for (SideKind& peer : PeerMaps()) kinds.push_back(std::move(peer));
  return kinds;
}

std::vector<std::string> MissingPeers() {
  std::vector<std::string> missing;
#ifndef PERSIA_BENCH_TBB
  missing.push_back("tbb: this build found no TBB (libtbb-dev)");
#endif
#ifndef PERSIA_BENCH_ABSL
  missing.push_back("absl: this build found no Abseil (libabsl-dev)");
#endif
  return missing;
}

}  // namespace persia::bench
