#include "dense/product.h"

#include <cstdlib>
#include <mutex>

#include <cblas.h>

// A product packs its operands into a buffer of the library's pool. Built without threads, OpenBLAS looks for a free
// buffer without a lock: two threads can be given the same one, and their products come out wrong. The linker's
// options --wrap=blas_memory_alloc and --wrap=blas_memory_free send the library's own calls through the functions
// below, where a lock, held for tens of nanoseconds a product, makes them safe. Without the options the __real_
// functions don't exist: the mistake is a link error, not a wrong result. They are in this file so that whoever
// multiplies also links them.
//
// OpenBLAS picks its kernels by the CPU's model number when it is loaded. For one that it doesn't know it takes those of
// a Prescott, with vectors of 128 bits, and steps take 2.5 times as long or more: 0.3.21 does so on an Emerald Rapids.
// --wrap=gotoblas_dynamic_init lets us choose then, by what the CPU has.
extern "C" {
void* __real_blas_memory_alloc(int position);
void __real_blas_memory_free(void* buffer);
void __real_gotoblas_dynamic_init(void);
void* __wrap_blas_memory_alloc(int position);
void __wrap_blas_memory_free(void* buffer);
void __wrap_gotoblas_dynamic_init(void);
void gotoblas_dynamic_quit(void);
}

namespace persia {
namespace {

std::mutex blas_memory_mutex;

// Below this many multiply-adds (about 20 us) a second thread costs more than it saves.
constexpr double kSmallestSplit = 1e6;
// Tile edges are multiples of this, so that no tile but the last has a ragged edge in the library's kernels.
constexpr uint32_t kGrain = 16;

// The start of part `part` of `parts` nearly equal runs of [0, count), on the grain.
uint32_t PartStart(uint32_t count, uint32_t part, uint32_t parts) {
  if (part == parts) return count;
  return static_cast<uint32_t>(uint64_t{count} * part / parts / kGrain * kGrain);
}

}  // namespace

const char* KernelsInstead(std::string_view chosen, SimdLevel simd) {
  if (chosen != "Prescott" || simd == SimdLevel::kBaseline) return nullptr;
  return simd == SimdLevel::kAvx512 ? "SkylakeX" : "Haswell";
}

std::string_view ProductKernels() { return openblas_get_corename(); }

TileGrid::TileGrid(uint32_t rows, uint32_t columns, uint32_t inner, uint32_t tiles) : rows_(rows), columns_(columns) {
  if (static_cast<double>(rows) * columns * inner < kSmallestSplit) return;
  // Each tile copies its (tile rows + tile columns) · inner operands into the library's packed form: take the factors
  // of the number of tiles that make this smallest.
  double least = -1;
  for (uint32_t row_parts = 1; row_parts <= tiles; ++row_parts) {
    if (tiles % row_parts != 0) continue;
    const uint32_t column_parts = tiles / row_parts;
    const double packed = static_cast<double>(rows) / row_parts + static_cast<double>(columns) / column_parts;
    const bool fits = row_parts * kGrain <= rows && column_parts * kGrain <= columns;
    if (!fits || (least >= 0 && packed >= least)) continue;
    least = packed;
    row_parts_ = row_parts;
    column_parts_ = column_parts;
  }
}

Tile TileGrid::operator[](uint32_t part) const {
  const uint32_t row_part = part / column_parts_, column_part = part % column_parts_;
  const uint32_t row = PartStart(rows_, row_part, row_parts_);
  const uint32_t column = PartStart(columns_, column_part, column_parts_);
  return {row, PartStart(rows_, row_part + 1, row_parts_) - row, column,
          PartStart(columns_, column_part + 1, column_parts_) - column, row_part};
}

void ComputeTile(const Product& product, const Tile& tile) {
  const auto [form, inner, a, b, c, adds] = product;
  const bool a_transposed = form == ProductForm::kTn, b_transposed = form == ProductForm::kNt;
  cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans, b_transposed ? CblasTrans : CblasNoTrans,
              static_cast<int>(tile.rows), static_cast<int>(tile.columns), static_cast<int>(inner), 1.0f,
              a_transposed ? a.at(0, tile.row) : a.at(tile.row, 0), static_cast<int>(a.stride),
              b_transposed ? b.at(tile.column, 0) : b.at(0, tile.column), static_cast<int>(b.stride),
              adds ? 1.0f : 0.0f, c.at(tile.row, tile.column), static_cast<int>(c.stride));
}

}  // namespace persia

void* __wrap_blas_memory_alloc(int position) {
  std::lock_guard lock(persia::blas_memory_mutex);
  return __real_blas_memory_alloc(position);
}

void __wrap_blas_memory_free(void* buffer) {
  std::lock_guard lock(persia::blas_memory_mutex);
  __real_blas_memory_free(buffer);
}

// Runs while the library is loaded. The variable is the one way to tell OpenBLAS; who has set it knows better.
void __wrap_gotoblas_dynamic_init() {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  __real_gotoblas_dynamic_init();
  const char* instead = persia::KernelsInstead(persia::ProductKernels(), persia::BestSimd());
  if (instead == nullptr || std::getenv(kVariable) != nullptr) return;
  setenv(kVariable, instead, 0);
  gotoblas_dynamic_quit();
  __real_gotoblas_dynamic_init();
  unsetenv(kVariable);
}
