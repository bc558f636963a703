// TextRows: splits the text of a CSV or TSV file into rows and fields, as it comes, and hands them on as chunks.
//
//   Push ─► text, with the places of all delimiters, quotes and line ends ─► Next: up to kChunkRows rows as columns
//
// The rules are RFC 4180's, as DuckDB's reader has them: lines end in \n or \r\n, a field may be quoted and then hold
// anything (a quote is doubled), blank lines are left out unless there is one column only. A line that cannot be split,
// is too long, or is not UTF-8 in a field that is wanted is a bad line: it is told, and the next line is read as usual.
// A quote inside of a field that doesn't begin with one stands for itself.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "batch/chunk.h"

namespace persia {

struct TextFormat {
  char delimiter = ',';
  uint32_t columns = 0;          // of a line
  std::vector<uint32_t> wanted;  // the columns to hand on, in this order
};

// A line that is left out, and why.
struct BadLine {
  static constexpr uint32_t kWholeLine = UINT32_MAX;

  uint64_t line = 0;
  uint32_t wanted = kWholeLine;  // place among the wanted columns
  std::string reason;
};

// Some rows; valid until the next call of the TextRows that they come from.
struct TextChunk {
  std::vector<std::vector<TextRecord>> columns;  // (wanted columns, rows)
  std::vector<uint64_t> lines;                   // (rows), from 1 at the first line that was pushed
  std::vector<BadLine> bad;                      // met among these rows

  uint32_t rows() const { return static_cast<uint32_t>(lines.size()); }
};

class TextRows {
 public:
  static constexpr uint32_t kChunkRows = 2048;
  static constexpr size_t kMostLineBytes = 2'000'000;

  // The text begins at byte `position` of its file.
  TextRows(TextFormat format, uint64_t position);

  // More of the text. A byte order mark at position 0 is left out.
  void Push(std::span<const uint8_t> bytes);
  // The text is complete: a last line needs no line end.
  void End() { ended_ = true; }

  // The next rows that begin before byte `limit` of the file, as many as there are whole lines for. Empty, without bad
  // lines: push more, or there are none.
  const TextChunk& Next(uint64_t limit = UINT64_MAX);

  // Leaves out the next line, a header or the rest of a line that began elsewhere; false: push more first.
  bool SkipLine();

  // The byte of the file at which the next row begins, and how many lines came before it.
  uint64_t position() const { return position_ + begin_; }
  uint64_t lines() const { return lines_; }

 private:
  enum class Outcome { kRow, kBlank, kBad, kIncomplete };
  struct Field {
    uint32_t begin = 0, end = 0;
    bool has_doubled_quotes = false;
  };

  void Index(size_t from);
  Outcome ReadRow();
  Outcome ReadFields();
  Outcome ReadQuoted(Field* field);
  Outcome RowOf(size_t count);
  Outcome Bad(std::string reason);
  Outcome BadUpTo(size_t mark, std::string reason);
  size_t LineEnd(size_t mark) const;
  Outcome SkipToLineEnd();
  bool AppendRow(TextChunk* chunk);
  std::string_view ValueOf(const Field& field);

  const TextFormat format_;
  std::string text_;               // what was pushed and not yet read, and kSlack bytes more
  size_t text_bytes_ = 0;
  std::vector<uint32_t> marks_;    // places of delimiters, quotes and line ends in text_
  uint64_t position_;              // of text_[0] in the file
  size_t begin_ = 0;               // of the next row in text_
  size_t mark_ = 0;                // the first mark at or behind it
  bool ended_ = false;
  bool skipping_ = false;          // in a line that is too long: until its end
  uint64_t lines_ = 0;

  std::vector<Field> fields_;      // of the row being read
  size_t next_ = 0;                // where it ends, and the first mark behind
  size_t next_mark_ = 0;
  std::string reason_;
  std::deque<std::string> unquoted_;  // values of the chunk that are not in the text as they are
  TextChunk chunk_;
};

}  // namespace persia
