// A transport that is another one, but for what a class derived from it does in between. Whoever derives closes in its
// destructor, since the other one calls back until then.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "net/transport.h"

namespace persia {

class ForwardingTransport : public Transport {
 public:
  Result<std::string> Listen(const std::string& address, Acceptor acceptor) override {
    return inner_->Listen(address, std::move(acceptor));
  }
  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) override {
    return inner_->Connect(address, std::move(handler));
  }
  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override {
    return inner_->Send(peer, header, std::move(payload));
  }
  void Admit(PeerId peer) override { inner_->Admit(peer); }
  void Disconnect(PeerId peer) override { inner_->Disconnect(peer); }
  void Post(std::function<void()> task) override { inner_->Post(std::move(task)); }
  void PostAt(SteadyClock::time_point time, std::function<void()> task) override {
    inner_->PostAt(time, std::move(task));
  }
  bool OnProgressThread() const override { return inner_->OnProgressThread(); }
  void Close() override { inner_->Close(); }
  std::string Describe(PeerId peer) const override { return inner_->Describe(peer); }

 protected:
  explicit ForwardingTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}

  const std::unique_ptr<Transport> inner_;
};

}  // namespace persia
