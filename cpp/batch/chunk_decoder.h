// ChunkDecoder: turns the columns of a chunk into ids, dense values and labels, and finds the rows that cannot be
// taken.
//
// It works column by column into scratch that is kept from chunk to chunk; strings are made only for the few bad rows
// that are reported. What a text means is defined here once, for every file format: which texts are missing, what a
// number is.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "batch/chunk.h"

namespace persia {

enum class IdEncoding {
  kHash,     // HashId of the text
  kInteger,  // the integer itself, negative ones in two's complement
};

struct IdColumnOptions {
  std::string name;
  IdEncoding encoding = IdEncoding::kHash;
  std::string separator;  // splits a text into several ids, empty parts are no ids; "": a text is one id
  uint32_t slice_begin = 0;           // of a text that is not missing only the bytes [slice_begin, slice_end) count;
  uint32_t slice_end = UINT32_MAX;    // a text that ends before them is empty
};

enum class Transform { kNone, kLog1p, kStandardize };  // x | sign(x) ln(1 + |x|) | (x - mean) / stddev

struct DenseColumnOptions {
  std::string name;
  Transform transform = Transform::kNone;
  double mean = 0;
  double stddev = 1;              // 0 counts as 1
  std::optional<double> missing;  // stands for a missing value before the transform; without it the result is 0
};

// A raw value after the column's transform.
double ApplyTransform(const DenseColumnOptions& options, double raw);

struct LabelColumnOptions {
  std::string name;
  std::optional<std::string> positive;  // this text is 1, any other 0; without it labels are numbers
  bool probability = false;             // the label must lie in [0, 1]
};

// Divides rows into training and test data by the value of a column.
struct SplitOptions {
  enum class By { kHash, kTime };
  std::string name;
  By by = By::kHash;
  double test_share = 0;               // kHash: of all values; those of a value are on one side
  uint64_t key = 0;                    // kHash: another key divides in another way
  std::optional<double> from_number;   // kTime: rows with this value or a later one are test data,
  std::string from_text;               // compared as numbers, or without from_number as texts, byte by byte
};

// Whether the thing with this hash is in the test data, of which a share is.
inline bool IsTest(uint64_t key, uint64_t hash, double test_share) {
  return Rng(RandomKey(key, hash)).Uniform() < test_share;
}

struct DecoderOptions {
  std::vector<IdColumnOptions> ids;
  std::vector<DenseColumnOptions> dense;
  std::vector<LabelColumnOptions> labels;
  std::vector<std::string> missing;  // texts that mean "no value" in every column
  std::optional<SplitOptions> split;
};

// A row that cannot be taken, and why; `reason` is a sentence for people that quotes the value.
struct BadRow {
  uint32_t row = 0;  // in its chunk
  std::string column;
  std::string value;  // "" when it is missing; shortened when it is long
  std::string reason;
};

class ChunkDecoder {
 public:
  explicit ChunkDecoder(DecoderOptions options);

  // Decodes all rows of a chunk that has the columns of the options.
  void Decode(const ChunkView& chunk);

  // The outcome, valid until the next Decode. Values of bad rows are unspecified.
  struct Ids {
    std::vector<uint64_t> ids;
    std::vector<uint32_t> offsets;  // (rows + 1)
  };
  const std::vector<Ids>& ids() const { return ids_; }
  const std::vector<float>& dense() const { return dense_; }        // (rows, dense columns)
  const std::vector<double>& dense_raw() const { return dense_raw_; }  // same shape, before transforms; NaN: missing
  const std::vector<float>& labels() const { return labels_; }      // (rows, labels)
  const std::vector<uint8_t>& is_bad() const { return is_bad_; }    // (rows)
  const std::vector<uint8_t>& is_test() const { return is_test_; }  // (rows) by the split; empty without one
  uint32_t bad_count() const { return static_cast<uint32_t>(problems_.size()); }

  // The first `most` bad rows, in order. Reads the chunk's memory.
  std::vector<BadRow> DescribeBadRows(size_t most);

  const DecoderOptions& options() const { return options_; }

 private:
  enum class ProblemKind { kNoInteger, kNoNumber, kNotFinite, kLabelMissing, kLabelNoNumber, kLabelRange,
                           kSplitMissing };
  struct Problem {
    uint32_t row;
    ProblemKind kind;
    const std::string* column;
    std::string_view text;  // of the chunk; empty when the value is a number
    double number;
  };

  void DecodeIds(const ColumnView& column, const IdColumnOptions& options, uint32_t rows, Ids* out);
  void AppendValue(const ColumnView& column, uint64_t i, const IdColumnOptions& options, uint32_t row, Ids* out);
  void AppendText(std::string_view text, const IdColumnOptions& options, uint32_t row, Ids* out);
  void DecodeDense(const ColumnView& column, size_t index, uint32_t rows);
  void DecodeLabels(const ColumnView& column, size_t index, uint32_t rows);
  void DecodeSplit(const ColumnView& column, const SplitOptions& options, uint32_t rows);
  bool IsLate(const ColumnView& column, const SplitOptions& options, std::string_view text, uint32_t row);

  bool IsMissing(std::string_view text) const;
  void MarkBad(uint32_t row, ProblemKind kind, const std::string& column, std::string_view text, double number = 0);
  static BadRow Describe(const Problem& problem);

  const DecoderOptions options_;
  std::vector<Ids> ids_;
  std::vector<float> dense_;
  std::vector<double> dense_raw_;
  std::vector<float> labels_;
  std::vector<uint8_t> is_bad_;
  std::vector<uint8_t> is_test_;
  std::vector<Problem> problems_;  // the first one of each bad row
};

}  // namespace persia
