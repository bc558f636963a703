// ChunkView: some rows of a data source, column by column, as views on the reader's vectors.
//
// The layout is that of DuckDB's vectors, so that a chunk costs no conversion: a text is a 16-byte record that holds
// short texts in itself, a missing value is a cleared bit, a list is a range of the values behind it.
//
// Thread-safety: immutable views; whoever makes one keeps the memory alive.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace persia {

// One text in DuckDB's in-memory format, little-endian:
//
//   bytes   0..3      4..7      8..15
//           length    text[0..12)            length <= 12
//           length    prefix    pointer      length > 12
struct TextRecord {
  static constexpr uint32_t kInlineBytes = 12;

  uint32_t length;
  char inlined[4];
  union {
    char more_inlined[8];
    const char* pointer;
  };

  std::string_view view() const {
    return {length <= kInlineBytes ? reinterpret_cast<const char*>(this) + sizeof(length) : pointer, length};
  }
};
static_assert(sizeof(TextRecord) == 16);

enum class ValueKind { kText, kNumber, kInteger };  // TextRecord | double | uint64_t

// One column of a chunk: a value for each row, or with `entries` a list of values for each row.
struct ColumnView {
  ValueKind kind = ValueKind::kText;
  const void* values = nullptr;         // (value_count) of the kind's type
  const uint64_t* validity = nullptr;   // bit i cleared: value i is missing; null: all are there
  uint64_t value_count = 0;             // (rows) without entries
  const uint64_t* entries = nullptr;    // (rows, 2): first value and number of values of each row; or null
  const uint64_t* entry_validity = nullptr;  // bit i cleared: row i has no list; null: all have one

  static bool Present(const uint64_t* bits, uint64_t i) {
    return bits == nullptr || ((bits[i / 64] >> (i % 64)) & 1) != 0;
  }

  std::string_view text(uint64_t i) const { return static_cast<const TextRecord*>(values)[i].view(); }
  double number(uint64_t i) const { return static_cast<const double*>(values)[i]; }
  uint64_t integer(uint64_t i) const { return static_cast<const uint64_t*>(values)[i]; }
};

struct ChunkView {
  uint32_t rows = 0;
  std::vector<ColumnView> ids;     // (features)
  std::vector<ColumnView> dense;   // (dense columns), no lists
  std::vector<ColumnView> labels;  // (labels), no lists
  ColumnView split = {};           // the column that a split goes by, no list; unused without one
};

}  // namespace persia
