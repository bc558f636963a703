#include "batch/chunk_decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "batch/parse_number.h"

namespace persia {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// At most 64 bytes of a text, cut between UTF-8 characters.
std::string Shorten(std::string_view text) {
  constexpr size_t kMostBytes = 64;
  if (text.size() <= kMostBytes) return std::string(text);
  size_t bytes = kMostBytes;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  return std::string(text.substr(0, bytes)) + "…";
}

std::string FormatNumber(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", number);
  return text;
}

}  // namespace

double ApplyTransform(const DenseColumnOptions& options, double raw) {
  switch (options.transform) {
    case Transform::kNone:
      return raw;
    case Transform::kLog1p:
      return std::copysign(std::log1p(std::fabs(raw)), raw);
    case Transform::kStandardize:
      return (raw - options.mean) / (options.stddev == 0 ? 1 : options.stddev);
  }
  return raw;
}

ChunkDecoder::ChunkDecoder(DecoderOptions options) : options_(std::move(options)), ids_(options_.ids.size()) {}

void ChunkDecoder::Decode(const ChunkView& chunk) {
  PERSIA_CHECK(chunk.ids.size() == options_.ids.size());
  PERSIA_CHECK(chunk.dense.size() == options_.dense.size());
  PERSIA_CHECK(chunk.labels.size() == options_.labels.size());
  problems_.clear();
  is_bad_.assign(chunk.rows, 0);
  labels_.resize(chunk.rows * chunk.labels.size());
  dense_.resize(chunk.rows * chunk.dense.size());
  dense_raw_.resize(dense_.size());
  for (size_t i = 0; i < chunk.labels.size(); ++i) DecodeLabels(chunk.labels[i], i, chunk.rows);
  for (size_t i = 0; i < chunk.dense.size(); ++i) DecodeDense(chunk.dense[i], i, chunk.rows);
  for (size_t i = 0; i < chunk.ids.size(); ++i) DecodeIds(chunk.ids[i], options_.ids[i], chunk.rows, &ids_[i]);
  if (options_.split) DecodeSplit(chunk.split, *options_.split, chunk.rows);
}

void ChunkDecoder::DecodeIds(const ColumnView& column, const IdColumnOptions& options, uint32_t rows, Ids* out) {
  PERSIA_CHECK(column.kind == ValueKind::kText ||
               (column.kind == ValueKind::kInteger && options.encoding == IdEncoding::kInteger));
  out->ids.clear();
  out->offsets.clear();
  out->offsets.push_back(0);
  for (uint32_t row = 0; row < rows; ++row) {
    if (column.entries == nullptr) {
      AppendValue(column, row, options, row, out);
    } else if (ColumnView::Present(column.entry_validity, row)) {
      const uint64_t first = column.entries[2 * row];
      const uint64_t count = column.entries[2 * row + 1];
      PERSIA_CHECK(first <= column.value_count && count <= column.value_count - first);
      for (uint64_t i = first; i < first + count; ++i) AppendValue(column, i, options, row, out);
    }
    PERSIA_CHECK(out->ids.size() <= std::numeric_limits<uint32_t>::max());
    out->offsets.push_back(static_cast<uint32_t>(out->ids.size()));
  }
}

void ChunkDecoder::AppendValue(const ColumnView& column, uint64_t i, const IdColumnOptions& options, uint32_t row,
                               Ids* out) {
  if (!ColumnView::Present(column.validity, i)) return;
  if (column.kind == ValueKind::kInteger) {
    out->ids.push_back(column.integer(i));
    return;
  }
  std::string_view text = column.text(i);
  if (IsMissing(text)) return;
  text = text.substr(std::min<size_t>(options.slice_begin, text.size()), options.slice_end - options.slice_begin);
  if (options.separator.empty()) return AppendText(text, options, row, out);
  for (;;) {
    const size_t end = text.find(options.separator);
    const std::string_view part = text.substr(0, end);
    if (!part.empty()) AppendText(part, options, row, out);
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + options.separator.size());
  }
}

void ChunkDecoder::AppendText(std::string_view text, const IdColumnOptions& options, uint32_t row, Ids* out) {
  if (IsMissing(text)) return;
  if (options.encoding == IdEncoding::kHash) {
    out->ids.push_back(HashId(text));
  } else if (const std::optional<uint64_t> id = ParseInteger(text)) {
    out->ids.push_back(*id);
  } else {
    MarkBad(row, ProblemKind::kNoInteger, options.name, text);
  }
}

void ChunkDecoder::DecodeDense(const ColumnView& column, size_t index, uint32_t rows) {
  const DenseColumnOptions& options = options_.dense[index];
  const float when_missing = options.missing ? static_cast<float>(ApplyTransform(options, *options.missing)) : 0;
  const size_t stride = options_.dense.size();
  for (uint32_t row = 0; row < rows; ++row) {
    float& out = dense_[row * stride + index];
    double& raw = dense_raw_[row * stride + index];
    const bool is_text = column.kind == ValueKind::kText;
    const std::string_view text =
        is_text && ColumnView::Present(column.validity, row) ? column.text(row) : std::string_view();
    if (!ColumnView::Present(column.validity, row) || (is_text && IsMissing(text))) {
      raw = kMissing;
      out = when_missing;
      continue;
    }
    const std::optional<double> value = is_text ? ParseNumber(text) : column.number(row);
    if (!value) {
      MarkBad(row, ProblemKind::kNoNumber, options.name, text);
      continue;
    }
    raw = *value;
    out = static_cast<float>(ApplyTransform(options, *value));
    if (!std::isfinite(out)) MarkBad(row, ProblemKind::kNotFinite, options.name, text, *value);
  }
}

