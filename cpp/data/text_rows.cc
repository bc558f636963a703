#include "data/text_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/status.h"
#include "base/utf8.h"

namespace persia {
namespace {

constexpr size_t kSlack = 64;  // readable bytes behind the text: blocks and short texts are loaded whole
constexpr char kLongLine[] = "the line is longer than 2 MB";
constexpr char kBrokenQuote[] = "a quoted value does not end, or has text behind its closing quote";

// Bit i: byte i of the 64 at `text` is a delimiter, a quote or a line end.
uint64_t MarksOf(const char* text, char delimiter) {
#if defined(__SSE2__)
  uint64_t marks = 0;
  for (int i = 0; i < 4; ++i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text) + i);
    const __m128i found = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(delimiter)),
                                                    _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\n'))),
                                       _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
    marks |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(found))) << (16 * i);
  }
  return marks;
#else
  uint64_t marks = 0;
  for (int i = 0; i < 64; ++i) {
    marks |= static_cast<uint64_t>(text[i] == delimiter || text[i] == '\n' || text[i] == '"') << i;
  }
  return marks;
#endif
}

TextRecord RecordOf(std::string_view text) {
  TextRecord record;
  record.length = static_cast<uint32_t>(text.size());
  if (text.size() <= TextRecord::kInlineBytes) {
    std::memcpy(record.inlined, text.data(), sizeof(record.inlined));  // within the slack
    std::memcpy(record.more_inlined, text.data() + sizeof(record.inlined), sizeof(record.more_inlined));
  } else {
    std::memcpy(record.inlined, text.data(), sizeof(record.inlined));
    record.pointer = text.data();
  }
  return record;
}

}  // namespace

TextRows::TextRows(TextFormat format, uint64_t position) : format_(std::move(format)), position_(position) {
  PERSIA_CHECK(format_.columns > 0);
  for (const uint32_t column : format_.wanted) PERSIA_CHECK(column < format_.columns);
  chunk_.columns.resize(format_.wanted.size());
  fields_.reserve(format_.columns + 1);
}

void TextRows::Push(std::span<const uint8_t> bytes) {
  PERSIA_CHECK(!ended_);
  const size_t left = text_bytes_ - begin_;
  PERSIA_CHECK(left + bytes.size() < UINT32_MAX);
  const std::vector<uint32_t> old = std::move(marks_);
  marks_.clear();
  for (size_t i = mark_; i < old.size(); ++i) marks_.push_back(old[i] - static_cast<uint32_t>(begin_));
  std::string text(left + bytes.size() + kSlack, '\0');
  std::memcpy(text.data(), text_.data() + begin_, left);
  std::memcpy(text.data() + left, bytes.data(), bytes.size());
  text_ = std::move(text);
  text_bytes_ = left + bytes.size();
  position_ += begin_;
  begin_ = mark_ = 0;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  Index(left);
  if (position_ == 0 && std::string_view(text_.data(), text_bytes_).starts_with(kByteOrderMark)) {
    begin_ = kByteOrderMark.size();
  }
}

// Notes the marks of the text from `from` on.
void TextRows::Index(size_t from) {
  for (size_t block = from; block < text_bytes_; block += 64) {
    uint64_t marks = MarksOf(text_.data() + block, format_.delimiter);
    if (text_bytes_ - block < 64) marks &= (uint64_t{1} << (text_bytes_ - block)) - 1;
    for (; marks != 0; marks &= marks - 1) {
      marks_.push_back(static_cast<uint32_t>(block + static_cast<size_t>(std::countr_zero(marks))));
    }
  }
}

