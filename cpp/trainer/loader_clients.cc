#include "trainer/loader_clients.h"

#include <optional>
#include <utility>
#include <vector>

#include "trainer/loader_messages.h"

namespace persia {
namespace {

constexpr uint64_t kReadingMs = 24ull * 60 * 60 * 1000;

}  // namespace

Status LoaderClients::Open(const LoaderQueue::Pass& pass) const {
  std::vector<std::optional<Payload>> requests(size());
  for (uint32_t rank = 1; rank < size(); ++rank) requests[rank] = Payload(EncodePass(pass));
  return loaders_.CallMany({loader_request::kOpen}, std::move(requests)).status();
}

void LoaderClients::Ask(const BatchPlace& place, BatchDone done) const {
  const RoleCall call{loader_request::kAsk, {}, true, kReadingMs};
  loaders_.Start(LoaderOf(place), call, Payload(EncodePlace(place)),
                 [place, done = std::move(done)](Result<RpcResponse> response) {
                   if (!response.ok()) return done(response.status());
                   const auto rows = DecodeAskReply(response->payload.bytes());
                   if (!rows.ok()) return done(rows.status());
                   if (!rows.value()) return done(std::shared_ptr<const Batch>());
                   auto batch = std::make_shared<Batch>();
                   batch->rows = *rows.value();
                   batch->place = place;
                   done(std::shared_ptr<const Batch>(std::move(batch)));
                 });
}

void LoaderClients::Send(const BatchPlace& place, uint64_t step, Done done) const {
  loaders_.Start(LoaderOf(place), {loader_request::kSend}, Payload(EncodeSendOrder({place, step})),
                 [done = std::move(done)](Result<RpcResponse> response) { done(response.status()); });
}

}  // namespace persia
