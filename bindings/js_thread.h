// The way back to the JavaScript thread, and promises for work that ends elsewhere.
//
// One thread-safe function an environment carries closures to the JavaScript thread. It keeps the event loop running
// only while a promise made here is open. An environment that is closing drops what is posted.
//
// Thread-safety: JsThread may be copied to and used from any thread; the functions that take a Napi::Env are for the
// JavaScript thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include <napi.h>

#include "base/status.h"

namespace persia::bindings {

// Must be called once for each environment before anything else here.
void InitJsThread(Napi::Env env);

class JsThread {
 public:
  using Task = std::function<void(Napi::Env)>;

  explicit JsThread(Napi::Env env);
  void Post(Task task) const;

 private:
  friend void InitJsThread(Napi::Env env);
  friend class Settler;

  static void Run(Napi::Env env, Napi::Function, std::nullptr_t*, Task* task);
  using Function = Napi::TypedThreadSafeFunction<std::nullptr_t, Task, Run>;

  // Node frees a thread-safe function when its environment closes, so posts must know before it does.
  struct Channel {
    std::mutex mutex;
    bool closed = false;         // guarded by mutex
    Function function;
    uint32_t open_promises = 0;  // JavaScript thread only
  };
  using EnvironmentData = std::shared_ptr<Channel>;

  std::shared_ptr<Channel> channel_;
};

// Makes the value of a promise, on the JavaScript thread.
using MakeValue = std::function<Napi::Value(Napi::Env)>;

// Settles one promise, once, from any thread.
class Settler {
 public:
  explicit Settler(Napi::Env env);
  Napi::Promise promise() const { return deferred_->Promise(); }

  // Rejects with the status unless it is ok; resolves with `value` or undefined.
  void operator()(const Status& status, MakeValue value = nullptr) const;

 private:
  JsThread thread_;
  std::shared_ptr<Napi::Promise::Deferred> deferred_;
};

// Runs `work` on the libuv pool and settles with what it returns; `value` makes the result.
Napi::Promise RunInPool(Napi::Env env, std::function<Status()> work, MakeValue value = nullptr);

// Makes an object on the pool, since that takes a while: `make` gives a Result of a pointer to it. Resolves with what
// `wrap(env, std::shared_ptr<T>)` shows of it.
template <typename T, typename Make, typename Wrap>
Napi::Promise MakeInPool(Napi::Env env, Make make, Wrap wrap) {
  auto made = std::make_shared<std::shared_ptr<T>>();
  auto work = [make = std::move(make), made] {
    auto result = make();
    if (result.ok()) *made = std::move(*result);
    return result.status();
  };
  return RunInPool(env, std::move(work), [wrap = std::move(wrap), made](Napi::Env there) -> Napi::Value {
    return wrap(there, std::move(*made));
  });
}

}  // namespace persia::bindings
