// ArrowFile: a file or a stream of Apache Arrow's IPC format, mapped, its columns viewed in place.
//
//   file    "ARROW1" 0 0 | schema | messages | end | footer: schema, places of the messages | i32 | "ARROW1"
//   stream  schema | messages | end
//
// A message is a record batch, or values of a dictionary: [-1 | i32 bytes | metadata | body]. A stream ends with an
// empty message; one without it counts as cut off.
//
// Nothing that the file says is believed: magic, footer, metadata, buffers and their lengths are checked when it is
// opened, so that a view never leaves the file. What only the values can tell, that offsets of lists and texts never
// fall, CheckOffsets tells for one block; whoever follows offsets calls it first. Blocks with compressed buffers have
// no columns until they are loaded. Unions, views of lists and run-end encoding are refused.
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
  kMap = 17, kDuration = 18, kLargeBinary = 19, kLargeUtf8 = 20, kLargeList = 21, kRunEnd = 22, kBinaryView = 23,
  kUtf8View = 24,
};

struct ArrowField {
  std::string name;
  ArrowTypeId type = ArrowTypeId::kNull;
  uint32_t bits = 0;       // of a value: integers and floats; 0 for other types
  bool is_signed = false;  // integers
  uint32_t unit = 0;            // dates and timestamps: Arrow's DateUnit or TimeUnit
  bool has_zone = false;        // timestamps
  uint32_t list_size = 0;       // lists of a fixed size
  bool has_dictionary = false;  // the values are places in the dictionary of this number; type is that of its values
  int64_t dictionary = 0;
  uint32_t index_bits = 32;     // of the places
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
  std::span<const uint8_t> values;    // (rows) values, or places in the dictionary; for texts the characters
  std::vector<std::span<const uint8_t>> pieces;  // of text views, whose values are 16 bytes each: what they point into
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

enum class ArrowCodec : uint8_t { kNone, kLz4, kZstd };

// A record batch, or some values of a dictionary as its only column.
struct ArrowBlock {
  uint64_t rows = 0;
  std::vector<ArrowColumn> columns;  // in the order of the fields; none while they are compressed
  std::span<const uint8_t> body;
  std::span<const uint8_t> metadata;
  ArrowCodec codec = ArrowCodec::kNone;
  size_t dictionaries = 0;  // how many of the file's dictionaries hold for it, from the first one on
  std::vector<std::unique_ptr<uint8_t[]>> memory;  // of buffers that were compressed
};

// Values of the dictionary with a number: all of them, or more behind those before.
struct ArrowDictionary {
  int64_t id = 0;
  bool is_delta = false;
  ArrowField field;
  ArrowBlock block;
};

class ArrowFile {
 public:
  // kDataNotFound; kDataUnreadable with the file's name and what is wrong.
  // `name` is that in messages; the path unless given.
  static Result<ArrowFile> Open(const std::string& path, const std::string& name = "");

  // Of bytes in memory, on a boundary of 8, that outlive the file.
  static Result<ArrowFile> Parse(std::span<const uint8_t> bytes, const std::string& name);

  const std::vector<ArrowField>& fields() const { return fields_; }
  const std::vector<ArrowBlock>& blocks() const { return blocks_; }
  const std::vector<ArrowDictionary>& dictionaries() const { return dictionaries_; }
  uint64_t rows() const { return rows_; }

  // A block of this file with these fields, decompressed as far as columns are wanted (those left out are empty then).
  // kDataUnreadable, kOutOfMemory.
  Result<ArrowBlock> Load(const ArrowBlock& block, std::span<const ArrowField> fields,
                          const std::vector<bool>& wanted) const;

  const std::string& name() const { return name_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  const std::shared_ptr<const MappedFile>& mapping() const { return mapping_; }

 private:
  friend class ArrowParser;

  ArrowFile() = default;

  std::shared_ptr<const MappedFile> mapping_;  // null after Parse
  std::span<const uint8_t> bytes_;
  std::string name_;
  std::vector<ArrowField> fields_;
  std::vector<ArrowBlock> blocks_;
  std::vector<ArrowDictionary> dictionaries_;
  uint64_t rows_ = 0;
};

// Whether the offsets of a column, and of the lists in it, start at 0 or later, never fall and end within its values.
bool CheckOffsets(const ArrowField& field, const ArrowColumn& column);

}  // namespace persia
