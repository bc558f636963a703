#include "data/arrow_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <new>
#include <optional>
#include <utility>

#include "data/arrow_codec.h"
#include "data/flat_buffer.h"

namespace persia {
namespace {

constexpr char kMagic[] = {'A', 'R', 'R', 'O', 'W', '1'};
constexpr size_t kHeadBytes = 8;  // magic and padding
constexpr size_t kTailBytes = sizeof(int32_t) + sizeof(kMagic);
constexpr uint32_t kMarker = UINT32_MAX;  // before the length of a message, since format 0.15
constexpr size_t kMessageHead = 2 * sizeof(uint32_t);
constexpr uint8_t kSchemaMessage = 1, kDictionaryMessage = 2, kRecordBatchMessage = 3;
constexpr int kMostDepth = 8;         // of nested types
constexpr size_t kMostFields = 65'536;
constexpr int64_t kMostRows = int64_t{1} << 40;
constexpr int64_t kMostPlainBytes = int64_t{1} << 30;  // of a compressed buffer

// Bytes of one value in the buffer of a type of fixed width; 0: the type has none.
uint32_t ValueBits(const ArrowField& field) {
  switch (field.type) {
    case ArrowTypeId::kInt:
    case ArrowTypeId::kFloat:
      return field.bits;
    case ArrowTypeId::kBool:
      return 1;
    case ArrowTypeId::kDate:
      return field.unit == 0 ? 32 : 64;
    case ArrowTypeId::kTimestamp:
      return 64;
    case ArrowTypeId::kBinaryView:
    case ArrowTypeId::kUtf8View:
      return 128;
    default:
      return 0;
  }
}

bool IsWidth(uint32_t bits) { return bits == 8 || bits == 16 || bits == 32 || bits == 64; }

bool IsView(ArrowTypeId type) { return type == ArrowTypeId::kUtf8View || type == ArrowTypeId::kBinaryView; }

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

// The column, or the values of a list, that has the dictionary; null: there is none.
bool SameValues(const ArrowField& a, const ArrowField& b) {
  return a.type == b.type && a.bits == b.bits && a.is_signed == b.is_signed && a.unit == b.unit &&
         a.has_zone == b.has_zone && a.list_size == b.list_size && std::ranges::equal(a.children, b.children, SameValues);
}

// Whether all columns with one dictionary say the same of its values.
bool AgreeOnDictionaries(const std::vector<ArrowField>& fields, std::map<int64_t, const ArrowField*>* known) {
  return std::ranges::all_of(fields, [&](const ArrowField& field) {
    if (field.has_dictionary && !SameValues(*known->emplace(field.dictionary, &field).first->second, field)) return false;
    return AgreeOnDictionaries(field.children, known);
  });
}

const ArrowField* FieldOfDictionary(const std::vector<ArrowField>& fields, int64_t dictionary) {
  for (const ArrowField& field : fields) {
    if (field.has_dictionary && field.dictionary == dictionary) return &field;
    if (const ArrowField* found = FieldOfDictionary(field.children, dictionary)) return found;
  }
  return nullptr;
}

}  // namespace

// Reads the metadata of one file. Every step says what is wrong, once.
class ArrowParser {
 public:
  ArrowParser(std::span<const uint8_t> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Status Parse(ArrowFile* file) {
    if (bytes_.size() >= sizeof(kMagic) && std::memcmp(bytes_.data(), kMagic, sizeof(kMagic)) == 0) {
      return ParseFile(file);
    }
    uint32_t marker = 0;
    if (bytes_.size() >= kMessageHead) std::memcpy(&marker, bytes_.data(), sizeof(marker));
    return marker == kMarker ? ParseStream(file) : Wrong("it is neither an Arrow file nor an Arrow stream");
  }

  // Fills in the columns of a block that was found before.
  Status Load(const ArrowBlock& found, std::span<const ArrowField> fields, const std::vector<bool>& wanted,
              ArrowBlock* block) {
    block_ = {};
    block_.body = found.body;
    block_.metadata = found.metadata;
    block_.dictionaries = found.dictionaries;
    const FlatTable message = FlatTable::Root(found.metadata, &broken_);
    FlatTable batch = message.Table(2);
    if (message.Value<uint8_t>(1) == kDictionaryMessage) batch = batch.Table(1);
    PERSIA_RETURN_IF_ERROR(ParseRecordBatch(batch, fields, &wanted));
    *block = std::move(block_);
    return Status::Ok();
  }

 private:
  Status ParseFile(ArrowFile* file) {
    if (bytes_.size() < kHeadBytes + kTailBytes ||
        std::memcmp(bytes_.data() + bytes_.size() - sizeof(kMagic), kMagic, sizeof(kMagic)) != 0) {
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

  Status Wrong(const std::string& what) const {
    return Status(ErrorCode::kDataUnreadable, name_ + " cannot be read: " + what).With("file", name_);
  }

  Status ParseStream(ArrowFile* file) {
    bool has_schema = false;
    for (size_t at = 0;;) {
      uint32_t head[2];
      if (bytes_.size() - at < kMessageHead) return Wrong("it is cut off");
      std::memcpy(head, bytes_.data() + at, kMessageHead);
      at += kMessageHead;
      if (head[0] != kMarker) return Wrong("its metadata is damaged");
      if (head[1] == 0) {
        if (!has_schema) return Wrong("it has no schema");
        return at == bytes_.size() ? Status::Ok() : Wrong("something is behind the end of the stream");
      }
      if (head[1] > bytes_.size() - at) return Wrong("it is cut off");
      const auto metadata = bytes_.subspan(at, head[1]);
      at += metadata.size();
      const FlatTable message = FlatTable::Root(metadata, &broken_);
      const auto body_bytes = static_cast<uint64_t>(message.Value<int64_t>(3));
      if (broken_ || (message.Value<uint8_t>(1) == kSchemaMessage) == has_schema) {
        return Wrong("its metadata is damaged");
      }
      if (body_bytes > bytes_.size() - at) return Wrong("it is cut off");
      if (has_schema) {
        PERSIA_RETURN_IF_ERROR(ParseMessage(metadata, bytes_.subspan(at, body_bytes), file));
      } else {
        PERSIA_RETURN_IF_ERROR(ParseSchema(message.Table(2), file));
      }
      has_schema = true;
      at += body_bytes;
    }
  }

  Status ParseFooter(const FlatTable& footer, ArrowFile* file) {
    PERSIA_RETURN_IF_ERROR(ParseSchema(footer.Table(1), file));
    constexpr size_t kBlockBytes = 24;
    for (const uint32_t kind : {2, 3}) {  // dictionaries, then record batches
      const FlatVector blocks = footer.Vector(kind, kBlockBytes);
      for (size_t i = 0; i < blocks.size() && !broken_; ++i) {
        PERSIA_RETURN_IF_ERROR(ParseBlock(blocks.Value<int64_t>(i), blocks.Value<int32_t>(i, 8),
                                          blocks.Value<int64_t>(i, 16), file));
      }
    }
    return broken_ ? Wrong("its metadata is damaged") : Status::Ok();
  }

  Status ParseSchema(const FlatTable& schema, ArrowFile* file) {
    if (schema.Value<int16_t>(0) != 0) return Wrong("it is big-endian");
    const FlatVector fields = schema.Vector(1, sizeof(uint32_t));
    if (fields.size() > kMostFields) return Wrong("it has too many columns");
    for (size_t i = 0; i < fields.size() && !broken_; ++i) {
      file->fields_.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseField(fields.Table(i), kMostDepth, &file->fields_.back()));
    }
    if (broken_) return Wrong("its metadata is damaged");
    std::map<int64_t, const ArrowField*> dictionaries;
    return AgreeOnDictionaries(file->fields_, &dictionaries)
               ? Status::Ok()
               : Wrong("two of its columns have one dictionary, but not the same type");
  }

  Status ParseField(const FlatTable& table, int depth, ArrowField* field) {
    if (++field_count_ > kMostFields) return Wrong("it has too many columns");  // tables may be shared: bytes are no bound
    field->name = table.Text(0);
    field->type = static_cast<ArrowTypeId>(table.Value<uint8_t>(2));
    const FlatTable type = table.Table(3);
    if (field->type == ArrowTypeId::kInt) {
      field->bits = static_cast<uint32_t>(type.Value<int32_t>(0));
      field->is_signed = type.Value<uint8_t>(1) != 0;
    } else if (field->type == ArrowTypeId::kFloat) {
      const uint32_t precision = static_cast<uint16_t>(type.Value<int16_t>(0));
      field->bits = precision <= 2 ? 16u << precision : 0;
    } else if (field->type == ArrowTypeId::kDate) {
      field->unit = static_cast<uint16_t>(type.Value<int16_t>(0, 1));
    } else if (field->type == ArrowTypeId::kTimestamp) {
      field->unit = static_cast<uint16_t>(type.Value<int16_t>(0));
      field->has_zone = !type.Text(1).empty();
    } else if (field->type == ArrowTypeId::kFixedSizeList) {
      field->list_size = static_cast<uint32_t>(type.Value<int32_t>(0));
    }
    const bool has_width = field->type == ArrowTypeId::kInt || field->type == ArrowTypeId::kFloat;
    if (has_width && !IsWidth(field->bits)) {
      return Wrong("column " + field->name + " has numbers of an unknown width");
    }
    if (field->type == ArrowTypeId::kUnion || field->type == ArrowTypeId::kRunEnd ||
        field->type > ArrowTypeId::kUtf8View) {
      return Wrong("column " + field->name + " has a type that is not known here (number " +
                   std::to_string(static_cast<int>(field->type)) + " of Arrow's)");
    }
    if (const FlatTable dictionary = table.Table(4); dictionary.exists()) {
      field->has_dictionary = true;
      field->dictionary = dictionary.Value<int64_t>(0);
      if (const FlatTable index = dictionary.Table(1); index.exists()) {
        field->index_bits = static_cast<uint32_t>(index.Value<int32_t>(0));
      }
      if (!IsWidth(field->index_bits)) return Wrong("column " + field->name + " has numbers of an unknown width");
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

  // A message that the footer tells of.
  Status ParseBlock(int64_t offset, int32_t metadata_bytes, int64_t body_bytes, ArrowFile* file) {
    const auto size = static_cast<int64_t>(bytes_.size());
    if (offset < 0 || metadata_bytes < 8 || body_bytes < 0 || offset > size || metadata_bytes > size - offset ||
        body_bytes > size - offset - metadata_bytes) {
      return Wrong("a record batch lies outside of the file");
    }
    uint32_t marker;
    std::memcpy(&marker, bytes_.data() + offset, sizeof(marker));
    const int64_t head = marker == kMarker ? kMessageHead : sizeof(uint32_t);
    return ParseMessage(bytes_.subspan(offset + head, metadata_bytes - head),
                        bytes_.subspan(offset + metadata_bytes, body_bytes), file);
  }

  Status ParseMessage(std::span<const uint8_t> metadata, std::span<const uint8_t> body, ArrowFile* file) {
    const FlatTable message = FlatTable::Root(metadata, &broken_);
    const auto kind = message.Value<uint8_t>(1);
    if (broken_ || (kind != kRecordBatchMessage && kind != kDictionaryMessage)) {
      return Wrong("its metadata is damaged");
    }
    block_ = {};
    block_.body = body;
    block_.metadata = metadata;
    if (kind == kDictionaryMessage) return ParseDictionary(message.Table(2), file);
    block_.dictionaries = file->dictionaries_.size();
    PERSIA_RETURN_IF_ERROR(ParseRecordBatch(message.Table(2), file->fields_, nullptr));
    file->rows_ += block_.rows;
    file->blocks_.push_back(std::move(block_));
    return Status::Ok();
  }

  Status ParseDictionary(const FlatTable& table, ArrowFile* file) {
    ArrowDictionary dictionary;
    dictionary.id = table.Value<int64_t>(0);
    dictionary.is_delta = table.Value<uint8_t>(2) != 0;
    const ArrowField* field = FieldOfDictionary(file->fields_, dictionary.id);
    if (field == nullptr) return Wrong("it has a dictionary of no column");
    if (field->type == ArrowTypeId::kNull) return Wrong("it has a dictionary without values");  // of any length
    dictionary.field = *field;
    dictionary.field.has_dictionary = false;
    PERSIA_RETURN_IF_ERROR(ParseRecordBatch(table.Table(1), {&dictionary.field, 1}, nullptr));
    dictionary.block = std::move(block_);
    file->dictionaries_.push_back(std::move(dictionary));
    return Status::Ok();
  }

  // The columns of block_: unless they are compressed, all; else those that are wanted, if any are.
  Status ParseRecordBatch(const FlatTable& batch, std::span<const ArrowField> fields,
                          const std::vector<bool>* wanted) {
    const int64_t rows = batch.Value<int64_t>(0);
    if (rows < 0 || rows > kMostRows) return Wrong("a record batch has an impossible number of rows");
    block_.rows = static_cast<uint64_t>(rows);
    if (const FlatTable compression = batch.Table(3); compression.exists()) {
      const auto codec = compression.Value<uint8_t>(0);
      if (codec > 1 || compression.Value<uint8_t>(1) != 0) return Wrong("its buffers are compressed in an unknown way");
      block_.codec = codec == 0 ? ArrowCodec::kLz4 : ArrowCodec::kZstd;
      if (wanted == nullptr) return broken_ ? Wrong("its metadata is damaged") : Status::Ok();
    }
    constexpr size_t kNodeBytes = 16, kBufferBytes = 16;
    nodes_.emplace(batch.Vector(1, kNodeBytes));
    buffers_.emplace(batch.Vector(2, kBufferBytes));
    piece_counts_.emplace(batch.Vector(4, sizeof(int64_t)));
    next_node_ = next_buffer_ = next_piece_count_ = 0;
    for (size_t i = 0; i < fields.size(); ++i) {
      block_.columns.emplace_back();
      skips_ = block_.codec != ArrowCodec::kNone && !(*wanted)[i];
      PERSIA_RETURN_IF_ERROR(ParseColumn(fields[i], &block_.columns.back()));
      if (block_.columns.back().rows != block_.rows) {
        return Wrong("column " + fields[i].name + " has a length of its own");
      }
    }
    return broken_ ? Wrong("its metadata is damaged") : Status::Ok();
  }

  Status ParseColumn(const ArrowField& field, ArrowColumn* column) {
    if (next_node_ >= nodes_->size()) return Wrong("a record batch lacks columns");
    const int64_t rows = nodes_->Value<int64_t>(next_node_), nulls = nodes_->Value<int64_t>(next_node_, 8);
    ++next_node_;
    if (rows < 0 || rows > kMostRows || nulls < 0 || nulls > rows) {
      return Wrong("column " + field.name + " has an impossible length");
    }
    column->rows = static_cast<uint64_t>(rows);
    column->null_count = static_cast<uint64_t>(nulls);
    if (field.type == ArrowTypeId::kNull && !field.has_dictionary) return Status::Ok();
    PERSIA_RETURN_IF_ERROR(TakeBuffer(field, nulls > 0 ? (column->rows + 7) / 8 : 0, 1, &column->validity));
    if (nulls == 0) column->validity = {};
    if (field.has_dictionary) {
      const uint64_t bytes = field.index_bits / 8;
      return TakeBuffer(field, column->rows * bytes, bytes, &column->values);
    }
    if (const size_t width = OffsetBytes(field.type); width > 0) {
      const uint64_t count = column->rows == 0 ? 0 : column->rows + 1;
      PERSIA_RETURN_IF_ERROR(TakeBuffer(field, count * width, width, &column->offsets));
    }
    return IsNested(field.type) ? ParseChildren(field, column) : ParseValues(field, column);
  }

  Status ParseValues(const ArrowField& field, ArrowColumn* column) {
    const uint64_t bits = ValueBits(field), alignment = std::clamp<uint64_t>(bits / 8, 1, sizeof(uint64_t));
    PERSIA_RETURN_IF_ERROR(TakeBuffer(field, (column->rows * bits + 7) / 8, alignment, &column->values));
    if (!IsView(field.type)) return Status::Ok();
    if (next_piece_count_ >= piece_counts_->size()) return Wrong("a record batch lacks buffers");
    const auto pieces = piece_counts_->Value<int64_t>(next_piece_count_++);
    for (int64_t i = 0; i < pieces; ++i) {
      column->pieces.emplace_back();
      PERSIA_RETURN_IF_ERROR(TakeBuffer(field, 0, 1, &column->pieces.back()));
    }
    return Status::Ok();
  }

  Status ParseChildren(const ArrowField& field, ArrowColumn* column) {
    for (const ArrowField& child : field.children) {
      column->children.emplace_back();
      PERSIA_RETURN_IF_ERROR(ParseColumn(child, &column->children.back()));
    }
    if (field.type == ArrowTypeId::kFixedSizeList && !skips_ &&
        column->children[0].rows / std::max<uint64_t>(field.list_size, 1) < column->rows) {
      return Wrong("column " + field.name + " has lists outside of its values");
    }
    return Status::Ok();
  }

  // The next buffer, which must have at least so many bytes and begin at a multiple of `alignment`.
  Status TakeBuffer(const ArrowField& field, uint64_t least_bytes, size_t alignment,
                    std::span<const uint8_t>* buffer) {
    if (next_buffer_ >= buffers_->size()) return Wrong("a record batch lacks buffers");
    const int64_t offset = buffers_->Value<int64_t>(next_buffer_), length = buffers_->Value<int64_t>(next_buffer_, 8);
    ++next_buffer_;
    if (skips_) return Status::Ok();
    const auto body = static_cast<int64_t>(block_.body.size());
    if (offset < 0 || length < 0 || offset > body || length > body - offset) {
      return Wrong("a buffer of column " + field.name + " lies outside of its record batch");
    }
    *buffer = block_.body.subspan(offset, length);
    if (block_.codec != ArrowCodec::kNone && length > 0) PERSIA_RETURN_IF_ERROR(Decompress(field, buffer));
    if (buffer->size() < least_bytes) return Wrong("a buffer of column " + field.name + " is too short for its rows");
    if (least_bytes > 0 && reinterpret_cast<uintptr_t>(buffer->data()) % alignment != 0) {
      return Wrong("a buffer of column " + field.name + " is not aligned to its values");
    }
    return Status::Ok();
  }

  // A compressed buffer is [i64 bytes of the values | compressed], or with -1 the values as they are.
  Status Decompress(const ArrowField& field, std::span<const uint8_t>* buffer) {
    int64_t bytes = 0;
    if (buffer->size() < sizeof(bytes)) return Wrong("a buffer of column " + field.name + " is damaged");
    std::memcpy(&bytes, buffer->data(), sizeof(bytes));
    *buffer = buffer->subspan(sizeof(bytes));
    if (bytes == -1) return Status::Ok();
    if (bytes == 0) {  // some writers put nothing behind it, not even a frame
      *buffer = {};
      return Status::Ok();
    }
    if (bytes < 0 || bytes > kMostPlainBytes) {
      return Wrong("column " + field.name + " has a compressed buffer of more than 1 GiB; write smaller batches");
    }
    std::unique_ptr<uint8_t[]> plain(new (std::nothrow) uint8_t[static_cast<size_t>(bytes)]);
    if (!plain) return Status(ErrorCode::kOutOfMemory, "no memory to decompress " + name_).With("file", name_);
    const std::span<uint8_t> values(plain.get(), static_cast<size_t>(bytes));
    if (!DecompressBuffer(block_.codec, *buffer, values)) {
      return Wrong("a compressed buffer of column " + field.name + " is damaged");
    }
    block_.memory.push_back(std::move(plain));
    *buffer = values;
    return Status::Ok();
  }

  const std::span<const uint8_t> bytes_;
  const std::string& name_;
  bool broken_ = false;
  size_t field_count_ = 0;
  // What is being read.
  ArrowBlock block_;
  bool skips_ = false;  // the column is not wanted
  std::optional<FlatVector> nodes_, buffers_, piece_counts_;
  size_t next_node_ = 0;
  size_t next_buffer_ = 0;
  size_t next_piece_count_ = 0;
};

Result<ArrowFile> ArrowFile::Parse(std::span<const uint8_t> bytes, const std::string& name) {
  ArrowFile file;
  file.bytes_ = bytes;
  file.name_ = name;
  if (Status status = ArrowParser(bytes, name).Parse(&file); !status.ok()) return status;
  return file;
}

Result<ArrowFile> ArrowFile::Open(const std::string& path, const std::string& name) {
  auto mapping = MappedFile::Open(path);
  if (!mapping.ok()) return mapping.status();
  auto file = Parse((*mapping)->bytes(), name.empty() ? path : name);
  if (file.ok()) file->mapping_ = *mapping;
  return file;
}

Result<ArrowBlock> ArrowFile::Load(const ArrowBlock& block, std::span<const ArrowField> fields,
                                   const std::vector<bool>& wanted) const {
  PERSIA_CHECK(fields.size() == wanted.size());
  ArrowBlock loaded;
  if (Status status = ArrowParser(bytes_, name_).Load(block, fields, wanted, &loaded); !status.ok()) return status;
  return loaded;
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
