#include "net/ucx_library.h"

#include <dlfcn.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include <ucm/api/ucm.h>

#include "base/own_folder.h"

namespace persia {
namespace {

constexpr unsigned kMajor = 1, kLeastMinor = 12;  // of the active messages with headers and of ucp_config_modify for devices

struct Loaded {
  UcxApi api;
  Status status;
};

// The handlers of the signals for which UCX installs its own, as they were.
class KeptSignals {
 public:
  KeptSignals() {
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &actions_[i]);
  }
  ~KeptSignals() {
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &actions_[i], nullptr);
  }

 private:
  static constexpr std::array kSignals = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGTRAP, SIGUSR1, SIGUSR2, SIGHUP};
  std::array<struct sigaction, kSignals.size()> actions_{};
};

// Finds functions and remembers the first that is missing.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}

  template <typename F>
  void Find(const char* name, F* function) {
    *function = reinterpret_cast<F>(dlsym(library_, name));
    if (*function == nullptr && missing_.empty()) missing_ = name;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* const library_;
  std::string missing_;
};

void KeepQuiet(Symbols& symbols) {
  ucs_status_t (*set_option)(const char* name, const char* value) = nullptr;
  symbols.Find("ucs_global_opts_set_value", &set_option);
  const ucm_global_config_t* options = nullptr;
  symbols.Find("ucm_global_opts", &options);
  void (*set_memory_options)(const ucm_global_config_t*) = nullptr;
  symbols.Find("ucm_set_global_opts", &set_memory_options);
  if (!symbols.missing().empty()) return;
  set_option("LOG_LEVEL", "fatal");
  set_option("HANDLE_ERRORS", "none");
  set_option("MEMTYPE_CACHE", "n");
  ucm_global_config_t none = *options;
  none.enable_events = 0;
  none.enable_malloc_hooks = 0;
  none.enable_malloc_reloc = 0;
  none.log_level = UCS_LOG_LEVEL_FATAL;
  set_memory_options(&none);
}

void FindFunctions(Symbols& symbols, UcxApi* api) {
  symbols.Find("ucp_config_read", &api->config_read);
  symbols.Find("ucp_config_modify", &api->config_modify);
  symbols.Find("ucp_config_release", &api->config_release);
  symbols.Find("ucp_init_version", &api->init_version);
  symbols.Find("ucp_cleanup", &api->cleanup);
  symbols.Find("ucp_worker_create", &api->worker_create);
  symbols.Find("ucp_worker_destroy", &api->worker_destroy);
  symbols.Find("ucp_worker_get_address", &api->worker_get_address);
  symbols.Find("ucp_worker_release_address", &api->worker_release_address);
  symbols.Find("ucp_worker_get_efd", &api->worker_get_efd);
  symbols.Find("ucp_worker_arm", &api->worker_arm);
  symbols.Find("ucp_worker_progress", &api->worker_progress);
  symbols.Find("ucp_worker_set_am_recv_handler", &api->worker_set_am_recv_handler);
  symbols.Find("ucp_ep_create", &api->ep_create);
  symbols.Find("ucp_ep_close_nbx", &api->ep_close);
  symbols.Find("ucp_ep_print_info", &api->ep_print_info);
  symbols.Find("ucp_am_send_nbx", &api->am_send);
  symbols.Find("ucp_am_recv_data_nbx", &api->am_recv_data);
  symbols.Find("ucp_am_data_release", &api->am_data_release);
  symbols.Find("ucp_request_check_status", &api->request_check_status);
  symbols.Find("ucp_request_free", &api->request_free);
  symbols.Find("ucs_status_string", &api->status_string);
}

// While it is loaded, before any function of it can be called, UCX tries its memory hooks by growing and shrinking the
// heap (brk), beside whatever other threads do there: that cuts off memory which malloc has given out meanwhile. It leaves
// that alone when the environment says so. Inside Node ts/native.ts has said it already, on the JavaScript thread, since
// other threads may read the environment now.
void KeepHooksOff() {
  const char* const name = "UCX_MEM_EVENTS";
  const char* const events = getenv(name);
  if (events == nullptr || std::string_view(events) != "n") setenv(name, "n", 1);
}

// What was tried, as dlerror tells it.
class Attempts {
 public:
  void* Open(const std::string& path) {
    void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) failures_ += std::string(failures_.empty() ? "" : "; ") + dlerror();
    return library;
  }
  const std::string& failures() const { return failures_; }

 private:
  std::string failures_;
};

// libucp of a package, after what it needs: it finds those loaded, by their names, wherever else it would look for them.
// Lazily: libucm calls libucs, which needs libucm.
void* OpenBundled(const std::string& folder, Attempts* attempts) {
  for (const char* name : {"libnuma.so.1", "libucm.so.0", "libucs.so.0", "libuct.so.0"}) {
    if (attempts->Open(folder + name) == nullptr) return nullptr;
  }
  return attempts->Open(folder + "libucp.so.0");
}

void* OpenLibrary(Attempts* attempts) {
  if (const char* named = getenv("PERSIA_UCX_LIBRARY"); named != nullptr && *named != 0) return attempts->Open(named);
  void* const bundled = OpenBundled(OwnFolder() + "/ucx/", attempts);
  return bundled != nullptr ? bundled : attempts->Open("libucp.so.0");
}

Loaded Load() {
  KeepHooksOff();
  Loaded loaded;
  const KeptSignals kept;
  Attempts attempts;
  void* const library = OpenLibrary(&attempts);
  if (library == nullptr) {
    loaded.status = Status(ErrorCode::kTransport, "UCX, which carries messages over RDMA, was not found (" +
                                                      attempts.failures() +
                                                      "); install it (Debian and Ubuntu: apt-get install libucx0), or name "
                                                      "its libucp.so.0 in PERSIA_UCX_LIBRARY");
    return loaded;
  }
  Symbols symbols(library);
  KeepQuiet(symbols);
  FindFunctions(symbols, &loaded.api);
  void (*get_version)(unsigned*, unsigned*, unsigned*) = nullptr;
  symbols.Find("ucp_get_version", &get_version);
  Dl_info info{};
  if (get_version != nullptr && dladdr(reinterpret_cast<const void*>(get_version), &info) != 0) {
    loaded.api.path = info.dli_fname;
  }
  if (!symbols.missing().empty()) {
    loaded.status = Status(ErrorCode::kTransport, loaded.api.path + " has no " + symbols.missing() +
                                                      "; UCX 1.12 or newer is needed");
    return loaded;
  }
  unsigned major = 0, minor = 0, release = 0;
  get_version(&major, &minor, &release);
  loaded.api.version = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release);
  if (major != kMajor || minor < kLeastMinor) {
    loaded.status = Status(ErrorCode::kTransport, loaded.api.path + " is UCX " + loaded.api.version +
                                                      "; UCX 1.12 or newer is needed");
  }
  return loaded;
}

}  // namespace

Result<const UcxApi*> LoadUcx() {
  static const Loaded loaded = Load();
  if (!loaded.status.ok()) return loaded.status;
  return &loaded.api;
}

}  // namespace persia
