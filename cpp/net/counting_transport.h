// A transport that counts the bytes of another one's messages, headers included, and remembers what carried them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "net/forwarding_transport.h"

namespace persia {

class CountingTransport final : public ForwardingTransport {
 public:
  struct Counts {
    uint64_t received = 0, sent = 0;
  };

  explicit CountingTransport(std::unique_ptr<Transport> inner) : ForwardingTransport(std::move(inner)) {}
  ~CountingTransport() override { Close(); }

  Counts counts() const { return {totals_->received, totals_->sent}; }
  // Transport::Describe of all peers that have sent anything, each text once.
  std::set<std::string> carriers() const {
    std::lock_guard lock(totals_->mutex);
    return totals_->carriers;
  }

  Result<std::string> Listen(const std::string& address, Acceptor acceptor) override;
  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) override;
  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override;

 private:
  class Handler;

  // Totals of their own, not an order of anything: relaxed. Handlers may outlive this.
  struct Totals {
    std::atomic<uint64_t> received{0}, sent{0};
    std::mutex mutex;
    std::set<std::string> carriers;  // guarded by it
  };

  const std::shared_ptr<Totals> totals_ = std::make_shared<Totals>();
};

}  // namespace persia
