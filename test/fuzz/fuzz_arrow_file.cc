// Fuzz target of ArrowFile: whatever a file holds, it is refused or every view lies within it.
//
// An input is a file. Of one that is taken, all values are read in the way that PreparedData reads them; the address
// sanitizer sees a view that leaves the file.
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/hash.h"
#include "data/arrow_file.h"

namespace persia {
namespace {

constexpr uint64_t kMostRows = 100'000;

uint64_t Touch(std::span<const uint8_t> bytes) { return Xxh64(bytes.data(), bytes.size()); }

// Reads a column as its type says, so far as the reader of prepared data knows the type.
uint64_t ReadColumn(const ArrowField& field, const ArrowColumn& column) {
  uint64_t sum = Touch(column.validity) + Touch(column.offsets) + Touch(column.values);
  if (column.rows > kMostRows) return sum;  // of types without values there may be any number
  for (uint64_t row = 0; row < column.rows; ++row) sum += column.is_null(row);
  if (field.is_plain(ArrowTypeId::kInt, 64, false)) {
    for (uint64_t row = 0; row < column.rows; ++row) sum += column.values_as<uint64_t>()[row];
  } else if (field.is_plain(ArrowTypeId::kFloat, 32, false)) {
    for (uint64_t row = 0; row < column.rows; ++row) sum += column.values_as<float>()[row] > 0;
  } else if (field.type == ArrowTypeId::kList && !field.has_dictionary) {
    const auto* ends = column.offsets_as<int32_t>();
    const ArrowColumn& values = column.children[0];
    const bool is_read = field.children[0].is_plain(ArrowTypeId::kInt, 64, false);
    for (uint64_t row = 0; row < column.rows; ++row) {
      for (int32_t i = ends[row]; i < ends[row + 1]; ++i) sum += is_read ? values.values_as<uint64_t>()[i] : 1;
    }
  }
  for (size_t i = 0; i < column.children.size(); ++i) sum += ReadColumn(field.children[i], column.children[i]);
  return sum;
}

void CheckInput(const uint8_t* data, size_t bytes) {
  // Aligned as a mapping is.
  AlignedBuffer<uint8_t> copy(bytes + 1);
  std::memcpy(copy.data(), data, bytes);
  const auto file = ArrowFile::Parse({copy.data(), bytes}, "input");
  if (!file.ok()) return;
  uint64_t rows = 0;
  for (const ArrowBlock& block : file.value().blocks()) {
    rows += block.columns.empty() ? 0 : block.rows;
    if (rows > 4 * kMostRows) break;
    PERSIA_CHECK(block.columns.size() == file.value().fields().size());
    for (size_t i = 0; i < block.columns.size(); ++i) {
      if (!CheckOffsets(file.value().fields()[i], block.columns[i])) continue;
      volatile uint64_t sum = ReadColumn(file.value().fields()[i], block.columns[i]);
      static_cast<void>(sum);
    }
  }
}

}  // namespace
}  // namespace persia

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  persia::CheckInput(data, bytes);
  return 0;
}
