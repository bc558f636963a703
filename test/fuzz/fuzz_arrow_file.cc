// Fuzz target of ArrowFile and ArrowRows: whatever a file or stream holds, it is refused or every view lies within it.
//
// An input is a file. Of one that is taken, all values are read in the way that PreparedData reads them, and all columns
// that can be had as ids as chunks for a decoder; the address sanitizer sees a view that leaves the file.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/hash.h"
#include "data/arrow_file.h"
#include "data/arrow_source.h"

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

uint64_t ReadValues(const ColumnView& column, uint32_t rows) {
  uint64_t sum = 0;
  for (uint32_t row = 0; row < rows; ++row) {
    const uint64_t first = column.entries == nullptr ? row : column.entries[2 * row];
    const uint64_t count = column.entries == nullptr ? 1 : column.entries[2 * row + 1];
    PERSIA_CHECK(first <= column.value_count && count <= column.value_count - first);
    for (uint64_t i = first; i < first + count; ++i) {
      if (!ColumnView::Present(column.validity, i)) continue;
      sum += column.kind == ValueKind::kText ? Xxh64(column.text(i).data(), column.text(i).size()) : column.integer(i);
    }
  }
  return sum;
}

// Every column as every kind that it can be read as.
void ReadRows(ArrowFile file) {
  ArrowLayout layout;
  for (uint32_t i = 0; i < file.fields().size(); ++i) {
    const ArrowField& field = file.fields()[i];
    if (ArrowSource::TypeName(field).starts_with("NULL")) continue;
    const bool is_list = ArrowSource::TypeName(field).ends_with("[]");
    for (const ValueKind kind : {ValueKind::kText, ValueKind::kNumber, ValueKind::kInteger}) {
      if (ArrowValues::CanRead(is_list ? field.children[0] : field, kind)) layout.ids.push_back({i, kind});
    }
  }
  const auto source = std::make_shared<ArrowSource>(std::move(file));
  ArrowRows rows(source, layout);
  constexpr uint32_t kRows = 64;
  for (uint64_t first = 0; first < std::min<uint64_t>(source->rows(), 10 * kRows); first += kRows) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(kRows, source->rows() - first));
    const auto chunk = rows.Read(first, count);
    if (!chunk.ok()) return;
    for (const ColumnView& column : chunk.value()->ids) {
      volatile uint64_t sum = ReadValues(column, count);
      static_cast<void>(sum);
    }
  }
}

void CheckInput(const uint8_t* data, size_t bytes) {
  // Aligned as a mapping is.
  AlignedBuffer<uint8_t> copy(bytes + 1);
  std::memcpy(copy.data(), data, bytes);
  auto file = ArrowFile::Parse({copy.data(), bytes}, "input");
  if (!file.ok()) return;
  uint64_t rows = 0;
  for (const ArrowBlock& block : file.value().blocks()) {
    rows += block.columns.empty() ? 0 : block.rows;
    if (rows > 4 * kMostRows) break;
    if (block.codec != ArrowCodec::kNone) continue;
    PERSIA_CHECK(block.columns.size() == file.value().fields().size());
    for (size_t i = 0; i < block.columns.size(); ++i) {
      if (!CheckOffsets(file.value().fields()[i], block.columns[i])) continue;
      volatile uint64_t sum = ReadColumn(file.value().fields()[i], block.columns[i]);
      static_cast<void>(sum);
    }
  }
  ReadRows(std::move(*file));
}

}  // namespace
}  // namespace persia

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  persia::CheckInput(data, bytes);
  return 0;
}
