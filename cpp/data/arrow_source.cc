#include "data/arrow_source.h"

#include <algorithm>
#include <utility>

namespace persia {
namespace {

bool IsList(const ArrowField& field) {
  const bool is_list = field.type == ArrowTypeId::kList || field.type == ArrowTypeId::kLargeList ||
                       field.type == ArrowTypeId::kFixedSizeList;
  return is_list && !field.has_dictionary;
}

// The column itself, or the values of its lists.
const ArrowField& ValuesOf(const ArrowField& field) { return IsList(field) ? field.children[0] : field; }
const ArrowColumn& ValuesOf(const ArrowField& field, const ArrowColumn& column) {
  return IsList(field) ? column.children[0] : column;
}

// Where the list of a row begins among all values.
uint64_t ListBegin(const ArrowField& field, const ArrowColumn& column, uint64_t row) {
  if (field.type == ArrowTypeId::kFixedSizeList) return row * field.list_size;
  if (column.offsets.empty()) return 0;  // no rows
  return static_cast<uint64_t>(field.type == ArrowTypeId::kList ? column.offsets_as<int32_t>()[row]
                                                                : column.offsets_as<int64_t>()[row]);
}

std::string IntegerName(const ArrowField& field) {
  const char* name = field.bits == 8    ? "TINYINT"
                     : field.bits == 16 ? "SMALLINT"
                     : field.bits == 32 ? "INTEGER"
                                        : "BIGINT";
  return std::string(field.is_signed ? "" : "U").append(name);
}

}  // namespace

Result<std::shared_ptr<ArrowSource>> ArrowSource::Open(const std::string& path, const std::string& name) {
  auto file = ArrowFile::Open(path, name);
  if (!file.ok()) return file.status();
  return std::make_shared<ArrowSource>(std::move(*file));
}

ArrowSource::ArrowSource(ArrowFile file) : file_(std::move(file)) {
  uint64_t row = 0;
  for (const ArrowBlock& block : file_.blocks()) {
    first_rows_.push_back(row);
    row += block.rows;
  }
}

size_t ArrowSource::BlockOf(uint64_t row) const {
  PERSIA_CHECK(row < rows());
  return static_cast<size_t>(std::upper_bound(first_rows_.begin(), first_rows_.end(), row) - first_rows_.begin()) - 1;
}

Result<std::shared_ptr<const ArrowBlock>> ArrowSource::Load(size_t block, const std::vector<bool>& wanted) {
  const std::lock_guard lock(mutex_);
  if (last_ == block && last_wanted_ == wanted) {
    if (auto held = last_block_.lock()) return held;
  }
  auto loaded = file_.Load(file_.blocks()[block], file_.fields(), wanted);
  if (!loaded.ok()) return loaded.status();
  for (size_t i = 0; i < wanted.size(); ++i) {
    const ArrowField& field = file_.fields()[i];
    if (!wanted[i] || CheckOffsets(field, loaded->columns[i])) continue;
    return Status(ErrorCode::kDataUnreadable,
                  file_.name() + " cannot be read: column " + field.name + " has values outside of its buffers")
        .With("file", file_.name());
  }
  last_ = block;
  last_wanted_ = wanted;
  auto held = std::make_shared<const ArrowBlock>(std::move(*loaded));
  last_block_ = held;
  return held;
}

std::string ArrowSource::TypeName(const ArrowField& field) {
  if (IsList(field)) {
    const bool is_known = field.children[0].type != ArrowTypeId::kNull;  // of nothing there may be any number
    return (is_known ? TypeName(field.children[0]) : std::string("NULL")).append("[]");
  }
  switch (field.type) {
    case ArrowTypeId::kInt: return IntegerName(field);
    case ArrowTypeId::kFloat: return field.bits == 64 ? "DOUBLE" : "FLOAT";
    case ArrowTypeId::kBool: return "BOOLEAN";
    case ArrowTypeId::kDate: return "DATE";
    case ArrowTypeId::kTimestamp: return field.has_zone ? "Arrow timestamp with a time zone" : "TIMESTAMP";
    case ArrowTypeId::kNull:
    case ArrowTypeId::kUtf8:
    case ArrowTypeId::kLargeUtf8:
    case ArrowTypeId::kUtf8View: return "VARCHAR";
    default: return "Arrow type " + std::to_string(static_cast<int>(field.type));
  }
}

ArrowRows::ArrowRows(std::shared_ptr<ArrowSource> source, const ArrowLayout& layout) : source_(std::move(source)) {
  const auto& fields = source_->file().fields();
  wanted_.resize(fields.size());
  const auto add = [&](const ArrowWanted& wanted, bool may_be_list) {
    PERSIA_CHECK(wanted.column < fields.size() && (may_be_list || !IsList(fields[wanted.column])));
    PERSIA_CHECK(ArrowValues::CanRead(ValuesOf(fields[wanted.column]), wanted.kind));
    wanted_[wanted.column] = true;
    columns_.push_back(std::make_unique<Column>());
    columns_.back()->wanted = wanted;
  };
  for (const ArrowWanted& wanted : layout.ids) add(wanted, true);
  for (const ArrowWanted& wanted : layout.dense) add(wanted, false);
  for (const ArrowWanted& wanted : layout.labels) add(wanted, false);
  if (layout.split) add(*layout.split, false);
  view_.ids.resize(layout.ids.size());
  view_.dense.resize(layout.dense.size());
  view_.labels.resize(layout.labels.size());
}

Result<const ChunkView*> ArrowRows::Read(uint64_t first, uint32_t count) {
  PERSIA_CHECK(first + count <= source_->rows());
  for (const auto& column : columns_) {
    column->values.Clear(column->wanted.kind);
    column->entries.clear();
    column->has_list.Clear();
  }
  read_.clear();
  for (uint64_t row = first, end = first + count; row < end;) {
    PERSIA_RETURN_IF_ERROR(Enter(source_->BlockOf(row)));
    read_.push_back(block_);
    const uint64_t begin = row - source_->first_row(block_number_);
    const uint64_t rows = std::min(end - row, block_->rows - begin);
    for (const auto& column : columns_) PERSIA_RETURN_IF_ERROR(Append(column.get(), begin, rows));
    row += rows;
  }
  view_.rows = count;
  size_t next = 0;
  for (auto* list : {&view_.ids, &view_.dense, &view_.labels}) {
    for (ColumnView& view : *list) view = ViewOf(*columns_[next++]);
  }
  if (next < columns_.size()) view_.split = ViewOf(*columns_[next]);
  return &view_;
}

Status ArrowRows::Enter(size_t block) {
  if (block == block_number_) return Status::Ok();
  auto loaded = source_->Load(block, wanted_);
  if (!loaded.ok()) return loaded.status();
  const bool has_others = block_ == nullptr || (*loaded)->dictionaries != dictionaries_;
  block_ = std::move(*loaded);
  block_number_ = block;
  dictionaries_ = block_->dictionaries;
  if (!has_others) return Status::Ok();
  // Rows of the block before may be in the same chunk, with texts of the dictionaries before.
  read_.insert(read_.end(), dictionary_memory_.begin(), dictionary_memory_.end());
  dictionary_memory_.clear();
  for (const auto& column : columns_) {
    read_.push_back(column->dictionary);
    PERSIA_RETURN_IF_ERROR(ReadDictionary(column.get()));
  }
  return Status::Ok();
}

// The values of the column's dictionary as they hold for the block.
Status ArrowRows::ReadDictionary(Column* column) {
  const ArrowFile& file = source_->file();
  const ArrowField& field = ValuesOf(file.fields()[column->wanted.column]);
  if (!field.has_dictionary) return Status::Ok();
  column->dictionary = std::make_shared<ArrowValues>();
  ArrowValues& dictionary = *column->dictionary;
  dictionary.Clear(column->wanted.kind);
  // From the last one that replaced those before it: a stream may replace it with every block.
  size_t first = dictionaries_;
  while (first > 0) {
    const ArrowDictionary& part = file.dictionaries()[--first];
    if (part.id == field.dictionary && !part.is_delta) break;
  }
  for (size_t i = first; i < dictionaries_; ++i) {
    const ArrowDictionary& part = file.dictionaries()[i];
    if (part.id != field.dictionary) continue;
    auto block = file.Load(part.block, {&part.field, 1}, {true});
    if (!block.ok()) return block.status();
    const ArrowColumn& values = block->columns[0];
    if (!CheckOffsets(part.field, values) || !dictionary.Append(part.field, values, 0, values.rows)) {
      return Wrong(field, "has a dictionary with texts that are not UTF-8 or lie outside of their buffers");
    }
    dictionary_memory_.push_back(std::make_shared<const ArrowBlock>(std::move(*block)));
  }
  return Status::Ok();
}

Status ArrowRows::Append(Column* column, uint64_t begin, uint64_t count) const {
  const ArrowField& field = source_->file().fields()[column->wanted.column];
  const ArrowColumn& from = block_->columns[column->wanted.column];
  if (!IsList(field)) return AppendValues(column, field, from, begin, count);
  AppendEntries(column, field, from, begin, count);
  const uint64_t first = ListBegin(field, from, begin);
  return AppendValues(column, ValuesOf(field), ValuesOf(field, from), first,
                      ListBegin(field, from, begin + count) - first);
}

// Where the values of each row's list will be among those of the chunk.
void ArrowRows::AppendEntries(Column* column, const ArrowField& field, const ArrowColumn& from, uint64_t begin,
                              uint64_t count) const {
  const uint64_t first = ListBegin(field, from, begin), before = column->values.size();
  for (uint64_t row = begin; row < begin + count; ++row) {
    const uint64_t start = ListBegin(field, from, row);
    const bool is_there = !from.is_null(row);
    column->entries.push_back(before + start - first);
    column->entries.push_back(is_there ? ListBegin(field, from, row + 1) - start : 0);
    column->has_list.Append(is_there);
  }
}

Status ArrowRows::AppendValues(Column* column, const ArrowField& field, const ArrowColumn& from, uint64_t begin,
                               uint64_t count) const {
  if (field.has_dictionary) {
    const bool is_inside = column->values.AppendFrom(*column->dictionary, field, from, begin, count);
    return is_inside ? Status::Ok() : Wrong(field, "has places outside of its dictionary");
  }
  const bool is_text = column->values.Append(field, from, begin, count);
  return is_text ? Status::Ok() : Wrong(field, "has a text that is not UTF-8 or lies outside of its buffers");
}

ColumnView ArrowRows::ViewOf(const Column& column) const {
  ColumnView view = column.values.view();
  if (!IsList(source_->file().fields()[column.wanted.column])) return view;
  view.entries = column.entries.data();
  view.entry_validity = column.has_list.view();
  return view;
}

Status ArrowRows::Wrong(const ArrowField& field, const std::string& what) const {
  const std::string& name = source_->file().name();
  return Status(ErrorCode::kDataUnreadable, name + " cannot be read: record batch " + std::to_string(block_number_) +
                                                ", column " + field.name + " " + what)
      .With("file", name);
}

}  // namespace persia
