// PartWriter: turns a part of a data source into shards, one of training and one of test rows, and counts what is in
// them.
//
//   rows as text ─► TextRows ─► chunks ─┐
//   chunks of DuckDB or of Arrow files ─┴► ChunkDecoder ─► split ─► ShardWriter, DataCard   (train)
//                                                              └──► ShardWriter, DataCard   (test)
//
// What a part holds follows from the source and the options alone, so that a part which is written again has the same
// bytes.
//
// Thread-safety: externally synchronised; any thread may call, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/hyperloglog.h"
#include "batch/batcher.h"
#include "batch/chunk_decoder.h"
#include "data/shard_writer.h"
#include "data/text_rows.h"

namespace persia {

// What is in the rows of a shard, column by column.
struct DataCard {
  struct Id {
    HyperLogLog distinct;  // of Mix64 of the ids
    uint64_t ids = 0;
    uint64_t missing = 0;  // rows without an id
  };
  struct Dense {
    Moments moments;
    double least = 0;
    double most = 0;
  };
  struct Label {
    double sum = 0;
    uint64_t positive = 0;  // rows of 0.5 or more
  };

  DataCard(size_t id_count, size_t dense_count, size_t label_count)
      : ids(id_count), dense(dense_count), labels(label_count) {}

  // Rows [first, last) of a decoded chunk.
  void Add(const ChunkDecoder& rows, uint32_t first, uint32_t last);

  std::vector<Id> ids;
  std::vector<Dense> dense;
  std::vector<Label> labels;
};

struct PartOptions {
  DecoderOptions columns;  // dense columns without transforms, and without values for missing ones
  ShardColumns shard_columns;
  std::string train_path;  // of the shards
  std::string test_path;   // "" without test rows
  std::optional<ShareSplit> share;  // rows count from 0 in the part, bad ones included
  bool stop_at_bad_row = false;  // nothing is read behind one
  uint32_t most_reports = 5;     // bad rows that are described
};

// A row that was left out. `line` counts from 1 at the first row, or line, of the part.
struct BadPartRow {
  uint64_t line = 0;
  std::string column;  // "" when the row could not be split
  std::string value;
  std::string reason;
};

class PartWriter {
 public:
  enum Side { kTrain, kTest };

  explicit PartWriter(PartOptions options);

  // Rows [from, end) of a chunk.
  Status Push(const ChunkView& chunk, uint32_t from, uint32_t end);

  // The rows of `text` that are complete and begin before byte `limit` of the file.
  Status PushText(TextRows* text, uint64_t limit);

  // The lines of a file that begin in its bytes [begin, end): the part of a plain file. Unless `is_line`, begin may be
  // anywhere in a line, which then belongs to the part before. The first `skip_lines` are left out.
  Status PushFile(const std::string& path, const TextFormat& format, uint64_t begin, uint64_t end, bool is_line,
                  uint32_t skip_lines);

  // Writes the shards. Nothing is pushed afterwards.
  Status Finish();

  bool stopped() const { return stopped_; }
  uint64_t rows() const { return rows_; }  // taken, bad ones included
  uint64_t lines() const { return lines_; }
  uint64_t bad_count() const { return bad_count_; }
  const std::vector<BadPartRow>& bad() const { return bad_; }  // the first ones, in order
  uint64_t begin() const { return begin_; }  // PushFile: where the first row begins, and where the first one behind
  uint64_t end() const { return end_; }
  const ShardFile& shard(Side side) const { return shards_[side]; }
  bool has(Side side) const { return sides_[side] != nullptr; }
  const DataCard& card(Side side) const { return sides_[side]->card; }

 private:
  struct OneSide {
    OneSide(std::string path, const PartOptions& options)
        : writer(std::move(path), options.shard_columns),
          card(options.columns.ids.size(), options.columns.dense.size(), options.columns.labels.size()) {}
    ShardWriter writer;
    DataCard card;
  };

  Status TakeText(const TextChunk& text);
  Status Append(uint32_t from, uint32_t end);
  Side SideOf(uint32_t row, uint64_t number) const;
  void NoteBad(uint64_t count, std::vector<BadPartRow> rows);
  std::vector<BadPartRow> DescribeBadRows();

  const PartOptions options_;
  ChunkDecoder decoder_;
  std::unique_ptr<OneSide> sides_[2];  // by Side; no test side without test rows
  ShardFile shards_[2];
  bool stopped_ = false;
  uint64_t rows_ = 0;
  uint64_t lines_ = 0;
  uint64_t bad_count_ = 0;
  std::vector<BadPartRow> bad_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

}  // namespace persia