void ChunkDecoder::DecodeLabels(const ColumnView& column, size_t index, uint32_t rows) {
  const LabelColumnOptions& options = options_.labels[index];
  const size_t stride = options_.labels.size();
  for (uint32_t row = 0; row < rows; ++row) {
    const bool is_text = column.kind == ValueKind::kText;
    const bool present = ColumnView::Present(column.validity, row);
    const std::string_view text = is_text && present ? column.text(row) : std::string_view();
    float& out = labels_[row * stride + index];
    if (!present || (is_text && IsMissing(text))) {
      MarkBad(row, ProblemKind::kLabelMissing, options.name, {});
      continue;
    }
    if (options.positive) {
      PERSIA_CHECK(is_text);
      out = text == *options.positive ? 1 : 0;
      continue;
    }
    const std::optional<double> value = is_text ? ParseNumber(text) : column.number(row);
    if (!value) {
      MarkBad(row, ProblemKind::kLabelNoNumber, options.name, text);
      continue;
    }
    out = static_cast<float>(*value);
    if (options.probability && !(*value >= 0 && *value <= 1)) {
      MarkBad(row, ProblemKind::kLabelRange, options.name, text, *value);
    } else if (!std::isfinite(out)) {
      MarkBad(row, ProblemKind::kNotFinite, options.name, text, *value);
    }
  }
}

void ChunkDecoder::DecodeSplit(const ColumnView& column, const SplitOptions& options, uint32_t rows) {
  is_test_.assign(rows, 0);
  for (uint32_t row = 0; row < rows; ++row) {
    const bool is_text = column.kind == ValueKind::kText;
    const bool present = ColumnView::Present(column.validity, row);
    std::string_view text = is_text && present ? column.text(row) : std::string_view();
    const bool missing = !present || (is_text && IsMissing(text));
    if (options.by == SplitOptions::By::kHash) {
      PERSIA_CHECK(is_text);
      is_test_[row] = IsTest(options.key, HashId(missing ? std::string_view() : text), options.test_share);
    } else if (missing) {
      MarkBad(row, ProblemKind::kSplitMissing, options.name, {});
    } else {
      is_test_[row] = IsLate(column, options, text, row);
    }
  }
}

bool ChunkDecoder::IsLate(const ColumnView& column, const SplitOptions& options, std::string_view text, uint32_t row) {
  if (!options.from_number) return text >= options.from_text;
  const std::optional<double> value = column.kind == ValueKind::kText ? ParseNumber(text) : column.number(row);
  if (!value) MarkBad(row, ProblemKind::kNoNumber, options.name, text);
  return value && *value >= *options.from_number;
}

bool ChunkDecoder::IsMissing(std::string_view text) const {
  for (const std::string& missing : options_.missing) {
    if (text == missing) return true;
  }
  return false;
}

void ChunkDecoder::MarkBad(uint32_t row, ProblemKind kind, const std::string& column, std::string_view text,
                           double number) {
  if (is_bad_[row]) return;
  is_bad_[row] = 1;
  problems_.push_back({row, kind, &column, text, number});
}

std::vector<BadRow> ChunkDecoder::DescribeBadRows(size_t most) {
  std::sort(problems_.begin(), problems_.end(), [](const Problem& a, const Problem& b) { return a.row < b.row; });
  std::vector<BadRow> rows;
  for (size_t i = 0; i < problems_.size() && i < most; ++i) rows.push_back(Describe(problems_[i]));
  return rows;
}

BadRow ChunkDecoder::Describe(const Problem& problem) {
  const bool is_number = problem.text.data() == nullptr;
  BadRow bad{problem.row, *problem.column, is_number ? FormatNumber(problem.number) : Shorten(problem.text), ""};
  const std::string quoted = is_number ? bad.value : '"' + bad.value + '"';
  switch (problem.kind) {
    case ProblemKind::kNoInteger:
      bad.reason = quoted + " is not an integer of 64 bits";
      break;
    case ProblemKind::kNoNumber:
      bad.reason = quoted + " is not a number";
      break;
    case ProblemKind::kNotFinite:
      bad.reason = quoted + " is not a finite number in the range of float32";
      break;
    case ProblemKind::kLabelMissing:
      bad.value.clear();
      bad.reason = "the label is missing";
      break;
    case ProblemKind::kSplitMissing:
      bad.value.clear();
      bad.reason = "the value that divides training and test data is missing";
      break;
    case ProblemKind::kLabelNoNumber:
      bad.reason = quoted + " is not a number. For a text label name the text that means 1, such as " +
                   "labels: [{column: " + bad.column + ", positive: " + quoted + "}]";
      break;
    case ProblemKind::kLabelRange:
      bad.reason = quoted + " is not between 0 and 1, as the loss bce needs";
      break;
  }
  return bad;
}

}  // namespace persia
