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
#include "table_fixtures.h"

namespace persia {

using Rows = std::vector<std::pair<uint64_t, Values>>;

// `capacity_rows` of at most Shard::kExactRows: such a table evicts in the exact order of use.
class TableModel {
 public:
  explicit TableModel(const TableOptions& options) : options_(options), optimizer_(options.optimizer, options.dim) {}

  Values Gather(const Signs& signs, LookupMode mode, uint64_t request) {
    Values out;
    for (const uint64_t sign : signs) {
      const bool known = rows_.contains(sign);
      ++(known ? counters_.hits : counters_.misses);
      if (mode == LookupMode::kTrain && (known || Admits(sign, request))) Use(sign, &counters_.inserts);
      const auto found = rows_.find(sign);
      for (uint32_t d = 0; d < options_.dim; ++d) out.push_back(found == rows_.end() ? 0.0f : found->second.row[d]);
    }
    return out;
  }

  void Apply(const Signs& signs, const Values& gradients) {
    for (size_t i = 0; i < signs.size(); ++i) {
      const float* gradient = &gradients[i * options_.dim];
      if (!rows_.contains(signs[i])) {
        ++counters_.missed_updates;
      } else if (std::any_of(gradient, gradient + options_.dim, [](float g) { return !std::isfinite(g); })) {
        ++counters_.non_finite_skipped;
      } else {
        optimizer_.Apply(rows_[signs[i]].row.data(), gradient);
      }
    }
  }

  void Write(uint64_t sign, const Values& row) {
    Use(sign, nullptr);
    rows_[sign].row = row;
  }

  bool Erase(uint64_t sign) {
    const auto found = rows_.find(sign);
    if (found == rows_.end()) return false;
    recency_.erase(found->second.place);
    rows_.erase(found);
    return true;
  }

  void Clear() {
    rows_.clear();
    recency_.clear();
  }

  // In order of signs.
  Rows Scan() const {
    Rows rows;
    for (const auto& [sign, entry] : rows_) rows.emplace_back(sign, entry.row);
    return rows;
  }

  const TableCounters& counters() const { return counters_; }

 private:
  struct Entry {
    Values row;
    std::list<uint64_t>::iterator place;  // in the recency list
  };

  bool Admits(uint64_t sign, uint64_t request) {
    const bool admits = Rng(RandomKey(RandomKey(options_.seed, sign), request)).Uniform() < options_.admit_probability;
    counters_.refused += !admits;
    return admits;
  }

  // Makes the sign the most recent row, a new one if need be.
  void Use(uint64_t sign, uint64_t* inserts) {
    const auto found = rows_.find(sign);
    if (found != rows_.end()) {
      recency_.splice(recency_.end(), recency_, found->second.place);
      return;
    }
    if (rows_.size() == options_.capacity_rows) {
      rows_.erase(recency_.front());
      recency_.pop_front();
      ++counters_.evictions;
    }
    Values row(optimizer_.row_width());
    InitializeRow(options_.initializer, options_.seed, sign, row.data(), options_.dim);
    optimizer_.InitState(row.data());
    recency_.push_back(sign);
    rows_[sign] = {row, std::prev(recency_.end())};
    if (inserts != nullptr) ++*inserts;
  }

  const TableOptions options_;
  const RowOptimizer optimizer_;
  std::list<uint64_t> recency_;  // least recent first
  std::map<uint64_t, Entry> rows_;
  TableCounters counters_;
};

}  // namespace persia
