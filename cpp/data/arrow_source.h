// An Arrow file as a source of rows. ArrowSource gives its blocks, decompressed and checked; ArrowRows the wanted
// columns of any rows as chunks, in the layout that ChunkDecoder reads.
//
//   ArrowFile ─► ArrowSource: the block that was loaded last is shared ─► ArrowRows: dictionaries, lists, values ─► chunk
//
// Thread-safety: ArrowSource may be shared; ArrowRows is externally synchronised.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "batch/chunk.h"
#include "data/arrow_file.h"
#include "data/arrow_values.h"

namespace persia {

class ArrowSource {
 public:
  // kDataNotFound, kDataUnreadable; messages speak of `name`.
  static Result<std::shared_ptr<ArrowSource>> Open(const std::string& path, const std::string& name);

  explicit ArrowSource(ArrowFile file);

  const ArrowFile& file() const { return file_; }
  uint64_t rows() const { return file_.rows(); }

  // The block that row `row`, < rows(), is in, and its first row.
  size_t BlockOf(uint64_t row) const;
  uint64_t first_row(size_t block) const { return first_rows_[block]; }

  // The columns of a block that are wanted; their offsets may be followed.
  Result<std::shared_ptr<const ArrowBlock>> Load(size_t block, const std::vector<bool>& wanted);

  // What DuckDB calls the type of a column, such as VARCHAR or BIGINT[]; of a type that is not read, its number.
  static std::string TypeName(const ArrowField& field);

 private:
  const ArrowFile file_;
  std::vector<uint64_t> first_rows_;

  std::mutex mutex_;
  // Guarded by mutex_: several readers are mostly in the same block.
  size_t last_ = SIZE_MAX;
  std::vector<bool> last_wanted_;
  std::weak_ptr<const ArrowBlock> last_block_;  // who reads it keeps it
};

// A column that is read, and as what; lists as lists of it.
struct ArrowWanted {
  uint32_t column = 0;
  ValueKind kind = ValueKind::kText;
};

struct ArrowLayout {
  std::vector<ArrowWanted> ids;
  std::vector<ArrowWanted> dense;
  std::vector<ArrowWanted> labels;
  std::optional<ArrowWanted> split;
};

class ArrowRows {
 public:
  // The columns can be read as these kinds (ArrowValues::CanRead); only ids may be lists.
  ArrowRows(std::shared_ptr<ArrowSource> source, const ArrowLayout& layout);

  const ArrowSource& source() const { return *source_; }

  // Rows [first, first + count), all of which are there; valid until the next call. kDataUnreadable, kOutOfMemory.
  Result<const ChunkView*> Read(uint64_t first, uint32_t count);

 private:
  struct Column {
    ArrowWanted wanted;
    std::shared_ptr<ArrowValues> dictionary;  // as it holds for the block
    ArrowValues values;
    std::vector<uint64_t> entries;  // of lists
    PresenceBits has_list;
  };

  Status Enter(size_t block);
  Status ReadDictionary(Column* column);
  Status Append(Column* column, uint64_t begin, uint64_t count) const;
  Status AppendValues(Column* column, const ArrowField& field, const ArrowColumn& from, uint64_t begin,
                      uint64_t count) const;
  void AppendEntries(Column* column, const ArrowField& field, const ArrowColumn& from, uint64_t begin,
                     uint64_t count) const;
  ColumnView ViewOf(const Column& column) const;
  Status Wrong(const ArrowField& field, const std::string& what) const;

  const std::shared_ptr<ArrowSource> source_;
  std::vector<std::unique_ptr<Column>> columns_;  // ids, dense, labels, split
  std::vector<bool> wanted_;                      // by field
  ChunkView view_;

  std::shared_ptr<const ArrowBlock> block_;
  size_t block_number_ = SIZE_MAX;
  size_t dictionaries_ = 0;  // those that `dictionary` of the columns was made of
  // What texts lie in: those of the chunk, and those of dictionaries.
  std::vector<std::shared_ptr<const void>> read_;
  std::vector<std::shared_ptr<const void>> dictionary_memory_;
};

}  // namespace persia
