#include "data/arrow_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "data/flat_buffer.h"

namespace persia {
namespace {

constexpr char kMagic[] = {'A', 'R', 'R', 'O', 'W', '1'};
constexpr size_t kHeadBytes = 8;  // magic and padding
constexpr size_t kTailBytes = sizeof(int32_t) + sizeof(kMagic);
constexpr uint8_t kRecordBatchMessage = 3;
constexpr int kMostDepth = 8;         // of nested types
constexpr size_t kMostFields = 65'536;
constexpr int64_t kMostRows = int64_t{1} << 40;

// Bytes of one value in the buffer of a type of fixed width; 0: the type has none.
uint32_t ValueBits(const ArrowField& field) {
  switch (field.type) {
    case ArrowTypeId::kInt:
    case ArrowTypeId::kFloat:
      return field.bits;
    case ArrowTypeId::kBool:
      return 1;
    default:
      return 0;
  }
}

size_t OffsetBytes(ArrowTypeId type) {
  switch (type) {
    case ArrowTypeId::kUtf8:
    case ArrowTypeId::kBinary:
    case ArrowTypeId::kList:
    case ArrowTypeId::kMap:
      return sizeof(int32_t);
    case ArrowTypeId::kLargeUtf8:
    case ArrowTypeId::kLargeBinary:
    case ArrowTypeId::kLargeList:
      return sizeof(int64_t);
    default:
      return 0;
  }
}

bool IsNested(ArrowTypeId type) {
  switch (type) {
    case ArrowTypeId::kList:
    case ArrowTypeId::kLargeList:
    case ArrowTypeId::kMap:
    case ArrowTypeId::kFixedSizeList:
    case ArrowTypeId::kStruct:
      return true;
    default:
      return false;
  }
}

template <typename Offset>
bool NeverFall(const ArrowColumn& column, uint64_t most) {
  const auto* offsets = column.offsets_as<Offset>();
  if (column.offsets.empty()) return true;  // no rows
  bool rises = offsets[0] >= 0;
  for (uint64_t row = 0; row < column.rows; ++row) rises &= offsets[row] <= offsets[row + 1];
  return rises && static_cast<uint64_t>(offsets[column.rows]) <= most;
}

}  // namespace

// Reads the metadata of one file. Every step says what is wrong, once.
class ArrowParser {
 public:
  ArrowParser(std::span<const uint8_t> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Status Parse(ArrowFile* file) {
    if (bytes_.size() < kHeadBytes + kTailBytes || std::memcmp(bytes_.data(), kMagic, sizeof(kMagic)) != 0) {
      return Wrong("it is no Arrow file (Arrow streams have to be written as files)");
    }
    if (std::memcmp(bytes_.data() + bytes_.size() - sizeof(kMagic), kMagic, sizeof(kMagic)) != 0) {
      return Wrong("it is cut off, or damaged at its end");
    }
    int32_t footer_bytes;
    std::memcpy(&footer_bytes, bytes_.data() + bytes_.size() - kTailBytes, sizeof(footer_bytes));
    if (footer_bytes <= 0 || static_cast<size_t>(footer_bytes) > bytes_.size() - kHeadBytes - kTailBytes) {
      return Wrong("its footer has an impossible length");
    }
    const auto footer = bytes_.subspan(bytes_.size() - kTailBytes - footer_bytes, footer_bytes);
    return ParseFooter(FlatTable::Root(footer, &broken_), file);
  }

 private:
  Status Wrong(const std::string& what) const {
    return Status(ErrorCode::kDataUnreadable, name_ + " cannot be read: " + what).With("file", name_);
  }

  Status ParseFooter(const FlatTable& footer, ArrowFile* file) {
    const FlatTable schema = footer.Table(1);
    if (schema.Value<int16_t>(0) != 0) return Wrong("it is big-endian");
    const FlatVector fields = schema.Vector(1, sizeof(uint32_t));
    if (fields.size() > kMostFields) return Wrong("it has too many columns");
    for (size_t i = 0; i < fields.size() && !broken_; ++i) {
      file->fields_.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseField(fields.Table(i), kMostDepth, &file->fields_.back()));
    }
    constexpr size_t kBlockBytes = 24;
    const FlatVector blocks = footer.Vector(3, kBlockBytes);
    for (size_t i = 0; i < blocks.size() && !broken_; ++i) {
      PERSIA_RETURN_IF_ERROR(ParseBlock(blocks.Value<int64_t>(i), blocks.Value<int32_t>(i, 8),
                                        blocks.Value<int64_t>(i, 16), *file));
      file->rows_ += block_.rows;
      file->blocks_.push_back(std::move(block_));
    }
    return broken_ ? Wrong("its metadata is damaged") : Status::Ok();
  }

