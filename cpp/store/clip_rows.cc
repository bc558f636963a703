#include "store/clip_rows.h"

#include <cmath>
#include <cstddef>

#include "base/cpu.h"

namespace persia {
namespace {

struct ClipRow {
  static PERSIA_ALWAYS_INLINE void Run(uint32_t count, uint32_t dim, float norm, float* rows) {
    constexpr uint32_t kLanes = 8;
    for (float* row = rows; row != rows + size_t{count} * dim; row += dim) {
      float squares[kLanes] = {}, sum = 0.0f;
      uint32_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) squares[lane] += row[d + lane] * row[d + lane];
      }
      for (const float square : squares) sum += square;
      for (; d < dim; ++d) sum += row[d] * row[d];
      if (!(sum > norm * norm)) continue;
      const float scale = norm / std::sqrt(sum);
      for (d = 0; d < dim; ++d) row[d] *= scale;
    }
  }
};

}  // namespace

void ClipRows(uint32_t count, uint32_t dim, float norm, float* rows) {
  if (norm > 0.0f) RunBestSimd<ClipRow>(count, dim, norm, rows);
}

}  // namespace persia
