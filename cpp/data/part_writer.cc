#include "data/part_writer.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace persia {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;

// A view on the columns of a text chunk: ids, dense, labels, then perhaps the one of the split.
ChunkView ViewOf(const TextChunk& text, const DecoderOptions& columns) {
  ChunkView view;
  view.rows = text.rows();
  size_t next = 0;
  const auto take = [&] {
    const auto& column = text.columns[next++];
    return ColumnView{ValueKind::kText, column.data(), nullptr, column.size(), nullptr, nullptr};
  };
  for (size_t i = 0; i < columns.ids.size(); ++i) view.ids.push_back(take());
  for (size_t i = 0; i < columns.dense.size(); ++i) view.dense.push_back(take());
  for (size_t i = 0; i < columns.labels.size(); ++i) view.labels.push_back(take());
  if (columns.split) view.split = take();
  return view;
}

// The name of the i-th wanted column, in the order of ViewOf.
const std::string& ColumnName(const DecoderOptions& columns, size_t i) {
  if (i < columns.ids.size()) return columns.ids[i].name;
  i -= columns.ids.size();
  if (i < columns.dense.size()) return columns.dense[i].name;
  i -= columns.dense.size();
  return i < columns.labels.size() ? columns.labels[i].name : columns.split->name;
}

// A file that is read from front to back.
class SequentialFile {
 public:
  SequentialFile(const std::string& path, uint64_t position)
      : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), position_(position), buffer_(kReadBytes) {}
  ~SequentialFile() {
    if (fd_ >= 0) close(fd_);
  }
  SequentialFile(const SequentialFile&) = delete;
  SequentialFile& operator=(const SequentialFile&) = delete;

  // The next bytes; none at the end of the file.
  Result<std::span<const uint8_t>> Next() {
    ssize_t bytes = -1;
    do {
      if (fd_ >= 0) bytes = pread(fd_, buffer_.data(), buffer_.size(), static_cast<off_t>(position_));
    } while (bytes < 0 && fd_ >= 0 && errno == EINTR);
    if (bytes < 0) {
      return Status(fd_ < 0 ? ErrorCode::kDataNotFound : ErrorCode::kIo,
                    "cannot read " + path_ + ": " + std::strerror(errno))
          .With("file", path_);
    }
    position_ += static_cast<uint64_t>(bytes);
    return std::span<const uint8_t>(buffer_.data(), static_cast<size_t>(bytes));
  }

 private:
  const std::string path_;
  const int fd_;
  uint64_t position_;
  std::vector<uint8_t> buffer_;
};

}  // namespace

void DataCard::Add(const ChunkDecoder& rows, uint32_t first, uint32_t last) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const ChunkDecoder::Ids& from = rows.ids()[i];
    for (uint32_t row = first; row < last; ++row) ids[i].missing += from.offsets[row] == from.offsets[row + 1];
    for (uint32_t at = from.offsets[first]; at < from.offsets[last]; ++at) ids[i].distinct.Add(Mix64(from.ids[at]));
    ids[i].ids += from.offsets[last] - from.offsets[first];
  }
  for (size_t i = 0; i < dense.size(); ++i) {
    for (uint32_t row = first; row < last; ++row) {
      const double raw = rows.dense_raw()[row * dense.size() + i];
      if (std::isnan(raw)) continue;
      const bool is_first = dense[i].moments.count == 0;
      dense[i].least = is_first ? raw : std::min(dense[i].least, raw);
      dense[i].most = is_first ? raw : std::max(dense[i].most, raw);
      dense[i].moments.Add(raw);
    }
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    for (uint32_t row = first; row < last; ++row) {
      const float label = rows.labels()[row * labels.size() + i];
      labels[i].sum += label;
      labels[i].positive += label >= 0.5f;
    }
  }
}

PartWriter::PartWriter(PartOptions options) : options_(std::move(options)), decoder_(options_.columns) {
  for (const DenseColumnOptions& column : options_.columns.dense) {
    PERSIA_CHECK(column.transform == Transform::kNone && !column.missing);
  }
  sides_[kTrain] = std::make_unique<OneSide>(options_.train_path, options_);
  if (!options_.test_path.empty()) sides_[kTest] = std::make_unique<OneSide>(options_.test_path, options_);
}

Status PartWriter::Push(const ChunkView& chunk, uint32_t from, uint32_t end) {
  PERSIA_CHECK(from <= end && end <= chunk.rows);
  decoder_.Decode(chunk);
  std::vector<BadPartRow> bad = DescribeBadRows();
  std::erase_if(bad, [&](const BadPartRow& row) { return row.line < from || row.line >= end; });
  for (BadPartRow& row : bad) row.line += lines_ - from + 1;
  const uint64_t count = bad.size();
  NoteBad(count, std::move(bad));
  PERSIA_RETURN_IF_ERROR(Append(from, end));
  lines_ += end - from;
  return Status::Ok();
}

