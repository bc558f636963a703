#include "role_binding.h"

#include <memory>
#include <utility>

#include "cluster_options.h"
#include "convert.h"
#include "js_thread.h"
#include "loader_binding.h"
#include "trainer/cluster_roles.h"
#include "trainer_config.h"

namespace persia::bindings {
namespace {

const char* StateName(RoleState state) {
  switch (state) {
    case RoleState::kListening: return "listening";
    case RoleState::kRunning: return "running";
    case RoleState::kDraining: return "draining";
    case RoleState::kStopped: break;
  }
  return "stopped";
}

using MadeRole = Result<std::unique_ptr<ClusterRole>>;
using MakeRole = MadeRole (*)(const TrainerConfig& config, const RoleOptions& options);

class RoleBinding : public Napi::ObjectWrap<RoleBinding> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Role",
                       {InstanceMethod<&RoleBinding::Address>("address"),
                        InstanceMethod<&RoleBinding::Connect>("connect"), InstanceMethod<&RoleBinding::Ended>("ended"),
                        InstanceMethod<&RoleBinding::State>("state"),
                        InstanceMethod<&RoleBinding::Counters>("counters"),
                        InstanceMethod<&RoleBinding::Close>("close")});
  }

  // create…(config, options): Promise<Role>
  template <MakeRole make>
  static Napi::Value Create(const Napi::CallbackInfo& info) {
    return MakeInPool<ClusterRole>(
        info.Env(),
        [config = ReadTrainerConfig(info[0].As<Napi::Object>()), options = ReadRoleOptions(info[1].As<Napi::Object>())] {
          return make(config, options);
        },
        New);
  }

  // createDataLoader(config, options, queue): Promise<Role>
  static Napi::Value CreateDataLoader(const Napi::CallbackInfo& info) {
    return MakeInPool<ClusterRole>(
        info.Env(),
        [config = ReadTrainerConfig(info[0].As<Napi::Object>()), options = ReadRoleOptions(info[1].As<Napi::Object>()),
         queue = LoaderQueueOf(info[2])] { return MakeDataLoaderRole(config, options, queue); },
        New);
  }

  explicit RoleBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RoleBinding>(info) {
    if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "native call: use create…");
    role_ = std::move(*info[0].As<Napi::External<std::shared_ptr<ClusterRole>>>().Data());
  }

  // One for each environment; an environment is bound to its thread.
  static thread_local Napi::FunctionReference constructor;

 private:
  static Napi::Value New(Napi::Env env, std::shared_ptr<ClusterRole> role) {
    return constructor.New({Napi::External<std::shared_ptr<ClusterRole>>::New(env, &role)});
  }

  Napi::Value Address(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), role_->address()); }

  // connect(peers): Promise<void>
  Napi::Value Connect(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [role = role_, peers = ReadPeers(info[0].As<Napi::Object>())] {
      return role->Connect(peers);
    });
  }

  // ended(): Promise<void>
  Napi::Value Ended(const Napi::CallbackInfo& info) {
    Settler settle(info.Env());
    role_->OnEnd([settle](const Status& status) { settle(status); });
    return settle.promise();
  }

  Napi::Value State(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), StateName(role_->state())); }

  Napi::Value Counters(const Napi::CallbackInfo& info) {
    const RoleCounters counters = role_->counters();
    Napi::Object result = Napi::Object::New(info.Env());
    const auto set = [&](const char* name, uint64_t value) { result.Set(name, static_cast<double>(value)); };
    set("requests", counters.requests);
    set("repeated", counters.repeated);
    set("bytesReceived", counters.bytes_received);
    set("bytesSent", counters.bytes_sent);
    set("rows", counters.rows);
    set("batches", counters.batches);
    set("steps", counters.steps);
    const Napi::Array carriers = Napi::Array::New(info.Env());
    for (const std::string& carrier : counters.carriers) {
      carriers.Set(carriers.Length(), Napi::String::New(info.Env(), carrier));
    }
    result.Set("carriers", carriers);
    return result;
  }

  // close(): Promise<void>; may be called again. On the pool: what is under way is answered first.
  Napi::Value Close(const Napi::CallbackInfo& info) {
    return RunInPool(info.Env(), [role = role_] {
      role->Close();
      return Status::Ok();
    });
  }

  std::shared_ptr<ClusterRole> role_;
};

thread_local Napi::FunctionReference RoleBinding::constructor;

}  // namespace

void RegisterRoles(Napi::Env env, Napi::Object exports) {
  RoleBinding::constructor = Napi::Persistent(RoleBinding::Define(env));
  RoleBinding::constructor.SuppressDestruct();
  const auto add = [&](const char* name, Napi::Value (*create)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, create, name));
  };
  add("createParameterServer", RoleBinding::Create<MakeParameterServerRole>);
  add("createEmbeddingWorker", RoleBinding::Create<MakeEmbeddingWorkerRole>);
  add("createNnWorker", RoleBinding::Create<MakeNnWorkerRole>);
  add("createDataLoader", RoleBinding::CreateDataLoader);
}

}  // namespace persia::bindings
