// UCX, loaded at run time: the addon works on machines without it, and so do tests. Headers are needed to build, nothing
// is linked.
//
// The file that PERSIA_UCX_LIBRARY names, or else: looked for in the folder `ucx` beside the addon (or program) that this
// code is linked into, where the package carries it (ci/bundle-ucx), then where the system keeps its libraries. The package's
// own comes first, so that all hosts of a cluster have the same one. UCX's modules (rdma) lie beside its libraries and
// are found from there.
//
// UCX does three things to a process that a Node process must not suffer, and that are undone here, in code, whatever the
// environment says: it installs handlers for SIGSEGV and its like when it is loaded (taken out again), it rewrites malloc and
// mmap in place when a registration cache starts (switched off before), and it logs to standard output (kept to fatal
// errors).
//
// Thread-safety: any thread. UCX stays loaded for the process's life.
#pragma once

#include <string>

#include <ucp/api/ucp.h>

#include "base/status.h"

namespace persia {

// The functions that are used of it.
struct UcxApi {
  std::string path;     // of libucp
  std::string version;  // "1.13.1"
  decltype(&ucp_config_read) config_read;
  decltype(&ucp_config_modify) config_modify;
  decltype(&ucp_config_release) config_release;
  decltype(&ucp_init_version) init_version;
  decltype(&ucp_cleanup) cleanup;
  decltype(&ucp_worker_create) worker_create;
  decltype(&ucp_worker_destroy) worker_destroy;
  decltype(&ucp_worker_get_address) worker_get_address;
  decltype(&ucp_worker_release_address) worker_release_address;
  decltype(&ucp_worker_get_efd) worker_get_efd;
  decltype(&ucp_worker_arm) worker_arm;
  decltype(&ucp_worker_progress) worker_progress;
  decltype(&ucp_worker_set_am_recv_handler) worker_set_am_recv_handler;
  decltype(&ucp_ep_create) ep_create;
  decltype(&ucp_ep_close_nbx) ep_close;
  decltype(&ucp_ep_print_info) ep_print_info;
  decltype(&ucp_am_send_nbx) am_send;
  decltype(&ucp_am_recv_data_nbx) am_recv_data;
  decltype(&ucp_am_data_release) am_data_release;
  decltype(&ucp_request_check_status) request_check_status;
  decltype(&ucp_request_free) request_free;
  decltype(&ucs_status_string) status_string;
};

// kTransport: there is none, or one that does not fit; the message says what was tried and what to install.
Result<const UcxApi*> LoadUcx();

}  // namespace persia
