#include "net/role_clients.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace persia {
namespace {

// Requests that are under way together.
struct Round {
  std::mutex mutex;
  std::condition_variable changed;
  size_t left = 0;
  std::vector<std::optional<Result<RpcResponse>>> results;  // by rank

  void End(uint32_t rank, std::optional<Result<RpcResponse>> result) {
    std::lock_guard lock(mutex);
    results[rank] = std::move(result);
    if (--left == 0) changed.notify_one();
  }
};

bool Has(const Status& status, const std::string& key) {
  return std::ranges::any_of(status.details(), [&](const auto& detail) { return detail.first == key; });
}

}  // namespace

RoleClients::RoleClients(std::shared_ptr<Transport> transport, RoleClientsOptions options)
    : options_(std::move(options)) {
  for (uint32_t rank = 0; rank < options_.addresses.size(); ++rank) {
    clients_.emplace_back();
    if (options_.addresses[rank].empty()) continue;
    RpcClientOptions client;
    client.address = options_.addresses[rank];
    client.secret = options_.secret;
    client.client_id = options_.client_id;
    client.peer_name = options_.role + " " + std::to_string(rank);
    client.lost_after_ms = options_.deadline_ms;
    clients_.back() = MakeRpcClient(transport, client);
  }
}

Status RoleClients::WaitUntilReady() {
  for (uint32_t rank = 0; rank < size(); ++rank) {
    if (clients_[rank] == nullptr) continue;
    PERSIA_RETURN_IF_ERROR(Named(rank, clients_[rank]->WaitUntilReady(options_.deadline_ms)));
  }
  return Status::Ok();
}

Result<RpcResponse> RoleClients::Call(uint32_t rank, const RoleCall& call, Payload request) const {
  std::vector<std::optional<Payload>> requests(size());
  requests[rank] = std::move(request);
  Result<std::vector<RpcResponse>> responses = CallMany(call, std::move(requests));
  if (!responses.ok()) return responses.status();
  return std::move((*responses)[rank]);
}

void RoleClients::Start(uint32_t rank, const RoleCall& call, Payload request, RpcDone done) const {
  PERSIA_CHECK(clients_[rank] != nullptr);
  clients_[rank]->Call(call.type, std::move(request), OptionsOf(call),
                       [this, rank, done = std::move(done)](Result<RpcResponse> result) {
                         done(result.ok() ? std::move(result) : Result<RpcResponse>(Named(rank, result.status())));
                       });
}

Result<std::vector<RpcResponse>> RoleClients::CallMany(const RoleCall& call,
                                                       std::vector<std::optional<Payload>> requests) const {
  const auto round = std::make_shared<Round>();
  round->results.resize(size());
  round->left = size();
  const RpcCallOptions options = OptionsOf(call);
  for (uint32_t rank = 0; rank < size(); ++rank) {
    if (!requests[rank]) {
      round->End(rank, std::nullopt);
      continue;
    }
    PERSIA_CHECK(clients_[rank] != nullptr);
    clients_[rank]->Call(call.type, std::move(*requests[rank]), options,
                         [round, rank](Result<RpcResponse> result) { round->End(rank, std::move(result)); });
  }
  std::unique_lock lock(round->mutex);
  round->changed.wait(lock, [&] { return round->left == 0; });
  std::vector<RpcResponse> responses(size());
  for (uint32_t rank = 0; rank < size(); ++rank) {
    std::optional<Result<RpcResponse>>& result = round->results[rank];
    if (!result) continue;
    if (!result->ok()) return Named(rank, result->status());
    responses[rank] = std::move(result->value());
  }
  return responses;
}

Result<std::vector<RpcResponse>> RoleClients::CallAll(const RoleCall& call,
                                                      const std::function<Payload()>& request) const {
  std::vector<std::optional<Payload>> requests;
  for (uint32_t rank = 0; rank < size(); ++rank) requests.push_back(request());
  return CallMany(call, std::move(requests));
}

void RoleClients::Close() {
  for (const auto& client : clients_) {
    if (client != nullptr) client->Close();
  }
}

RpcCallOptions RoleClients::OptionsOf(const RoleCall& call) const {
  return {call.deadline_ms.value_or(kSilence * options_.deadline_ms), call.repeatable, call.flags};
}

Status RoleClients::Named(uint32_t rank, const Status& status) const {
  const ErrorCode code = status.code();
  const bool lost = code == ErrorCode::kPeerLost || code == ErrorCode::kDeadline || code == ErrorCode::kRefused ||
                    code == ErrorCode::kTransport ||
                    (code == ErrorCode::kClosed && Has(status, "peer"));  // the server said so: it is being closed
  if (!lost || Has(status, "role")) return status;
  return Status(ErrorCode::kPeerLost, options_.role + " " + std::to_string(rank) + " was lost: " + status.message())
      .With("role", options_.role)
      .With("rank", std::to_string(rank));
}

}  // namespace persia
