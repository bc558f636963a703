#include "net/counting_transport.h"

namespace persia {

class CountingTransport::Handler final : public PeerHandler {
 public:
  Handler(std::shared_ptr<PeerHandler> inner, std::shared_ptr<Totals> totals)
      : inner_(std::move(inner)), totals_(std::move(totals)) {}

  Buffer Place(PeerId peer, const MessageHeader& header) override { return inner_->Place(peer, header); }
  void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) override {
    totals_->received.fetch_add(sizeof(MessageHeader) + payload.size(), std::memory_order_relaxed);
    inner_->OnMessage(peer, header, std::move(payload));
  }
  void OnLost(PeerId peer, const Status& reason) override { inner_->OnLost(peer, reason); }

 private:
  const std::shared_ptr<PeerHandler> inner_;
  const std::shared_ptr<Totals> totals_;
};

Result<std::string> CountingTransport::Listen(const std::string& address, Acceptor acceptor) {
  return inner_->Listen(address, [acceptor = std::move(acceptor), totals = totals_](
                                     PeerId peer, const std::string& from) -> std::shared_ptr<PeerHandler> {
    std::shared_ptr<PeerHandler> handler = acceptor(peer, from);
    if (handler == nullptr) return nullptr;
    return std::make_shared<Handler>(std::move(handler), totals);
  });
}

Result<PeerId> CountingTransport::Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) {
  return inner_->Connect(address, std::make_shared<Handler>(std::move(handler), totals_));
}

Status CountingTransport::Send(PeerId peer, const MessageHeader& header, Payload payload) {
  const size_t bytes = sizeof(MessageHeader) + payload.bytes();
  Status status = inner_->Send(peer, header, std::move(payload));
  if (status.ok()) totals_->sent.fetch_add(bytes, std::memory_order_relaxed);
  return status;
}

}  // namespace persia
