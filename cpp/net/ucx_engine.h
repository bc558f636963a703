// One UCX context and worker of one kind (rdma; tcp to test without a device) on one device. Kinds are kept apart, so that which one carries
// a connection is decided by our rule (transport_choice.h) and nothing is opened that is not used.
//
// Thread-safety: confined to the progress thread of its transport.
#pragma once

#include <memory>
#include <string>

#include "net/transport_choice.h"
#include "net/ucx_library.h"

namespace persia {

class UcxEngine {
 public:
  // `device` is a network interface for tcp ("lo"), a device and port for rdma ("mlx5_0:1"). Messages come
  // to on_message(arg, …) while the worker progresses. kTransport: UCX can't do it here.
  static Result<std::unique_ptr<UcxEngine>> Make(const UcxApi& api, TransportChoice kind, const std::string& device,
                                                 ucp_am_recv_callback_t on_message, void* arg);
  ~UcxEngine();
  UcxEngine(const UcxEngine&) = delete;
  UcxEngine& operator=(const UcxEngine&) = delete;

  ucp_worker_h worker() const { return worker_; }
  const std::string& address() const { return address_; }  // of the worker, for others
  int event_fd() const { return event_fd_; }
  TransportChoice kind() const { return kind_; }
  const std::string& device() const { return device_; }

  // False: nothing happened.
  bool Progress();
  // False: something came up; progress first.
  bool Arm();

 private:
  UcxEngine(const UcxApi& api, TransportChoice kind, std::string device)
      : api_(api), kind_(kind), device_(std::move(device)) {}

  Status Open(ucp_am_recv_callback_t on_message, void* arg);
  Status OpenContext();
  Status OpenWorker(ucp_am_recv_callback_t on_message, void* arg);
  Status Check(ucs_status_t status, const std::string& what) const;

  const UcxApi& api_;
  const TransportChoice kind_;
  const std::string device_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::string address_;
  int event_fd_ = -1;
};

}  // namespace persia
