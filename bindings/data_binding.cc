#include "data_binding.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "arrow_binding.h"
#include "base/rng.h"
#include "batch_handle.h"
#include "columns.h"
#include "convert.h"
#include "data/part_writer.h"
#include "data/prepared_data.h"
#include "data/synth_data.h"
#include "js_thread.h"
#include "keep_alive.h"

namespace persia::bindings {
namespace {

// Checksums go as texts of 16 hexadecimal digits, as they stand in manifests.
Napi::String HexOf(Napi::Env env, uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return Napi::String::New(env, text);
}

uint64_t HexFrom(const Napi::Value& value) {
  return std::stoull(value.As<Napi::String>().Utf8Value(), nullptr, 16);
}

Napi::Number NumberOf(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

ShardColumns ToShardColumns(const Napi::Object& object) {
  ShardColumns columns;
  columns.ids = List<ShardColumns::Id>(object, "ids", [](const Napi::Value& value) {
    const auto id = value.As<Napi::Object>();
    return ShardColumns::Id{String(id, "name"), Bool(id, "list")};
  });
  columns.dense = Texts(object, "dense");
  columns.labels = Texts(object, "labels");
  return columns;
}

// ---- reading

// A BatchSource: { rows, batches, read(batch): Promise<NativeBatch> }
class SourceWrap : public Napi::ObjectWrap<SourceWrap> {
 public:
  explicit SourceWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SourceWrap>(info) {
    source_ = *info[0].As<Napi::External<std::shared_ptr<const IndexedSource>>>().Data();
  }

  static void Register(Napi::Env env) {
    Constructor() = Napi::Persistent(DefineClass(env, "BatchSource",
                                                 {InstanceAccessor<&SourceWrap::Rows>("rows"),
                                                  InstanceAccessor<&SourceWrap::Batches>("batches"),
                                                  InstanceMethod<&SourceWrap::Read>("read")}));
    Constructor().SuppressDestruct();
  }

  static Napi::Value Create(Napi::Env env, std::shared_ptr<const IndexedSource> source) {
    return Constructor().New({Napi::External<std::shared_ptr<const IndexedSource>>::New(env, &source)});
  }

 private:
  static Napi::FunctionReference& Constructor() {
    static thread_local Napi::FunctionReference constructor;
    return constructor;
  }

  Napi::Value Rows(const Napi::CallbackInfo& info) { return NumberOf(info.Env(), source_->rows()); }
  Napi::Value Batches(const Napi::CallbackInfo& info) { return NumberOf(info.Env(), source_->batches()); }

  Napi::Value Read(const Napi::CallbackInfo& info) {
    const auto batch = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
    if (batch >= source_->batches()) throw Napi::RangeError::New(info.Env(), "native call: there is no such batch");
    return MakeInPool<const Batch>(
        info.Env(), [source = source_, batch] { return source->Read(batch); }, BatchHandle::Create);
  }

  std::shared_ptr<const IndexedSource> source_;
};

// Opens a source on libuv's pool and resolves with it.
template <typename Open>
Napi::Value OpenSource(Napi::Env env, Open open) {
  return MakeInPool<const IndexedSource>(env, std::move(open), SourceWrap::Create);
}

PreparedOptions::Shard ToShard(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  PreparedOptions::Shard shard;
  shard.path = String(object, "path");
  shard.file.rows = Uint64(object, "rows");
  shard.file.bytes = Uint64(object, "bytes");
  shard.file.frame_checksum = HexFrom(Field(object, "checksum"));
  shard.file.block_checksums = List<uint64_t>(object, "blocks", HexFrom);
  return shard;
}

// openPrepared(options: NativePreparedOptions): Promise<NativeBatchSource>
Napi::Value OpenPrepared(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  PreparedOptions options;
  options.shards = List<PreparedOptions::Shard>(object, "shards", ToShard);
  options.columns = ToShardColumns(Object(object, "columns"));
  options.ids = Numbers(object, "ids");
  options.dense = Numbers(object, "dense");
  options.transforms = List<DenseColumnOptions>(object, "transforms", ToDenseColumn);
  options.labels = Numbers(object, "labels");
  options.batch_size = Uint32(object, "batchSize");
  if (!object.Get("sampling").IsUndefined()) options.sampling = ToSampling(Object(object, "sampling"));
  if (!object.Get("shuffle").IsUndefined()) {
    const auto shuffle = Object(object, "shuffle");
    options.shuffle = {Bool(shuffle, "files"), Uint32(shuffle, "buffer"),
                       RandomKey(Uint64(shuffle, "seed"), Uint64(shuffle, "epoch"))};
  }
  return OpenSource(info.Env(), [options] { return PreparedData::Open(options); });
}

// ---- synthetic data

// { like, ids, seed }
Result<std::shared_ptr<const SynthGenerator>> MakeGenerator(const std::string& like, double ids, uint64_t seed) {
  SynthSpec spec;
  if (!MakeSynthSpec(like, ids, &spec)) return Status(ErrorCode::kUsage, "there is no synthetic data like " + like);
  return std::make_shared<const SynthGenerator>(std::move(spec), seed);
}

// What makes a generator; made on the pool, since it is calibrated.
struct GeneratorOptions {
  explicit GeneratorOptions(const Napi::Object& object)
      : like(String(object, "like")), ids(Double(object, "ids")), seed(Uint64(object, "seed")) {}
  Result<std::shared_ptr<const SynthGenerator>> Make() const { return MakeGenerator(like, ids, seed); }

  std::string like;
  double ids;
  uint64_t seed;
};

// openSynth(options: NativeSynthOptions): Promise<NativeBatchSource>
Napi::Value OpenSynth(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  SynthOptions options;
  options.rows = Uint64(object, "rows");
  options.first_row = Uint64(object, "firstRow");
  options.ids = Numbers(object, "fields");
  options.dense = Numbers(object, "dense");
  options.transforms = List<DenseColumnOptions>(object, "transforms", ToDenseColumn);
  options.has_labels = Bool(object, "labels");
  options.batch_size = Uint32(object, "batchSize");
  if (!object.Get("shuffle").IsUndefined()) {
    const auto shuffle = Object(object, "shuffle");
    options.shuffle_window = Uint32(shuffle, "buffer");
    options.shuffle_key = RandomKey(Uint64(shuffle, "seed"), Uint64(shuffle, "epoch"));
  }
  return OpenSource(info.Env(),
                    [options, made = GeneratorOptions(object)]() -> Result<std::shared_ptr<const IndexedSource>> {
                      auto generator = made.Make();
                      if (!generator.ok()) return generator.status();
                      return std::shared_ptr<const IndexedSource>(new SynthData(*generator, options));
                    });
}

// synthColumns(like: string): { label, fields: { name, list }[], dense: string[], delimiter, header: string }
Napi::Value SynthColumns(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  SynthSpec spec;
  if (!MakeSynthSpec(info[0].As<Napi::String>().Utf8Value(), 0, &spec)) {
    throw Napi::TypeError::New(env, "native call: there is no such synthetic data");
  }
  const Napi::Array fields = Napi::Array::New(env), dense = Napi::Array::New(env);
  for (const SynthField& field : spec.fields) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", field.name);
    object.Set("list", field.is_history);
    fields.Set(fields.Length(), object);
  }
  for (const SynthDense& column : spec.dense) dense.Set(dense.Length(), column.name);
  std::string header;
  for (const std::string& name : spec.text_columns) {
    if (!spec.has_header) break;
    header += (header.empty() ? "" : std::string(1, spec.delimiter)) + name;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("label", spec.label);
  result.Set("fields", fields);
  result.Set("dense", dense);
  result.Set("header", header);
  return result;
}

// synthCeiling({ like, ids, seed }): Promise<{ auc, logloss }>
Napi::Value SynthCeiling(const Napi::CallbackInfo& info) {
  auto ceiling = std::make_shared<SynthGenerator::Ceiling>();
  return RunInPool(
      info.Env(),
      [ceiling, made = GeneratorOptions(info[0].As<Napi::Object>())] {
        auto generator = made.Make();
        if (!generator.ok()) return generator.status();
        *ceiling = generator.value()->FindCeiling();
        return Status::Ok();
      },
      [ceiling](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("auc", ceiling->auc);
        result.Set("logloss", ceiling->logloss);
        return result;
      });
}

// A generator that is made once: new SynthRows({ like, ids, seed }); for writers.
class SynthRowsWrap : public Napi::ObjectWrap<SynthRowsWrap> {
 public:
  explicit SynthRowsWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SynthRowsWrap>(info) {
    auto made = GeneratorOptions(info[0].As<Napi::Object>()).Make();
    ThrowIfError(info.Env(), made.status());
    generator_ = *made;
  }

  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("SynthRows", DefineClass(env, "SynthRows", {InstanceMethod<&SynthRowsWrap::Text>("text")}));
  }

  const std::shared_ptr<const SynthGenerator>& generator() const { return generator_; }

 private:
  // text(firstRow: number, rows: number): Promise<Buffer>
  Napi::Value Text(const Napi::CallbackInfo& info) {
    auto text = std::make_shared<std::string>();
    const auto first = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
    const uint32_t rows = info[1].As<Napi::Number>().Uint32Value();
    return RunInPool(
        info.Env(),
        [generator = generator_, first, rows, text] {
          AppendSynthText(*generator, first, rows, text.get());
          return Status::Ok();
        },
        [text](Napi::Env env) -> Napi::Value { return Napi::Buffer<char>::Copy(env, text->data(), text->size()); });
  }

  std::shared_ptr<const SynthGenerator> generator_;
};

// ---- writing

constexpr uint64_t kChunkRows = 2048;  // that are decoded at once

// The text of a file that comes in pieces, decompressed.
class TextStreamWrap : public Napi::ObjectWrap<TextStreamWrap> {
 public:
  struct State {
    State(TextFormat format, uint64_t position, uint32_t lines)
        : text(std::move(format), position), lines_to_skip(lines) {}
    TextRows text;
    uint32_t lines_to_skip;
  };

