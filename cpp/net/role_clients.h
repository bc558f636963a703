// RoleClients: the processes of one role ("parameter server" 0 … n - 1), as another role calls them.
//
// Errors name the process: one that can't be reached for `deadline_ms`, that is silent for kSilence times as long, that
// refuses this one or has forgotten it is kPeerLost, with the details `role` and `rank`. What a server's handler answered
// is handed on as it is. An answer may take long, since other processes are waited for behind it: it is they who are
// named when they are lost.
//
// Thread-safety: any thread, but not callbacks of the transport: calls wait for room.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/rpc.h"

namespace persia {

struct RoleClientsOptions {
  std::string role;                    // as in messages
  std::vector<std::string> addresses;  // by rank; empty: nobody, and no request may be for it
  std::string secret;
  uint64_t client_id = 0;
  uint64_t deadline_ms = 60'000;
};

inline constexpr uint64_t kSilence = 10;
// How long a role that is closed waits for others to end in good order: they may be gone, and nobody may know yet.
inline constexpr uint64_t kFarewellMs = 3'000;

// How a request is made.
struct RoleCall {
  uint16_t type = 0;
  WireFlags flags = {};
  bool repeatable = false;
  std::optional<uint64_t> deadline_ms = {};  // instead of kSilence times the role's
};

class RoleClients {
 public:
  RoleClients(std::shared_ptr<Transport> transport, RoleClientsOptions options);

  uint32_t size() const { return static_cast<uint32_t>(clients_.size()); }
  uint64_t deadline_ms() const { return options_.deadline_ms; }

  // Until every process has answered.
  Status WaitUntilReady();

  Result<RpcResponse> Call(uint32_t rank, const RoleCall& call, Payload request) const;
  // The same, and goes on: `done` runs on the transport's progress thread, or in here when there is no room.
  void Start(uint32_t rank, const RoleCall& call, Payload request, RpcDone done) const;

  // One request to each process for which there is one (by rank), all on the way at once; returns when all have ended.
  // The responses by rank, or the first error.
  Result<std::vector<RpcResponse>> CallMany(const RoleCall& call, std::vector<std::optional<Payload>> requests) const;
  // The same for all; `request` makes the payload of each.
  Result<std::vector<RpcResponse>> CallAll(const RoleCall& call, const std::function<Payload()>& request) const;

  // Ends all calls with kClosed. Idempotent.
  void Close();

 private:
  RpcCallOptions OptionsOf(const RoleCall& call) const;
  Status Named(uint32_t rank, const Status& status) const;

  const RoleClientsOptions options_;
  std::vector<std::unique_ptr<RpcClient>> clients_;  // by rank; nothing where nobody is
};

}  // namespace persia
