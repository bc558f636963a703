#include "trainer/loader_server.h"

#include <utility>

#include "trainer/check_batch.h"
#include "trainer/loader_messages.h"

namespace persia {

LoaderServer::Connected::Connected(const std::shared_ptr<Transport>& transport, const Options& options, Peers peers)
    : embedding_workers(transport, std::move(peers.embedding_workers)),
      nn_workers(transport, std::move(peers.nn_workers)),
      forwarder(options.config, embedding_workers, nn_workers, options.codec) {}

LoaderServer::LoaderServer(std::shared_ptr<Transport> transport, Options options, std::shared_ptr<LoaderQueue> queue)
    : transport_(std::move(transport)),
      options_(std::move(options)),
      queue_(std::move(queue)),
      rpc_(MakeRpcServer(transport_, options_.rpc)) {
  Register();
}

LoaderServer::~LoaderServer() { Close(); }

Status LoaderServer::Connect(Peers peers) {
  auto connected = std::make_unique<Connected>(transport_, options_, std::move(peers));
  PERSIA_RETURN_IF_ERROR(connected->embedding_workers.WaitUntilReady());
  PERSIA_RETURN_IF_ERROR(connected->nn_workers.WaitUntilReady());
  std::lock_guard lock(mutex_);
  PERSIA_CHECK(connected_ == nullptr);
  connected_ = std::move(connected);
  return Status::Ok();
}

void LoaderServer::Close() {
  queue_->Close();
  if (Connected* all = connected(); all != nullptr) {  // batches that are on their way end
    all->embedding_workers.Close();
    all->nn_workers.Close();
  }
  rpc_->Close();
}

LoaderServer::Connected* LoaderServer::connected() const {
  std::lock_guard lock(mutex_);
  return connected_.get();
}

void LoaderServer::Register() {
  namespace type = loader_request;
  rpc_->Register(type::kOpen, [this](RpcRequest request, RpcReply reply) {
    Result<LoaderQueue::Pass> pass = DecodePass(request.payload.bytes());
    const Status status = pass.ok() ? queue_->Open(std::move(*pass)) : pass.status();
    status.ok() ? reply.Send(Payload()) : reply.Fail(status);
  });
  rpc_->Register(
      type::kAsk, [this](RpcRequest request, RpcReply reply) { Ask(request, std::move(reply)); }, {.idempotent = true});
  rpc_->Register(type::kSend, [this](RpcRequest request, RpcReply reply) {
    const Status status = Send(request);
    status.ok() ? reply.Send(Payload()) : reply.Fail(status);
  });
}

void LoaderServer::Ask(const RpcRequest& request, RpcReply reply) {
  const Result<BatchPlace> place = DecodePlace(request.payload.bytes());
  if (!place.ok()) return reply.Fail(place.status());
  const auto shared = std::make_shared<RpcReply>(std::move(reply));  // functions are copied, replies aren't
  queue_->Ask(place.value(), [shared](Result<std::optional<uint32_t>> rows) {
    rows.ok() ? shared->Send(Payload(EncodeAskReply(*rows))) : shared->Fail(rows.status());
  });
}

Status LoaderServer::Send(const RpcRequest& request) {
  const Result<SendOrder> order = DecodeSendOrder(request.payload.bytes());
  if (!order.ok()) return order.status();
  const Connected* all = connected();
  if (all == nullptr) return Status(ErrorCode::kUsage, "this data loader is not connected yet");
  const auto batch = queue_->Take(order.value().place);
  if (!batch.ok()) return batch.status();
  PERSIA_RETURN_IF_ERROR(CheckTrainingBatch(*batch.value(), options_.config));
  return all->forwarder.Forward(batch.value(), order.value().step);
}

}  // namespace persia