  Status ParseField(const FlatTable& table, int depth, ArrowField* field) {
    field->name = table.Text(0);
    field->type = static_cast<ArrowTypeId>(table.Value<uint8_t>(2));
    const FlatTable type = table.Table(3);
    if (field->type == ArrowTypeId::kInt) {
      field->bits = static_cast<uint32_t>(type.Value<int32_t>(0));
      field->is_signed = type.Value<uint8_t>(1) != 0;
    } else if (field->type == ArrowTypeId::kFloat) {
      const uint32_t precision = static_cast<uint16_t>(type.Value<int16_t>(0));
      field->bits = precision <= 2 ? 16u << precision : 0;
    }
    const bool has_width = field->type == ArrowTypeId::kInt || field->type == ArrowTypeId::kFloat;
    if (has_width && field->bits != 8 && field->bits != 16 && field->bits != 32 && field->bits != 64) {
      return Wrong("column " + field->name + " has numbers of an unknown width");
    }
    if (field->type == ArrowTypeId::kUnion || field->type > ArrowTypeId::kLargeList) {
      return Wrong("column " + field->name + " has a type that is not known here (number " +
                   std::to_string(static_cast<int>(field->type)) + " of Arrow's)");
    }
    if (const FlatTable dictionary = table.Table(4); dictionary.exists()) {
      field->has_dictionary = true;
      field->dictionary = dictionary.Value<int64_t>(0);
    }
    const FlatVector children = table.Vector(5, sizeof(uint32_t));
    if (children.size() > kMostFields || (children.size() > 0 && depth == 0)) {
      return Wrong("column " + field->name + " is nested too deep");
    }
    const bool is_list = IsNested(field->type) && field->type != ArrowTypeId::kStruct;
    if (is_list && children.size() != 1 && !broken_) return Wrong("a list column without one kind of values");
    for (size_t i = 0; i < children.size() && !broken_; ++i) {
      field->children.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseField(children.Table(i), depth - 1, &field->children.back()));
    }
    return Status::Ok();
  }

  Status ParseBlock(int64_t offset, int32_t metadata_bytes, int64_t body_bytes, const ArrowFile& file) {
    const auto size = static_cast<int64_t>(bytes_.size());
    if (offset < 0 || metadata_bytes < 8 || body_bytes < 0 || offset > size || metadata_bytes > size - offset ||
        body_bytes > size - offset - metadata_bytes) {
      return Wrong("a record batch lies outside of the file");
    }
    // Since format 0.15 a length is behind a marker of four bytes.
    uint32_t marker;
    std::memcpy(&marker, bytes_.data() + offset, sizeof(marker));
    const int64_t head = marker == UINT32_MAX ? 8 : 4;
    const FlatTable message = FlatTable::Root(bytes_.subspan(offset + head, metadata_bytes - head), &broken_);
    if (broken_ || message.Value<uint8_t>(1) != kRecordBatchMessage) return Wrong("its metadata is damaged");
    block_ = {};
    block_.body = bytes_.subspan(offset + metadata_bytes, body_bytes);
    return ParseRecordBatch(message.Table(2), file);
  }

