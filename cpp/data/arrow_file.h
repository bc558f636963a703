// ArrowFile: a file of Apache Arrow's IPC format, mapped, its columns viewed in place.
//
//   "ARROW1" 0 0 | schema | record batches, each [-1 | i32 bytes | metadata | body] | end | footer | i32 | "ARROW1"
//
// Nothing that the file says is believed: magic, footer, metadata, buffers and their lengths are checked when it is
// opened, so that a view never leaves the file. What only the values can tell, that offsets of lists and texts never
// fall, CheckOffsets tells for one block; whoever follows offsets calls it first. Files with compressed buffers,
// unions, views or run-end encoding are refused.
//
// Thread-safety: immutable once open.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/mapped_file.h"

namespace persia {

// Numbers of Arrow's Type union (Schema.fbs).
enum class ArrowTypeId : uint8_t {
  kNull = 1, kInt = 2, kFloat = 3, kBinary = 4, kUtf8 = 5, kBool = 6, kDecimal = 7, kDate = 8, kTime = 9,
  kTimestamp = 10, kInterval = 11, kList = 12, kStruct = 13, kUnion = 14, kFixedSizeBinary = 15, kFixedSizeList = 16,
  kMap = 17, kDuration = 18, kLargeBinary = 19, kLargeUtf8 = 20, kLargeList = 21,
};

struct ArrowField {
  std::string name;
  ArrowTypeId type = ArrowTypeId::kNull;
  uint32_t bits = 0;       // of a value: integers and floats; 0 for other types
  bool is_signed = false;  // integers
  bool has_dictionary = false;  // the values are places in the dictionary of this number; type is that of its values
  int64_t dictionary = 0;
  std::vector<ArrowField> children;

  bool is_plain(ArrowTypeId wanted, uint32_t wanted_bits, bool wanted_sign) const {
    return type == wanted && bits == wanted_bits && is_signed == wanted_sign && !has_dictionary;
  }
};

// One column of a block, or the values of a list.
struct ArrowColumn {
  uint64_t rows = 0;
  uint64_t null_count = 0;
  std::span<const uint8_t> validity;  // bit i cleared: row i is null; empty: none is
  std::span<const uint8_t> offsets;   // (rows + 1) i32 or i64: lists and texts
  std::span<const uint8_t> values;    // (rows) values; for texts the characters
  std::vector<ArrowColumn> children;

  bool is_null(uint64_t row) const {
    return !validity.empty() && ((validity[row / 8] >> (row % 8)) & 1) == 0;
  }
  template <typename T>
  const T* values_as() const {
    return reinterpret_cast<const T*>(values.data());
  }
  template <typename T>
  const T* offsets_as() const {
    return reinterpret_cast<const T*>(offsets.data());
  }
};

// A record batch.
struct ArrowBlock {
  uint64_t rows = 0;
  std::vector<ArrowColumn> columns;  // in the order of the fields
  std::span<const uint8_t> body;
};

class ArrowFile {
 public:
  // kDataNotFound; kDataUnreadable with the file's name and what is wrong.
  static Result<ArrowFile> Open(const std::string& path);

  // Of bytes in memory that outlive the file.
  static Result<ArrowFile> Parse(std::span<const uint8_t> bytes, const std::string& name);

  const std::vector<ArrowField>& fields() const { return fields_; }
  const std::vector<ArrowBlock>& blocks() const { return blocks_; }
  uint64_t rows() const { return rows_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  const std::shared_ptr<const MappedFile>& mapping() const { return mapping_; }

 private:
  friend class ArrowParser;

  ArrowFile() = default;

  std::shared_ptr<const MappedFile> mapping_;  // null after Parse
  std::span<const uint8_t> bytes_;
  std::vector<ArrowField> fields_;
  std::vector<ArrowBlock> blocks_;
  uint64_t rows_ = 0;
};

// Whether the offsets of a column, and of the lists in it, start at 0 or later, never fall and end within its values.
bool CheckOffsets(const ArrowField& field, const ArrowColumn& column);

}  // namespace persia
