#include "columns.h"

#include "base/rng.h"

namespace persia::bindings {
namespace {

IdColumnOptions ToIdColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  const IdEncoding encoding = String(object, "encoding") == "integer" ? IdEncoding::kInteger : IdEncoding::kHash;
  IdColumnOptions column{String(object, "name"), encoding, String(object, "separator")};
  if (!object.Get("slice").IsUndefined()) {
    const auto slice = Array(object, "slice");
    column.slice_begin = slice.Get(0u).As<Napi::Number>().Uint32Value();
    column.slice_end = slice.Get(1u).As<Napi::Number>().Uint32Value();
  }
  return column;
}

LabelColumnOptions ToLabelColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  return {String(object, "name"), OptionalString(object, "positive"), Bool(object, "probability")};
}

SplitOptions ToSplit(const Napi::Object& object) {
  SplitOptions split;
  split.name = String(object, "name");
  split.by = String(object, "by") == "time" ? SplitOptions::By::kTime : SplitOptions::By::kHash;
  if (split.by == SplitOptions::By::kHash) {
    split.test_share = Double(object, "testShare");
    split.key = RandomKey(Uint64(object, "seed"), 0);
  } else if (object.Get("from").IsNumber()) {
    split.from_number = Double(object, "from");
  } else {
    split.from_text = String(object, "from");
  }
  return split;
}

// The words of a validity mask for `count` values, or null when all values are there.
const uint64_t* Validity(const Napi::Object& column, const char* name, uint64_t count) {
  const Napi::Value value = column.Get(name);
  if (value.IsUndefined() || value.IsNull()) return nullptr;
  const auto words = TypedArray<const uint64_t>(value, name);
  if (words.size() < (count + 63) / 64) throw Napi::TypeError::New(column.Env(), "native call: validity is too short");
  return words.data();
}

ColumnView ToColumnView(const Napi::Value& value, uint32_t rows) {
  const auto object = value.As<Napi::Object>();
  const std::string kind = String(object, "kind");
  ColumnView column;
  column.kind = kind == "text" ? ValueKind::kText : kind == "number" ? ValueKind::kNumber : ValueKind::kInteger;
  const auto bytes = TypedArray<const uint8_t>(Field(object, "values"), "values");
  const size_t value_bytes = column.kind == ValueKind::kText ? sizeof(TextRecord) : sizeof(uint64_t);
  column.values = bytes.data();
  column.value_count = bytes.size() / value_bytes;
  column.validity = Validity(object, "validity", column.value_count);
  if (!object.Get("entries").IsUndefined()) {
    const auto entries = TypedArray<const uint64_t>(object.Get("entries"), "entries");
    if (entries.size() != size_t{2} * rows) {
      throw Napi::TypeError::New(object.Env(), "native call: entries do not match rows");
    }
    column.entries = entries.data();
    column.entry_validity = Validity(object, "entryValidity", rows);
  } else if (column.value_count != rows) {
    throw Napi::TypeError::New(object.Env(), "native call: values do not match rows");
  }
  return column;
}

}  // namespace

std::optional<std::string> OptionalString(const Napi::Object& object, const char* name) {
  if (object.Get(name).IsUndefined()) return std::nullopt;
  return String(object, name);
}

std::vector<std::string> Texts(const Napi::Object& object, const char* name) {
  return List<std::string>(object, name, [](const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); });
}

std::vector<uint32_t> Numbers(const Napi::Object& object, const char* name) {
  return List<uint32_t>(object, name, [](const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); });
}

DenseColumnOptions ToDenseColumn(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  const std::string name = String(object, "transform");
  DenseColumnOptions column;
  column.name = String(object, "name");
  column.transform = name == "log1p"         ? Transform::kLog1p
                     : name == "standardize" ? Transform::kStandardize
                                             : Transform::kNone;
  column.mean = Double(object, "mean");
  column.stddev = Double(object, "stddev");
  if (!object.Get("missing").IsUndefined()) column.missing = Double(object, "missing");
  return column;
}

DecoderOptions ToDecoderOptions(const Napi::Object& object) {
  DecoderOptions columns;
  columns.ids = List<IdColumnOptions>(object, "ids", ToIdColumn);
  columns.dense = List<DenseColumnOptions>(object, "dense", ToDenseColumn);
  columns.labels = List<LabelColumnOptions>(object, "labels", ToLabelColumn);
  columns.missing = Texts(object, "missing");
  if (!object.Get("split").IsUndefined()) columns.split = ToSplit(Object(object, "split"));
  return columns;
}

NegativeSampling ToSampling(const Napi::Object& object) {
  return {Uint32(object, "label"), Double(object, "keep"),
          RandomKey(Uint64(object, "seed"), Uint64(object, "epoch"))};
}

ShareSplit ToShareSplit(const Napi::Object& object) {
  return {Double(object, "testShare"), RandomKey(Uint64(object, "seed"), Uint64(object, "stream"))};
}

ChunkView ToChunkView(const Napi::Object& object) {
  ChunkView chunk;
  chunk.rows = Uint32(object, "rows");
  const auto convert = [&](const Napi::Value& value) { return ToColumnView(value, chunk.rows); };
  chunk.ids = List<ColumnView>(object, "ids", convert);
  chunk.dense = List<ColumnView>(object, "dense", convert);
  chunk.labels = List<ColumnView>(object, "labels", convert);
  if (!object.Get("split").IsUndefined()) chunk.split = convert(object.Get("split"));
  return chunk;
}

}  // namespace persia::bindings
