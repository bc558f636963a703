#include "net/ucx_engine.h"

#include <utility>
#include <vector>

namespace persia {
namespace {

using Settings = std::vector<std::pair<const char*, std::string>>;

Settings SettingsOf(TransportChoice kind, const std::string& device) {
  switch (kind) {
    case TransportChoice::kTcp: return {{"TLS", "tcp"}, {"NET_DEVICES", device}};
    // UD only connects RC. Its check of a packet's destination refuses all that come over RoCE with IPv4 addresses.
    case TransportChoice::kRdma:
      return {{"TLS", "rc_verbs,rc_mlx5,ud_verbs:aux,ud_mlx5:aux"}, {"NET_DEVICES", device}, {"UD_VERBS_ETH_DGID_CHECK", "n"}};
    case TransportChoice::kAuto:
    case TransportChoice::kShm: break;
  }
  PERSIA_CHECK(false);
}

}  // namespace

Result<std::unique_ptr<UcxEngine>> UcxEngine::Make(const UcxApi& api, TransportChoice kind, const std::string& device,
                                                   ucp_am_recv_callback_t on_message, void* arg) {
  std::unique_ptr<UcxEngine> engine(new UcxEngine(api, kind, device));
  PERSIA_RETURN_IF_ERROR(engine->Open(on_message, arg));
  return engine;
}

UcxEngine::~UcxEngine() {
  if (worker_ != nullptr) api_.worker_destroy(worker_);
  if (context_ != nullptr) api_.cleanup(context_);
}

Status UcxEngine::Check(ucs_status_t status, const std::string& what) const {
  if (status == UCS_OK) return Status::Ok();
  return Status(ErrorCode::kTransport, std::string("UCX could not ") + what + " for " + TransportChoiceName(kind_) +
                                           (device_.empty() ? "" : " on " + device_) + ": " + api_.status_string(status));
}

Status UcxEngine::Open(ucp_am_recv_callback_t on_message, void* arg) {
  PERSIA_RETURN_IF_ERROR(OpenContext());
  return OpenWorker(on_message, arg);
}

Status UcxEngine::OpenContext() {
  ucp_config_t* config = nullptr;
  // A prefix of our own, so that UCX_… variables meant for other programs change nothing here.
  PERSIA_RETURN_IF_ERROR(Check(api_.config_read("PERSIA", nullptr, &config), "read its configuration"));
  Status set;
  for (const auto& [name, value] : SettingsOf(kind_, device_)) {
    if (set.ok()) set = Check(api_.config_modify(config, name, value.c_str()), std::string("set ") + name);
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 0;
  if (set.ok()) {
    set = Check(api_.init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &context_), "start");
  }
  api_.config_release(config);
  return set;
}

Status UcxEngine::OpenWorker(ucp_am_recv_callback_t on_message, void* arg) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // Used by one thread at a time, but closed by another than the one that opened it.
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  PERSIA_RETURN_IF_ERROR(Check(api_.worker_create(context_, &params, &worker_), "open a worker"));
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG |
                       UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  handler.id = 0;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = on_message;
  handler.arg = arg;
  PERSIA_RETURN_IF_ERROR(Check(api_.worker_set_am_recv_handler(worker_, &handler), "take messages"));
  PERSIA_RETURN_IF_ERROR(Check(api_.worker_get_efd(worker_, &event_fd_), "wake up by events"));
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  PERSIA_RETURN_IF_ERROR(Check(api_.worker_get_address(worker_, &address, &bytes), "tell its address"));
  address_.assign(reinterpret_cast<const char*>(address), bytes);
  api_.worker_release_address(worker_, address);
  return Status::Ok();
}

bool UcxEngine::Progress() {
  constexpr int kMostRounds = 16;  // then timers and other engines get their turn
  int rounds = 0;
  while (rounds < kMostRounds && api_.worker_progress(worker_) != 0) ++rounds;
  return rounds > 0;
}

bool UcxEngine::Arm() { return api_.worker_arm(worker_) == UCS_OK; }

}  // namespace persia
