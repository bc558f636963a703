#include "arrow_binding.h"

#include <string>
#include <utility>

#include "columns.h"
#include "convert.h"
#include "js_thread.h"

namespace persia::bindings {
namespace {

// A NativeArrowFile: { rows, columns: { name, type }[] }
class ArrowFileWrap : public Napi::ObjectWrap<ArrowFileWrap> {
 public:
  explicit ArrowFileWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ArrowFileWrap>(info) {
    source_ = *info[0].As<Napi::External<std::shared_ptr<ArrowSource>>>().Data();
  }

  static void Register(Napi::Env env) {
    Constructor() = Napi::Persistent(DefineClass(env, "ArrowFile",
                                                 {InstanceAccessor<&ArrowFileWrap::Rows>("rows"),
                                                  InstanceAccessor<&ArrowFileWrap::Columns>("columns")}));
    Constructor().SuppressDestruct();
  }

  static Napi::Value Create(Napi::Env env, std::shared_ptr<ArrowSource> source) {
    return Constructor().New({Napi::External<std::shared_ptr<ArrowSource>>::New(env, &source)});
  }

  const std::shared_ptr<ArrowSource>& source() const { return source_; }

 private:
  static Napi::FunctionReference& Constructor() {
    static thread_local Napi::FunctionReference constructor;
    return constructor;
  }

  Napi::Value Rows(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(source_->rows()));
  }

  Napi::Value Columns(const Napi::CallbackInfo& info) {
    const Napi::Array columns = Napi::Array::New(info.Env());
    for (const ArrowField& field : source_->file().fields()) {
      Napi::Object column = Napi::Object::New(info.Env());
      column.Set("name", field.name);
      column.Set("type", ArrowSource::TypeName(field));
      columns.Set(columns.Length(), column);
    }
    return columns;
  }

  std::shared_ptr<ArrowSource> source_;
};

// openArrow(path: string, name: string): Promise<NativeArrowFile>
Napi::Value OpenArrow(const Napi::CallbackInfo& info) {
  return MakeInPool<ArrowSource>(
      info.Env(),
      [path = info[0].As<Napi::String>().Utf8Value(), name = info[1].As<Napi::String>().Utf8Value()] {
        return ArrowSource::Open(path, name);
      },
      ArrowFileWrap::Create);
}

ArrowWanted ToWanted(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  const std::string kind = String(object, "kind");
  return {Uint32(object, "column"), kind == "text"     ? ValueKind::kText
                                    : kind == "number" ? ValueKind::kNumber
                                                       : ValueKind::kInteger};
}

ArrowLayout ToLayout(const Napi::Object& object) {
  ArrowLayout layout;
  layout.ids = List<ArrowWanted>(object, "ids", ToWanted);
  layout.dense = List<ArrowWanted>(object, "dense", ToWanted);
  layout.labels = List<ArrowWanted>(object, "labels", ToWanted);
  if (!object.Get("split").IsUndefined()) layout.split = ToWanted(object.Get("split"));
  return layout;
}

// A NativeArrowRows: new ArrowRows(file, layout)
class ArrowRowsWrap : public Napi::ObjectWrap<ArrowRowsWrap> {
 public:
  explicit ArrowRowsWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<ArrowRowsWrap>(info),
        rows_(std::make_shared<ArrowRows>(
            Napi::ObjectWrap<ArrowFileWrap>::Unwrap(info[0].As<Napi::Object>())->source(),
            ToLayout(info[1].As<Napi::Object>()))) {}

  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("ArrowRows", DefineClass(env, "ArrowRows", {}));
  }

  const std::shared_ptr<ArrowRows>& rows() const { return rows_; }

 private:
  std::shared_ptr<ArrowRows> rows_;
};

}  // namespace

std::shared_ptr<ArrowRows> GetArrowRows(const Napi::Value& value) {
  return Napi::ObjectWrap<ArrowRowsWrap>::Unwrap(value.As<Napi::Object>())->rows();
}

void RegisterArrow(Napi::Env env, Napi::Object exports) {
  ArrowFileWrap::Register(env);
  ArrowRowsWrap::Register(env, exports);
  exports.Set("openArrow", Napi::Function::New(env, OpenArrow, "openArrow"));
}

}  // namespace persia::bindings
