#include "data/shard_writer.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/arrow_file.h"

namespace persia {
namespace {

constexpr char kMagic[8] = {'A', 'R', 'R', 'O', 'W', '1', 0, 0};
constexpr size_t kAlignment = 64;
constexpr uint8_t kZeros[kAlignment] = {};
constexpr int16_t kVersion5 = 4;
constexpr uint8_t kSchemaMessage = 1, kRecordBatchMessage = 3;
constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

constexpr int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Appends a bit to a mask that has `count` of them.
void PushBit(std::vector<uint8_t>* mask, uint64_t count, bool bit) {
  if (count % 8 == 0) mask->push_back(0);
  mask->back() = static_cast<uint8_t>(mask->back() | (bit << (count % 8)));
}

// Starts a message of the stream format; returns the place of its header.
FlatWriter::Place PutMessage(FlatWriter* out, uint8_t kind, int64_t body_bytes) {
  const auto message = out->Table(FlatWriter::kRoot, {2, 1, 4, 8});
  out->Put(message[0], kVersion5);
  out->Put(message[1], kind);
  out->Put(message[3], body_bytes);
  return message[2];
}

// Starts the i-th field of a vector of fields; returns the places of its type and of its children.
std::pair<FlatWriter::Place, FlatWriter::Place> PutField(FlatWriter* out, FlatWriter::Place from,
                                                         const std::string& name, ArrowTypeId type, bool nullable) {
  const auto field = out->Table(from, {4, 1, 1, 4, 0, 4});
  out->Put(field[1], nullable);
  out->Put(field[2], type);
  out->Text(field[0], name);
  return {field[3], field[5]};
}

void PutUint64Type(FlatWriter* out, FlatWriter::Place from) {
  const auto type = out->Table(from, {4, 1});
  out->Put(type[0], int32_t{64});
  out->Put(type[1], false);
}

void PutNumberField(FlatWriter* out, FlatWriter::Place from, const std::string& name, bool nullable) {
  constexpr int16_t kSingle = 1;
  const auto [type, children] = PutField(out, from, name, ArrowTypeId::kFloat, nullable);
  out->Put(out->Table(type, {2})[0], kSingle);
  out->Vector(children, 0, sizeof(uint32_t));
}

void PutIdField(FlatWriter* out, FlatWriter::Place from, const ShardColumns::Id& id) {
  const auto [type, children] = PutField(out, from, id.name, id.is_list ? ArrowTypeId::kList : ArrowTypeId::kInt, true);
  if (!id.is_list) {
    PutUint64Type(out, type);
    out->Vector(children, 0, sizeof(uint32_t));
    return;
  }
  out->Table(type, {});
  const auto child = out->Vector(children, 1, sizeof(uint32_t));
  const auto [item_type, none] = PutField(out, child, "item", ArrowTypeId::kInt, false);
  PutUint64Type(out, item_type);
  out->Vector(none, 0, sizeof(uint32_t));
}

}  // namespace

ShardWriter::ShardWriter(std::string path, ShardColumns columns)
    : path_(std::move(path)),
      columns_(std::move(columns)),
      ids_(columns_.ids.size()),
      numbers_(columns_.dense.size() + columns_.labels.size()) {
  Clear();
}

ShardWriter::~ShardWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink((path_ + ".tmp").c_str());
}

Status ShardWriter::Append(const ChunkDecoder& rows, uint32_t first, uint32_t last) {
  while (first < last) {
    const uint32_t end = std::min(last, first + (kBlockRows - block_rows_));
    for (size_t i = 0; i < ids_.size(); ++i) AppendIds(rows.ids()[i], first, end, i);
    AppendNumbers(rows, first, end);
    block_rows_ += end - first;
    first = end;
    if (block_rows_ == kBlockRows) PERSIA_RETURN_IF_ERROR(FlushBlock());
  }
  return Status::Ok();
}

void ShardWriter::AppendIds(const ChunkDecoder::Ids& from, uint32_t first, uint32_t last, size_t column) {
  IdBuffers& to = ids_[column];
  if (columns_.ids[column].is_list) {
    const int64_t shift = static_cast<int64_t>(to.ids.size()) - from.offsets[first];
    PERSIA_CHECK(to.ids.size() + (from.offsets[last] - from.offsets[first]) <= INT32_MAX);
    for (uint32_t row = first; row < last; ++row) {
      to.offsets.push_back(static_cast<int32_t>(from.offsets[row + 1] + shift));
    }
    to.ids.insert(to.ids.end(), from.ids.begin() + from.offsets[first], from.ids.begin() + from.offsets[last]);
    return;
  }
  for (uint32_t row = first; row < last; ++row) {
    const uint32_t begin = from.offsets[row], count = from.offsets[row + 1] - begin;
    PERSIA_CHECK(count <= 1);
    PushBit(&to.validity, to.ids.size(), count == 1);
    to.ids.push_back(count == 1 ? from.ids[begin] : 0);
    to.null_count += 1 - count;
  }
}

