// What the table's tests share: options of a table whose rows are sums, and whether it holds a sign.
#pragma once

#include <cstdint>
#include <vector>

#include "table/table.h"

namespace persia {

using Signs = std::vector<uint64_t>;
using Values = std::vector<float>;

// Zeros at the start and plain SGD with rate 1: a row is minus the sum of its gradients.
inline TableOptions SumOptions(uint32_t dim, uint64_t capacity_rows) {
  return {.dim = dim,
          .optimizer = {.type = RowOptimizerType::kSgd, .lr = 1.0f},
          .initializer = {.type = InitializerType::kZeros},
          .capacity_rows = capacity_rows};
}

inline bool Holds(const Table& table, uint64_t sign) {
  Values row(table.row_width());
  return table.Read(sign, row.data());
}

}  // namespace persia