const TextChunk& TextRows::Next(uint64_t limit) {
  for (auto& column : chunk_.columns) column.clear();
  chunk_.lines.clear();
  chunk_.bad.clear();
  unquoted_.clear();
  while (chunk_.rows() < kChunkRows && chunk_.bad.size() < kChunkRows && (position() < limit || skipping_)) {
    const Outcome outcome = ReadRow();
    if (outcome == Outcome::kIncomplete) break;
    ++lines_;
    if (outcome == Outcome::kBad) chunk_.bad.push_back({lines_, BadLine::kWholeLine, std::exchange(reason_, {})});
    if (outcome == Outcome::kRow && AppendRow(&chunk_)) chunk_.lines.push_back(lines_);
    begin_ = next_;
    mark_ = next_mark_;
  }
  return chunk_;
}

bool TextRows::SkipLine() {
  const size_t mark = LineEnd(mark_);
  if (mark == marks_.size() && !ended_) return false;
  const bool found = mark < marks_.size();
  lines_ += found || begin_ < text_bytes_;
  begin_ = found ? marks_[mark] + 1 : text_bytes_;
  mark_ = found ? mark + 1 : mark;
  return true;
}

// Reads the row at begin_: next_ and next_mark_ tell where it ends unless it is incomplete.
TextRows::Outcome TextRows::ReadRow() {
  if (skipping_) return SkipToLineEnd();
  if (begin_ == text_bytes_) return Outcome::kIncomplete;
  const Outcome outcome = ReadFields();
  const bool is_long = outcome != Outcome::kIncomplete && next_ - begin_ > kMostLineBytes;
  if (is_long) return Bad(kLongLine);
  if (outcome != Outcome::kIncomplete || text_bytes_ - begin_ <= kMostLineBytes) return outcome;
  // Where a line ends before that, it is a quote that has no end: only its first line is given up.
  const size_t mark = LineEnd(mark_);
  if (mark < marks_.size() && marks_[mark] - begin_ <= kMostLineBytes) return BadUpTo(mark, kBrokenQuote);
  skipping_ = true;
  return SkipToLineEnd();
}

TextRows::Outcome TextRows::SkipToLineEnd() {
  const size_t mark = LineEnd(mark_);
  if (mark == marks_.size() && !ended_) {
    begin_ = text_bytes_;  // nothing of it is needed any more
    mark_ = mark;
    return Outcome::kIncomplete;
  }
  skipping_ = false;
  return BadUpTo(mark, kLongLine);
}

// The first mark from `mark` on that is a line end; the number of marks when there is none.
size_t TextRows::LineEnd(size_t mark) const {
  while (mark < marks_.size() && text_[marks_[mark]] != '\n') ++mark;
  return mark;
}

// The row is bad; it ends at the line end `mark`, or with the text.
TextRows::Outcome TextRows::BadUpTo(size_t mark, std::string reason) {
  const bool found = mark < marks_.size();
  next_ = found ? marks_[mark] + 1 : text_bytes_;
  next_mark_ = found ? mark + 1 : mark;
  reason_ = std::move(reason);
  return Outcome::kBad;
}

TextRows::Outcome TextRows::ReadFields() {
  fields_.clear();
  next_mark_ = mark_;
  size_t at = begin_;
  for (size_t count = 1;; ++count) {
    Field field{static_cast<uint32_t>(at), static_cast<uint32_t>(at), false};
    if (at < text_bytes_ && text_[at] == '"') {
      if (const Outcome outcome = ReadQuoted(&field); outcome != Outcome::kRow) return outcome;
    } else {
      while (next_mark_ < marks_.size() && text_[marks_[next_mark_]] == '"') ++next_mark_;
      if (next_mark_ == marks_.size() && !ended_) return Outcome::kIncomplete;
      field.end = next_mark_ < marks_.size() ? marks_[next_mark_] : static_cast<uint32_t>(text_bytes_);
    }
    const bool at_end = next_mark_ == marks_.size();
    const size_t mark = at_end ? text_bytes_ : marks_[next_mark_];
    const bool more = !at_end && text_[mark] == format_.delimiter;
    if (!more && field.end == mark && field.end > field.begin && text_[mark - 1] == '\r') --field.end;
    if (fields_.size() < format_.columns) fields_.push_back(field);
    next_ = at_end ? text_bytes_ : mark + 1;
    next_mark_ += !at_end;
    if (!more) return RowOf(count);
    at = next_;
  }
}

