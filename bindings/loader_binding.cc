#include "loader_binding.h"

#include <utility>

#include "batch_handle.h"
#include "convert.h"
#include "js_thread.h"

namespace persia::bindings {
namespace {

uint64_t Whole(const Napi::Value& value) { return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()); }

// pass, number, …
BatchPlace PlaceOf(const Napi::CallbackInfo& info) { return {Whole(info[0]), Whole(info[1])}; }

class QueueBinding : public Napi::ObjectWrap<QueueBinding> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "LoaderQueue", {InstanceMethod<&QueueBinding::NextPass>("nextPass"),
                                            InstanceMethod<&QueueBinding::Deliver>("deliver"),
                                            InstanceMethod<&QueueBinding::Finish>("finish")});
  }

  explicit QueueBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<QueueBinding>(info) {}

  std::shared_ptr<LoaderQueue> queue() const { return queue_; }

 private:
  // nextPass(last): Promise<{ number, text }>
  Napi::Value NextPass(const Napi::CallbackInfo& info) {
    Settler settle(info.Env());
    queue_->NextPass(Whole(info[0]), [settle](Result<LoaderQueue::Pass> pass) {
      if (!pass.ok()) return settle(pass.status());
      settle(Status::Ok(), [pass = std::move(*pass)](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("number", static_cast<double>(pass.number));
        result.Set("text", pass.text);
        return result;
      });
    });
    return settle.promise();
  }

  // deliver(pass, number, batch): Promise<void>
  Napi::Value Deliver(const Napi::CallbackInfo& info) {
    Settler settle(info.Env());
    queue_->Deliver(PlaceOf(info), BatchHandle::Get(info[2]), [settle](const Status& status) { settle(status); });
    return settle.promise();
  }

  void Finish(const Napi::CallbackInfo& info) { ThrowIfError(info.Env(), queue_->Finish(Whole(info[0]))); }

  const std::shared_ptr<LoaderQueue> queue_ = std::make_shared<LoaderQueue>();
};

class LoadersBinding : public Napi::ObjectWrap<LoadersBinding> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Loaders",
                       {InstanceMethod<&LoadersBinding::Open>("open"), InstanceMethod<&LoadersBinding::Ask>("ask")});
  }

  explicit LoadersBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LoadersBinding>(info) {
    if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "native call: use createClusterTrainer");
    loaders_ = *info[0].As<Napi::External<std::shared_ptr<LoaderClients>>>().Data();
  }

  // One for each environment; an environment is bound to its thread.
  static thread_local Napi::FunctionReference constructor;

 private:
  // open(pass, text): Promise<void>
  Napi::Value Open(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [loaders = loaders_, number = Whole(info[0]),
                                  text = info[1].As<Napi::String>().Utf8Value()] {
      return loaders->Open({number, text});
    });
  }

  // ask(pass, number): Promise<BatchHandle | null>
  Napi::Value Ask(const Napi::CallbackInfo& info) {
    Settler settle(info.Env());
    loaders_->Ask(PlaceOf(info), [settle](Result<std::shared_ptr<const Batch>> batch) {
      if (!batch.ok()) return settle(batch.status());
      settle(Status::Ok(), [batch = std::move(*batch)](Napi::Env env) -> Napi::Value {
        return batch == nullptr ? env.Null() : BatchHandle::Create(env, batch);
      });
    });
    return settle.promise();
  }

  std::shared_ptr<LoaderClients> loaders_;
};

thread_local Napi::FunctionReference LoadersBinding::constructor;

}  // namespace

std::shared_ptr<LoaderQueue> LoaderQueueOf(const Napi::Value& value) {
  return QueueBinding::Unwrap(value.As<Napi::Object>())->queue();
}

Napi::Object LoadersToJs(Napi::Env env, std::shared_ptr<LoaderClients> loaders) {
  Napi::EscapableHandleScope scope(env);
  auto held = Napi::External<std::shared_ptr<LoaderClients>>::New(env, &loaders);
  return scope.Escape(LoadersBinding::constructor.New({held})).As<Napi::Object>();
}

void RegisterLoaders(Napi::Env env, Napi::Object exports) {
  exports.Set("LoaderQueue", QueueBinding::Define(env));
  LoadersBinding::constructor = Napi::Persistent(LoadersBinding::Define(env));
  LoadersBinding::constructor.SuppressDestruct();
}

}  // namespace persia::bindings