void ShardWriter::AppendNumbers(const ChunkDecoder& rows, uint32_t first, uint32_t last) {
  const size_t dense = columns_.dense.size(), labels = columns_.labels.size();
  for (size_t i = 0; i < dense; ++i) {
    NumberBuffers& to = numbers_[i];
    for (uint32_t row = first; row < last; ++row) {
      const double raw = rows.dense_raw()[row * dense + i];
      const bool missing = std::isnan(raw);
      PushBit(&to.validity, to.values.size(), !missing);
      to.values.push_back(missing ? kMissing : static_cast<float>(raw));
      to.null_count += missing;
    }
  }
  for (size_t i = 0; i < labels; ++i) {
    for (uint32_t row = first; row < last; ++row) {
      numbers_[dense + i].values.push_back(rows.labels()[row * labels + i]);
    }
  }
}

void ShardWriter::Clear() {
  block_rows_ = 0;
  for (size_t i = 0; i < ids_.size(); ++i) {
    ids_[i] = {};
    if (columns_.ids[i].is_list) ids_[i].offsets.push_back(0);
  }
  for (NumberBuffers& column : numbers_) column = {};
}

template <typename Use>
void ShardWriter::EachBuffer(Use use) const {
  const auto validity = [&](const std::vector<uint8_t>& mask, uint64_t null_count) {
    use(mask.data(), null_count > 0 ? mask.size() : 0);
  };
  for (size_t i = 0; i < ids_.size(); ++i) {
    const IdBuffers& column = ids_[i];
    validity(column.validity, column.null_count);
    if (columns_.ids[i].is_list) {
      use(column.offsets.data(), column.offsets.size() * sizeof(int32_t));
      validity({}, 0);  // of the values
    }
    use(column.ids.data(), column.ids.size() * sizeof(uint64_t));
  }
  for (const NumberBuffers& column : numbers_) {
    validity(column.validity, column.null_count);
    use(column.values.data(), column.values.size() * sizeof(float));
  }
}

Status ShardWriter::FlushBlock() {
  if (fd_ < 0) PERSIA_RETURN_IF_ERROR(Begin());
  int64_t body_bytes = 0;
  EachBuffer([&](const void*, size_t bytes) { body_bytes += Aligned(static_cast<int64_t>(bytes)); });
  const int64_t offset = static_cast<int64_t>(file_.bytes);
  PERSIA_RETURN_IF_ERROR(WriteMessage(BlockMetadata(body_bytes)));
  const int64_t metadata_bytes = static_cast<int64_t>(file_.bytes) - offset;
  blocks_.push_back({offset, static_cast<int32_t>(metadata_bytes), body_bytes});
  Xxh64Stream checksum;
  Status status;
  EachBuffer([&](const void* data, size_t bytes) {
    const size_t padding = static_cast<size_t>(Aligned(static_cast<int64_t>(bytes))) - bytes;
    if (status.ok()) status = WriteBody(data, bytes, &checksum);
    if (status.ok()) status = WriteBody(kZeros, padding, &checksum);
  });
  file_.block_checksums.push_back(checksum.Digest());
  file_.rows += block_rows_;
  Clear();
  return status;
}

std::vector<uint8_t> ShardWriter::BlockMetadata(int64_t body_bytes) const {
  constexpr size_t kPairBytes = 16;  // of a node and of a buffer
  FlatWriter out;
  const auto batch = out.Table(PutMessage(&out, kRecordBatchMessage, body_bytes), {8, 4, 4});
  out.Put(batch[0], int64_t{block_rows_});
  std::vector<std::pair<int64_t, int64_t>> nodes, buffers;
  for (size_t i = 0; i < ids_.size(); ++i) {
    nodes.emplace_back(block_rows_, static_cast<int64_t>(ids_[i].null_count));
    if (columns_.ids[i].is_list) nodes.emplace_back(static_cast<int64_t>(ids_[i].ids.size()), 0);
  }
  for (const NumberBuffers& column : numbers_) {
    nodes.emplace_back(block_rows_, static_cast<int64_t>(column.null_count));
  }
  int64_t at = 0;
  EachBuffer([&](const void*, size_t bytes) {
    buffers.emplace_back(at, static_cast<int64_t>(bytes));
    at += Aligned(static_cast<int64_t>(bytes));
  });
  for (const auto& [field, pairs] : {std::pair(batch[1], &nodes), std::pair(batch[2], &buffers)}) {
    const auto first = out.Vector(field, pairs->size(), kPairBytes);
    for (size_t i = 0; i < pairs->size(); ++i) {
      out.Put(first + i * kPairBytes, (*pairs)[i].first);
      out.Put(first + i * kPairBytes + sizeof(int64_t), (*pairs)[i].second);
    }
  }
  return out.bytes();
}