  // new TextStream({ delimiter, columns, wanted }, position, linesToSkip)
  explicit TextStreamWrap(const Napi::CallbackInfo& info);

  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("TextStream",
                DefineClass(env, "TextStream",
                            {InstanceAccessor<&TextStreamWrap::Position>("position"),
                             InstanceAccessor<&TextStreamWrap::Lines>("lines")}));
  }

  const std::shared_ptr<State>& state() const { return state_; }

 private:
  Napi::Value Position(const Napi::CallbackInfo& info) { return NumberOf(info.Env(), state_->text.position()); }

  Napi::Value Lines(const Napi::CallbackInfo& info) { return NumberOf(info.Env(), state_->text.lines()); }

  std::shared_ptr<State> state_;
};

TextFormat ToTextFormat(const Napi::Object& object) {
  return {String(object, "delimiter")[0], Uint32(object, "columns"), Numbers(object, "wanted")};
}

TextStreamWrap::TextStreamWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<TextStreamWrap>(info),
      state_(std::make_shared<State>(ToTextFormat(info[0].As<Napi::Object>()),
                                     static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()),
                                     info[2].As<Napi::Number>().Uint32Value())) {}

Napi::Value FromCard(Napi::Env env, const DataCard& card) {
  Napi::Object result = Napi::Object::New(env);
  const Napi::Array ids = Napi::Array::New(env), dense = Napi::Array::New(env), labels = Napi::Array::New(env);
  for (const DataCard::Id& id : card.ids) {
    Napi::Object object = Napi::Object::New(env);
    const std::vector<uint8_t> registers = id.distinct.Save();
    object.Set("registers", CopyArray<Napi::Uint8Array>(env, registers));
    object.Set("ids", NumberOf(env, id.ids));
    object.Set("missing", NumberOf(env, id.missing));
    ids.Set(ids.Length(), object);
  }
  for (const DataCard::Dense& column : card.dense) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("count", NumberOf(env, column.moments.count));
    object.Set("mean", column.moments.mean);
    object.Set("m2", column.moments.m2);
    object.Set("least", column.least);
    object.Set("most", column.most);
    dense.Set(dense.Length(), object);
  }
  for (const DataCard::Label& label : card.labels) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("sum", label.sum);
    object.Set("positive", NumberOf(env, label.positive));
    labels.Set(labels.Length(), object);
  }
  result.Set("ids", ids);
  result.Set("dense", dense);
  result.Set("labels", labels);
  return result;
}