Status PartWriter::PushText(TextRows* text, uint64_t limit) {
  while (!stopped_) {
    const TextChunk& chunk = text->Next(limit);
    if (chunk.rows() == 0 && chunk.bad.empty()) break;
    PERSIA_RETURN_IF_ERROR(TakeText(chunk));
  }
  return Status::Ok();
}

Status PartWriter::PushFile(const std::string& path, const TextFormat& format, uint64_t begin, uint64_t end,
                            bool is_line, uint32_t skip_lines) {
  // From one byte before: if that ends a line, the next one begins right at `begin`.
  const uint64_t from = begin - (is_line ? 0 : 1);
  TextRows text(format, from);
  SequentialFile file(path, from);
  uint32_t skipped = 0;
  const uint32_t to_skip = skip_lines + (is_line ? 0 : 1);
  for (bool more = true; more && !stopped_;) {
    const auto bytes = file.Next();
    if (!bytes.ok()) return bytes.status();
    more = !bytes.value().empty();
    if (more) text.Push(bytes.value());
    if (!more) text.End();
    while (skipped < to_skip && text.SkipLine()) {
      ++skipped;
      if (skipped == to_skip - skip_lines) begin_ = text.position();
    }
    if (to_skip == skip_lines) begin_ = begin;
    if (skipped < to_skip) continue;
    PERSIA_RETURN_IF_ERROR(PushText(&text, end));
    more = more && text.position() < end;
  }
  end_ = std::max(text.position(), begin_);
  lines_ = text.lines();
  if (is_line) return Status::Ok();
  lines_ -= std::min<uint64_t>(lines_, 1);  // the rest of a line of the part before
  for (BadPartRow& row : bad_) --row.line;
  return Status::Ok();
}

Status PartWriter::TakeText(const TextChunk& text) {
  decoder_.Decode(ViewOf(text, options_.columns));
  std::vector<BadPartRow> bad;
  for (const BadLine& line : text.bad) {
    const bool whole = line.wanted == BadLine::kWholeLine;
    bad.push_back({line.line, whole ? "" : ColumnName(options_.columns, line.wanted), "", line.reason});
  }
  for (BadPartRow& row : DescribeBadRows()) {
    row.line = text.lines[row.line];
    bad.push_back(std::move(row));
  }
  std::stable_sort(bad.begin(), bad.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
  rows_ += text.bad.size();
  NoteBad(decoder_.bad_count() + text.bad.size(), std::move(bad));
  return Append(0, text.rows());
}

// The bad rows of the chunk that was decoded; their lines are rows of the chunk.
std::vector<BadPartRow> PartWriter::DescribeBadRows() {
  std::vector<BadPartRow> bad;
  if (decoder_.bad_count() == 0) return bad;
  for (BadRow& row : decoder_.DescribeBadRows(decoder_.bad_count())) {
    bad.push_back({row.row, std::move(row.column), std::move(row.value), std::move(row.reason)});
  }
  return bad;
}

void PartWriter::NoteBad(uint64_t count, std::vector<BadPartRow> rows) {
  bad_count_ += count;
  stopped_ = stopped_ || (options_.stop_at_bad_row && count > 0);
  for (BadPartRow& row : rows) {
    if (bad_.size() < options_.most_reports) bad_.push_back(std::move(row));
  }
}

// Appends the good rows [from, end) of the decoded chunk to their sides, in runs.
Status PartWriter::Append(uint32_t from, uint32_t end) {
  const uint64_t first_number = rows_;
  rows_ += end - from;
  const auto& is_bad = decoder_.is_bad();
  for (uint32_t first = from; first < end;) {
    if (is_bad[first]) {
      ++first;
      continue;
    }
    const Side side = SideOf(first, first_number + (first - from));
    uint32_t last = first + 1;
    while (last < end && !is_bad[last] && SideOf(last, first_number + (last - from)) == side) ++last;
    PERSIA_RETURN_IF_ERROR(sides_[side]->writer.Append(decoder_, first, last));
    sides_[side]->card.Add(decoder_, first, last);
    first = last;
  }
  return Status::Ok();
}

PartWriter::Side PartWriter::SideOf(uint32_t row, uint64_t number) const {
  if (options_.share) return IsTest(options_.share->key, number, options_.share->test_share) ? kTest : kTrain;
  return options_.columns.split && decoder_.is_test()[row] ? kTest : kTrain;
}

Status PartWriter::Finish() {
  for (const Side side : {kTrain, kTest}) {
    if (!sides_[side]) continue;
    auto shard = sides_[side]->writer.Finish();
    if (!shard.ok()) return shard.status();
    shards_[side] = std::move(*shard);
  }
  return Status::Ok();
}

}  // namespace persia