void ShardWriter::PutSchema(FlatWriter* out, FlatWriter::Place from) const {
  const auto schema = out->Table(from, {2, 4});
  const size_t dense = columns_.dense.size();
  const auto first = out->Vector(schema[1], ids_.size() + numbers_.size(), sizeof(uint32_t));
  const auto place = [&](size_t i) { return first + i * sizeof(uint32_t); };
  for (size_t i = 0; i < ids_.size(); ++i) PutIdField(out, place(i), columns_.ids[i]);
  for (size_t i = 0; i < numbers_.size(); ++i) {
    const bool is_dense = i < dense;
    PutNumberField(out, place(ids_.size() + i), is_dense ? columns_.dense[i] : columns_.labels[i - dense], is_dense);
  }
}

Result<ShardFile> ShardWriter::Finish() {
  if (block_rows_ > 0) PERSIA_RETURN_IF_ERROR(FlushBlock());
  if (file_.rows == 0) return file_;
  PERSIA_RETURN_IF_ERROR(End());
  PERSIA_RETURN_IF_ERROR(Close());
  file_.frame_checksum = frame_.Digest();
  return file_;
}

Status ShardWriter::Begin() {
  fd_ = open((path_ + ".tmp").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) return Failed("cannot create");
  PERSIA_RETURN_IF_ERROR(WriteFrame(kMagic, sizeof(kMagic)));
  FlatWriter out;
  PutSchema(&out, PutMessage(&out, kSchemaMessage, 0));
  return WriteMessage(out.bytes());
}

// The end of the stream, and the footer.
Status ShardWriter::End() {
  constexpr uint32_t kEnd[2] = {UINT32_MAX, 0};
  constexpr size_t kBlockBytes = 24;
  PERSIA_RETURN_IF_ERROR(WriteFrame(kEnd, sizeof(kEnd)));
  FlatWriter out;
  const auto footer = out.Table(FlatWriter::kRoot, {2, 4, 4, 4});
  out.Put(footer[0], kVersion5);
  PutSchema(&out, footer[1]);
  out.Vector(footer[2], 0, kBlockBytes);
  const auto first = out.Vector(footer[3], blocks_.size(), kBlockBytes);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const auto block = first + i * kBlockBytes;
    out.Put(block, blocks_[i].offset);
    out.Put(block + 8, blocks_[i].metadata_bytes);
    out.Put(block + 16, blocks_[i].body_bytes);
  }
  const auto footer_bytes = static_cast<int32_t>(out.bytes().size());
  PERSIA_RETURN_IF_ERROR(WriteFrame(out.bytes().data(), out.bytes().size()));
  PERSIA_RETURN_IF_ERROR(WriteFrame(&footer_bytes, sizeof(footer_bytes)));
  return WriteFrame(kMagic, 6);  // without the padding
}

Status ShardWriter::Close() {
  if (fsync(fd_) != 0) return Failed("cannot sync");
  if (close(std::exchange(fd_, -1)) != 0) return Failed("cannot close");
  if (rename((path_ + ".tmp").c_str(), path_.c_str()) != 0) return Failed("cannot rename to");
  return Status::Ok();
}

// A message without its body, which then starts at a multiple of kAlignment.
Status ShardWriter::WriteMessage(const std::vector<uint8_t>& metadata) {
  const int64_t start = static_cast<int64_t>(file_.bytes) + 8;
  const int64_t padded = Aligned(start + static_cast<int64_t>(metadata.size())) - start;
  const uint32_t head[2] = {UINT32_MAX, static_cast<uint32_t>(padded)};
  PERSIA_RETURN_IF_ERROR(WriteFrame(head, sizeof(head)));
  PERSIA_RETURN_IF_ERROR(WriteFrame(metadata.data(), metadata.size()));
  return WriteFrame(kZeros, static_cast<size_t>(padded) - metadata.size());
}

Status ShardWriter::WriteFrame(const void* data, size_t bytes) {
  frame_.Update(data, bytes);
  return Write(data, bytes);
}

Status ShardWriter::WriteBody(const void* data, size_t bytes, Xxh64Stream* checksum) {
  if (bytes == 0) return Status::Ok();
  checksum->Update(data, bytes);
  return Write(data, bytes);
}

Status ShardWriter::Write(const void* data, size_t bytes) {
  file_.bytes += bytes;
  const auto* next = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("cannot write");
    next += written;
    bytes -= static_cast<size_t>(written);
  }
  return Status::Ok();
}

Status ShardWriter::Failed(const char* what) const {
  return Status(ErrorCode::kIo, std::string(what) + " " + path_ + ": " + std::strerror(errno)).With("file", path_);
}

}  // namespace persia
