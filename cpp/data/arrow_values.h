// ArrowValues: values of Arrow columns, brought into the layout of a chunk (batch/chunk.h), one kind for all.
//
// Texts stay where they are, what is written for other types is kept here. Numbers, dates and times become the texts
// that DuckDB makes of them, so that an Arrow file gives the same ids as the same values in a Parquet file.
//
// Thread-safety: thread-confined.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "batch/chunk.h"
#include "data/arrow_file.h"

namespace persia {

// Bits of which most are set: bit i cleared, i is missing.
class PresenceBits {
 public:
  void Clear() {
    words_.clear();
    size_ = 0;
    all_ = true;
  }
  void Append(bool present) {
    if (size_ % 64 == 0) words_.push_back(0);
    words_.back() |= uint64_t{present} << (size_ % 64);
    ++size_;
    all_ = all_ && present;
  }
  bool operator[](uint64_t i) const { return ((words_[i / 64] >> (i % 64)) & 1) != 0; }

  // As in ColumnView: null when all are there.
  const uint64_t* view() const { return all_ ? nullptr : words_.data(); }

 private:
  std::vector<uint64_t> words_;
  uint64_t size_ = 0;
  bool all_ = true;
};

class ArrowValues {
 public:
  // Whether values of this type can be had as this kind. Lists: ask for their values.
  static bool CanRead(const ArrowField& field, ValueKind kind);

  void Clear(ValueKind kind);

  // Values [begin, begin + count) of a column without a dictionary, whose offsets are checked. False: one of the texts
  // is not UTF-8, or lies outside of its buffers.
  bool Append(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count);

  // The values of `dictionary`, which has the same kind and stays as it is, at the places that a column holds. False:
  // there is no such place.
  bool AppendFrom(const ArrowValues& dictionary, const ArrowField& field, const ArrowColumn& column, uint64_t begin,
                  uint64_t count);

  uint64_t size() const { return words_.size() / width(); }

  // Of the values so far, without entries; valid until the next change.
  ColumnView view() const { return {kind_, words_.data(), present_.view(), size(), nullptr, nullptr}; }

 private:
  using MadeText = std::array<char, 40>;

  size_t width() const { return kind_ == ValueKind::kText ? sizeof(TextRecord) / sizeof(uint64_t) : 1; }
  template <typename Put>
  bool Each(const ArrowColumn& column, uint64_t begin, uint64_t count, Put put);
  template <typename Offset>
  bool AppendTexts(const ArrowColumn& column, uint64_t begin, uint64_t count);
  bool AppendViews(const ArrowColumn& column, uint64_t begin, uint64_t count);
  bool AppendIntegers(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count);
  bool AppendFloats(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count);

  void PutMissing();
  bool PutText(std::string_view text);
  void PutMade(const MadeText& text, const char* end);
  void PutWord(uint64_t word);
  template <typename T>
  bool PutInteger(T value);
  template <typename T>
  bool PutFloat(T value);
  bool PutBool(bool value);

  ValueKind kind_ = ValueKind::kText;
  std::vector<uint64_t> words_;  // TextRecords, doubles or integers
  PresenceBits present_;
  std::deque<MadeText> made_;  // texts that don't fit into their records
};

}  // namespace persia
