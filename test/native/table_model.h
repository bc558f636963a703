// What a table does, said with std::map and std::list: the oracle of the table's tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"
#include "table/table.h"

namespace persia {

using Signs = std::vector<uint64_t>;
using Values = std::vector<float>;
using Rows = std::vector<std::pair<uint64_t, Values>>;

// `shard_bits` is the logarithm of the number of shards that the table has at this capacity.
class TableModel {
 public:
  TableModel(const TableOptions& options, uint32_t shard_bits)
      : options_(options),
        optimizer_(options.optimizer, options.dim),
        shard_bits_(shard_bits),
        shards_(1u << shard_bits) {
    const uint64_t count = shards_.size();
    for (uint64_t i = 0; i < count; ++i) shards_[i].capacity = (options.capacity_rows + count - 1 - i) / count;
  }

  Values Gather(const Signs& signs, LookupMode mode, uint64_t request) {
    Values out;
    for (const uint64_t sign : signs) {
      Shard& shard = ShardOf(sign);
      const bool known = shard.rows.contains(sign);
      ++(known ? counters_.hits : counters_.misses);
      if (mode == LookupMode::kTrain && (known || Admits(sign, request))) {
        Use(shard, sign, &counters_.inserts);
      }
      const auto found = shard.rows.find(sign);
      for (uint32_t d = 0; d < options_.dim; ++d) {
        out.push_back(found == shard.rows.end() ? 0.0f : found->second.row[d]);
      }
    }
    return out;
  }

  void Apply(const Signs& signs, const Values& gradients) {
    for (size_t i = 0; i < signs.size(); ++i) {
      Shard& shard = ShardOf(signs[i]);
      const float* gradient = &gradients[i * options_.dim];
      if (!shard.rows.contains(signs[i])) {
        ++counters_.missed_updates;
      } else if (std::any_of(gradient, gradient + options_.dim, [](float g) { return !std::isfinite(g); })) {
        ++counters_.non_finite_skipped;
      } else {
        optimizer_.Apply(shard.rows[signs[i]].row.data(), gradient);
      }
    }
  }

  void Write(uint64_t sign, const Values& row) {
    Use(ShardOf(sign), sign, nullptr);
    ShardOf(sign).rows[sign].row = row;
  }

  bool Erase(uint64_t sign) {
    Shard& shard = ShardOf(sign);
    const auto found = shard.rows.find(sign);
    if (found == shard.rows.end()) return false;
    shard.recency.erase(found->second.place);
    shard.rows.erase(found);
    return true;
  }

  void Clear() {
    for (Shard& shard : shards_) shard = {shard.capacity, {}, {}};
  }

  Rows Scan() const {
    Rows rows;
    for (const Shard& shard : shards_) {
      for (const uint64_t sign : shard.recency) rows.emplace_back(sign, shard.rows.at(sign).row);
    }
    return rows;
  }

  const TableCounters& counters() const { return counters_; }

 private:
  struct Entry {
    Values row;
    std::list<uint64_t>::iterator place;  // in the recency list
  };
  struct Shard {
    uint64_t capacity;
    std::list<uint64_t> recency;  // least recent first
    std::map<uint64_t, Entry> rows;
  };

  Shard& ShardOf(uint64_t sign) { return shards_[shard_bits_ == 0 ? 0 : Mix64(sign) >> (64 - shard_bits_)]; }

  bool Admits(uint64_t sign, uint64_t request) {
    const bool admits = Rng(RandomKey(RandomKey(options_.seed, sign), request)).Uniform() < options_.admit_probability;
    counters_.refused += !admits;
    return admits;
  }

  // Makes the sign the most recent row, a new one if need be.
  void Use(Shard& shard, uint64_t sign, uint64_t* inserts) {
    const auto found = shard.rows.find(sign);
    if (found != shard.rows.end()) {
      shard.recency.splice(shard.recency.end(), shard.recency, found->second.place);
      return;
    }
    if (shard.rows.size() == shard.capacity) {
      shard.rows.erase(shard.recency.front());
      shard.recency.pop_front();
      ++counters_.evictions;
    }
    Values row(optimizer_.row_width());
    InitializeRow(options_.initializer, options_.seed, sign, row.data(), options_.dim);
    optimizer_.InitState(row.data() + options_.dim);
    shard.recency.push_back(sign);
    shard.rows[sign] = {row, std::prev(shard.recency.end())};
    if (inserts != nullptr) ++*inserts;
  }

  const TableOptions options_;
  const RowOptimizer optimizer_;
  const uint32_t shard_bits_;
  std::vector<Shard> shards_;
  TableCounters counters_;
};

}  // namespace persia