// What a line of `count` fields is.
TextRows::Outcome TextRows::RowOf(size_t count) {
  const Field& first = fields_.front();
  const bool is_empty = first.begin == first.end && text_[first.begin] != '"';
  if (count == format_.columns) return Outcome::kRow;
  if (count == 1 && is_empty) return Outcome::kBlank;
  return Bad("expected " + std::to_string(format_.columns) + " columns, found " + std::to_string(count));
}

// Reads a quoted field up to the delimiter or line end behind it, where next_mark_ then stands.
TextRows::Outcome TextRows::ReadQuoted(Field* field) {
  size_t mark = next_mark_ + 1;  // behind the opening quote
  field->begin += 1;
  for (;;) {
    while (mark < marks_.size() && text_[marks_[mark]] != '"') ++mark;
    if (mark == marks_.size()) break;
    const bool doubled = marks_[mark] + 1 < text_bytes_ && text_[marks_[mark] + 1] == '"';
    if (!doubled) break;
    field->has_doubled_quotes = true;
    mark += 2;
  }
  // A quote at the very end of what there is may be the first of two.
  const bool unclear = mark == marks_.size() || marks_[mark] + size_t{1} >= text_bytes_;
  if (unclear && !ended_) return Outcome::kIncomplete;
  if (mark == marks_.size()) return BadUpTo(LineEnd(mark_), kBrokenQuote);  // only its first line is given up
  field->end = marks_[mark];
  size_t behind = field->end + size_t{1};
  next_mark_ = mark + 1;
  if (behind == text_bytes_) return Outcome::kRow;
  if (text_[behind] == '\r' && behind + 1 < text_bytes_ && text_[behind + 1] == '\n') ++behind;
  if (text_[behind] == '\r' && behind + 1 == text_bytes_) {
    if (!ended_) return Outcome::kIncomplete;
    next_mark_ = marks_.size();
    return Outcome::kRow;
  }
  if (text_[behind] == format_.delimiter || text_[behind] == '\n') return Outcome::kRow;
  next_mark_ = LineEnd(next_mark_);
  if (next_mark_ == marks_.size() && !ended_) return Outcome::kIncomplete;
  return BadUpTo(next_mark_, kBrokenQuote);
}

TextRows::Outcome TextRows::Bad(std::string reason) {
  reason_ = std::move(reason);
  return Outcome::kBad;
}

// Appends the wanted fields; false, with nothing appended, when one of them is no text.
bool TextRows::AppendRow(TextChunk* chunk) {
  for (uint32_t i = 0; i < format_.wanted.size(); ++i) {
    const std::string_view value = ValueOf(fields_[format_.wanted[i]]);
    if (IsUtf8(value)) {
      chunk->columns[i].push_back(RecordOf(value));
      continue;
    }
    for (uint32_t before = 0; before < i; ++before) chunk->columns[before].pop_back();
    chunk->bad.push_back({lines_, i, "the text is not valid UTF-8"});
    return false;
  }
  return true;
}

std::string_view TextRows::ValueOf(const Field& field) {
  const std::string_view text(text_.data() + field.begin, field.end - field.begin);
  if (!field.has_doubled_quotes) return text;
  std::string& value = unquoted_.emplace_back();
  value.reserve(text.size() + TextRecord::kInlineBytes);
  for (size_t i = 0; i < text.size(); ++i) {
    value.push_back(text[i]);
    if (text[i] == '"') ++i;  // the second of two
  }
  const size_t bytes = value.size();
  value.resize(bytes + TextRecord::kInlineBytes);
  return {value.data(), bytes};
}

}  // namespace persia