Napi::Value FromShard(Napi::Env env, const ShardFile& shard) {
  Napi::Object object = Napi::Object::New(env);
  const Napi::Array blocks = Napi::Array::New(env);
  for (const uint64_t checksum : shard.block_checksums) blocks.Set(blocks.Length(), HexOf(env, checksum));
  object.Set("rows", NumberOf(env, shard.rows));
  object.Set("bytes", NumberOf(env, shard.bytes));
  object.Set("checksum", HexOf(env, shard.frame_checksum));
  object.Set("blocks", blocks);
  return object;
}

// The types of all this in JavaScript: ts/data/native-prepare.ts.
class PartWriterWrap : public Napi::ObjectWrap<PartWriterWrap> {
 public:
  explicit PartWriterWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<PartWriterWrap>(info),
        writer_(std::make_shared<PartWriter>(ToOptions(info[0].As<Napi::Object>()))) {}

  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("PartWriter", DefineClass(env, "PartWriter",
                                          {InstanceMethod<&PartWriterWrap::PushFile>("pushFile"),
                                           InstanceMethod<&PartWriterWrap::PushText>("pushText"),
                                           InstanceMethod<&PartWriterWrap::PushChunk>("pushChunk"),
                                           InstanceMethod<&PartWriterWrap::PushArrow>("pushArrow"),
                                           InstanceMethod<&PartWriterWrap::PushSynth>("pushSynth"),
                                           InstanceMethod<&PartWriterWrap::Finish>("finish")}));
  }

 private:
  static PartOptions ToOptions(const Napi::Object& object) {
    PartOptions options;
    options.columns = ToDecoderOptions(object);
    options.shard_columns = ToShardColumns(Object(object, "shardColumns"));
    options.train_path = String(object, "trainPath");
    options.test_path = OptionalString(object, "testPath").value_or("");
    if (!object.Get("share").IsUndefined()) options.share = ToShareSplit(Object(object, "share"));
    options.stop_at_bad_row = Bool(object, "stopAtBadRow");
    options.most_reports = Uint32(object, "mostReports");
    return options;
  }

  // pushFile({ path, format, begin, end, isLine, linesToSkip }): Promise<void>
  Napi::Value PushFile(const Napi::CallbackInfo& info) {
    const auto object = info[0].As<Napi::Object>();
    return RunInPool(info.Env(), [writer = writer_, path = String(object, "path"),
                                  format = ToTextFormat(Object(object, "format")), begin = Uint64(object, "begin"),
                                  end = Uint64(object, "end"), is_line = Bool(object, "isLine"),
                                  lines = Uint32(object, "linesToSkip")] {
      return writer->PushFile(path, format, begin, end, is_line, lines);
    });
  }

  // pushText(stream: TextStream, bytes: Uint8Array | null): Promise<void>; null: the text is complete
  Napi::Value PushText(const Napi::CallbackInfo& info) {
    const auto stream = Napi::ObjectWrap<TextStreamWrap>::Unwrap(info[0].As<Napi::Object>())->state();
    const bool ends = info[1].IsNull();
    const auto bytes = ends ? std::span<const uint8_t>() : TypedArray<const uint8_t>(info[1], "bytes");
    const auto owner = ends ? nullptr : KeepAlive(info.Env(), {info[1]});
    return RunInPool(info.Env(), [writer = writer_, stream, ends, bytes, owner] {
      if (ends) {
        stream->text.End();
      } else {
        stream->text.Push(bytes);
      }
      while (stream->lines_to_skip > 0 && stream->text.SkipLine()) --stream->lines_to_skip;
      return stream->lines_to_skip > 0 ? Status::Ok() : writer->PushText(&stream->text, UINT64_MAX);
    });
  }

  // pushChunk(chunk: NativeChunk, from: number, end: number): Promise<void>
  Napi::Value PushChunk(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [writer = writer_, view = ToChunkView(info[0].As<Napi::Object>()),
                                  from = info[1].As<Napi::Number>().Uint32Value(),
                                  end = info[2].As<Napi::Number>().Uint32Value(),
                                  owner = KeepAlive(info.Env(), {info[0]})] { return writer->Push(view, from, end); });
  }

  // pushArrow(rows: ArrowRows, first: number, end: number): Promise<void>
  Napi::Value PushArrow(const Napi::CallbackInfo& info) {
    const auto first = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
    const auto end = static_cast<uint64_t>(info[2].As<Napi::Number>().Int64Value());
    return RunInPool(info.Env(), [writer = writer_, arrow = GetArrowRows(info[0]), first, end] {
      for (uint64_t row = first; row < end && !writer->stopped(); row += kChunkRows) {
        const auto rows = static_cast<uint32_t>(std::min(kChunkRows, end - row));
        const auto chunk = arrow->Read(row, rows);
        if (!chunk.ok()) return chunk.status();
        PERSIA_RETURN_IF_ERROR(writer->Push(*chunk.value(), 0, rows));
      }
      return Status::Ok();
    });
  }

  // pushSynth(rows: SynthRows, first: number, end: number): Promise<void>
  Napi::Value PushSynth(const Napi::CallbackInfo& info) {
    const auto generator = Napi::ObjectWrap<SynthRowsWrap>::Unwrap(info[0].As<Napi::Object>())->generator();
    const auto first = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
    const auto end = static_cast<uint64_t>(info[2].As<Napi::Number>().Int64Value());
    return RunInPool(info.Env(), [writer = writer_, generator, first, end] {
      for (uint64_t row = first; row < end; row += kChunkRows) {
        const auto rows = static_cast<uint32_t>(std::min(kChunkRows, end - row));
        const SynthChunk chunk(*generator, row, rows);
        PERSIA_RETURN_IF_ERROR(writer->Push(chunk.view(), 0, rows));
      }
      return Status::Ok();
    });
  }

  // finish(): Promise<NativePart>
  Napi::Value Finish(const Napi::CallbackInfo& info) {
    return RunInPool(
        info.Env(), [writer = writer_] { return writer->Finish(); },
        [writer = writer_](Napi::Env env) -> Napi::Value { return FromPart(env, *writer); });
  }

  static Napi::Value FromPart(Napi::Env env, const PartWriter& writer) {
    Napi::Object part = Napi::Object::New(env);
    part.Set("rows", NumberOf(env, writer.rows()));
    part.Set("lines", NumberOf(env, writer.lines()));
    part.Set("begin", NumberOf(env, writer.begin()));
    part.Set("end", NumberOf(env, writer.end()));
    part.Set("badCount", NumberOf(env, writer.bad_count()));
    const Napi::Array bad = Napi::Array::New(env);
    for (const BadPartRow& row : writer.bad()) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("line", NumberOf(env, row.line));
      object.Set("column", row.column);
      object.Set("value", row.value);
      object.Set("reason", row.reason);
      bad.Set(bad.Length(), object);
    }
    part.Set("bad", bad);
    const Napi::Array sides = Napi::Array::New(env);
    for (const auto side : {PartWriter::kTrain, PartWriter::kTest}) {
      if (!writer.has(side)) continue;
      Napi::Object object = Napi::Object::New(env);
      object.Set("shard", FromShard(env, writer.shard(side)));
      object.Set("card", FromCard(env, writer.card(side)));
      sides.Set(sides.Length(), object);
    }
    part.Set("sides", sides);
    return part;
  }

  std::shared_ptr<PartWriter> writer_;
};

// distinct(registers: Uint8Array): number — the estimate of a HyperLogLog with these registers
Napi::Value Distinct(const Napi::CallbackInfo& info) {
  HyperLogLog sketch;
  if (!sketch.Restore(TypedArray<const uint8_t>(info[0], "registers"))) {
    throw Napi::TypeError::New(info.Env(), "native call: these are no registers");
  }
  return Napi::Number::New(info.Env(), sketch.Estimate());
}

}  // namespace

void RegisterData(Napi::Env env, Napi::Object exports) {
  SourceWrap::Register(env);
  TextStreamWrap::Register(env, exports);
  PartWriterWrap::Register(env, exports);
  SynthRowsWrap::Register(env, exports);
  exports.Set("openSynth", Napi::Function::New(env, OpenSynth, "openSynth"));
  exports.Set("synthColumns", Napi::Function::New(env, SynthColumns, "synthColumns"));
  exports.Set("synthCeiling", Napi::Function::New(env, SynthCeiling, "synthCeiling"));
  exports.Set("openPrepared", Napi::Function::New(env, OpenPrepared, "openPrepared"));
  exports.Set("distinct", Napi::Function::New(env, Distinct, "distinct"));
}

}  // namespace persia::bindings