  Status ParseRecordBatch(const FlatTable& batch, const ArrowFile& file) {
    if (batch.Table(3).exists()) return Wrong("its buffers are compressed; write it without compression");
    const int64_t rows = batch.Value<int64_t>(0);
    if (rows < 0 || rows > kMostRows) return Wrong("a record batch has an impossible number of rows");
    block_.rows = static_cast<uint64_t>(rows);
    constexpr size_t kNodeBytes = 16, kBufferBytes = 16;
    const FlatVector nodes = batch.Vector(1, kNodeBytes), buffers = batch.Vector(2, kBufferBytes);
    next_node_ = next_buffer_ = 0;
    for (const ArrowField& field : file.fields_) {
      block_.columns.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseColumn(field, nodes, buffers, &block_.columns.back()));
      if (block_.columns.back().rows != block_.rows) return Wrong("column " + field.name + " has a length of its own");
    }
    return Status::Ok();
  }

  Status ParseColumn(const ArrowField& field, const FlatVector& nodes, const FlatVector& buffers, ArrowColumn* column) {
    if (next_node_ >= nodes.size()) return Wrong("a record batch lacks columns");
    const int64_t rows = nodes.Value<int64_t>(next_node_), nulls = nodes.Value<int64_t>(next_node_, 8);
    ++next_node_;
    if (rows < 0 || rows > kMostRows || nulls < 0 || nulls > rows) {
      return Wrong("column " + field.name + " has an impossible length");
    }
    column->rows = static_cast<uint64_t>(rows);
    column->null_count = static_cast<uint64_t>(nulls);
    if (field.type == ArrowTypeId::kNull && !field.has_dictionary) return Status::Ok();
    PERSIA_RETURN_IF_ERROR(TakeBuffer(field, buffers, nulls > 0 ? (column->rows + 7) / 8 : 0, 1, &column->validity));
    if (nulls == 0) column->validity = {};
    // A column of places in a dictionary is not read here: its values are skipped.
    const ArrowTypeId type = field.has_dictionary ? ArrowTypeId::kFixedSizeBinary : field.type;
    if (const size_t width = OffsetBytes(type); width > 0) {
      const uint64_t count = column->rows == 0 ? 0 : column->rows + 1;
      PERSIA_RETURN_IF_ERROR(TakeBuffer(field, buffers, count * width, width, &column->offsets));
    }
    if (!IsNested(type)) {
      const uint64_t bits = field.has_dictionary ? 0 : ValueBits(field);
      PERSIA_RETURN_IF_ERROR(
          TakeBuffer(field, buffers, (column->rows * bits + 7) / 8, std::max<uint64_t>(bits / 8, 1), &column->values));
      return Status::Ok();
    }
    for (const ArrowField& child : field.children) {
      column->children.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseColumn(child, nodes, buffers, &column->children.back()));
    }
    return Status::Ok();
  }

  // The next buffer, which must have at least so many bytes and begin at a multiple of `alignment`.
  Status TakeBuffer(const ArrowField& field, const FlatVector& buffers, uint64_t least_bytes, size_t alignment,
                    std::span<const uint8_t>* buffer) {
    if (next_buffer_ >= buffers.size()) return Wrong("a record batch lacks buffers");
    const int64_t offset = buffers.Value<int64_t>(next_buffer_), length = buffers.Value<int64_t>(next_buffer_, 8);
    ++next_buffer_;
    const auto body = static_cast<int64_t>(block_.body.size());
    if (offset < 0 || length < 0 || offset > body || length > body - offset) {
      return Wrong("a buffer of column " + field.name + " lies outside of its record batch");
    }
    if (static_cast<uint64_t>(length) < least_bytes) {
      return Wrong("a buffer of column " + field.name + " is too short for its rows");
    }
    *buffer = block_.body.subspan(offset, length);
    if (least_bytes > 0 && reinterpret_cast<uintptr_t>(buffer->data()) % alignment != 0) {
      return Wrong("a buffer of column " + field.name + " is not aligned to its values");
    }
    return Status::Ok();
  }

  const std::span<const uint8_t> bytes_;
  const std::string& name_;
  bool broken_ = false;
  ArrowBlock block_;  // being read
  size_t next_node_ = 0;
  size_t next_buffer_ = 0;
};

Result<ArrowFile> ArrowFile::Parse(std::span<const uint8_t> bytes, const std::string& name) {
  ArrowFile file;
  file.bytes_ = bytes;
  if (Status status = ArrowParser(bytes, name).Parse(&file); !status.ok()) return status;
  return file;
}

Result<ArrowFile> ArrowFile::Open(const std::string& path) {
  auto mapping = MappedFile::Open(path);
  if (!mapping.ok()) return mapping.status();
  auto file = Parse((*mapping)->bytes(), path);
  if (file.ok()) file->mapping_ = *mapping;
  return file;
}

bool CheckOffsets(const ArrowField& field, const ArrowColumn& column) {
  for (size_t i = 0; i < column.children.size(); ++i) {
    if (!CheckOffsets(field.children[i], column.children[i])) return false;
  }
  const size_t width = field.has_dictionary ? 0 : OffsetBytes(field.type);
  if (width == 0) return true;
  const uint64_t most = column.children.empty() ? column.values.size() : column.children[0].rows;
  return width == sizeof(int32_t) ? NeverFall<int32_t>(column, most) : NeverFall<int64_t>(column, most);
}

}  // namespace persia
