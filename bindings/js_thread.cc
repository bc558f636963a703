#include "js_thread.h"

#include <exception>
#include <new>

#include "convert.h"

namespace persia::bindings {

void InitJsThread(Napi::Env env) {
  auto channel = std::make_shared<JsThread::Channel>();
  channel->function = JsThread::Function::New(env, "persia", 0, 1);
  channel->function.Unref(env);
  env.SetInstanceData<JsThread::EnvironmentData>(new JsThread::EnvironmentData(channel));
  env.AddCleanupHook([channel] {
    std::lock_guard lock(channel->mutex);
    channel->closed = true;
  });
}

JsThread::JsThread(Napi::Env env) : channel_(*env.GetInstanceData<EnvironmentData>()) {}

void JsThread::Run(Napi::Env env, Napi::Function, std::nullptr_t*, Task* task) {
  if (env != nullptr) (*task)(env);
  delete task;
}

void JsThread::Post(Task task) const {
  std::lock_guard lock(channel_->mutex);
  if (channel_->closed) {
    // What the task holds may be freed on the JavaScript thread only, which is gone: it stays until the process ends.
    new Task(std::move(task));
    return;
  }
  const napi_status posted = channel_->function.NonBlockingCall(new Task(std::move(task)));
  PERSIA_CHECK(posted == napi_ok);
}

Settler::Settler(Napi::Env env) : thread_(env), deferred_(std::make_shared<Napi::Promise::Deferred>(env)) {
  if (thread_.channel_->open_promises++ == 0) thread_.channel_->function.Ref(env);
}

void Settler::operator()(const Status& status, MakeValue value) const {
  thread_.Post([channel = thread_.channel_, deferred = deferred_, status, value = std::move(value)](Napi::Env env) {
    Napi::HandleScope scope(env);
    if (--channel->open_promises == 0) channel->function.Unref(env);
    if (!status.ok()) {
      deferred->Reject(ToError(env, status).Value());
    } else {
      deferred->Resolve(value ? value(env) : env.Undefined());
    }
  });
}

namespace {

class PoolWorker : public Napi::AsyncWorker {
 public:
  PoolWorker(Napi::Env env, std::function<Status()> work, MakeValue value, Settler settle)
      : Napi::AsyncWorker(env), work_(std::move(work)), value_(std::move(value)), settle_(std::move(settle)) {}

 protected:
  void Execute() override { settle_(Work(), value_); }

 private:
  // The standard library reports a lack of memory by exception; none may leave this thread.
  Status Work() {
    try {
      return work_();
    } catch (const std::bad_alloc&) {
      return Status(ErrorCode::kOutOfMemory, "there is not enough memory");
    } catch (const std::exception& error) {
      return Status(ErrorCode::kInternal, error.what());
    }
  }

  std::function<Status()> work_;
  MakeValue value_;
  Settler settle_;
};

}  // namespace

Napi::Promise RunInPool(Napi::Env env, std::function<Status()> work, MakeValue value) {
  Settler settle(env);
  (new PoolWorker(env, std::move(work), std::move(value), settle))->Queue();
  return settle.promise();
}

}  // namespace persia::bindings
