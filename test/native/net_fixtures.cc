#include "net_fixtures.h"

#include <cstdlib>

#include <doctest/doctest.h>

#include "net/in_process_transport.h"
#include "net/process_transport.h"

namespace persia {
namespace {

class InProcessKind final : public TransportKind {
 public:
  std::string name() const override { return "in-process"; }
  std::unique_ptr<Transport> Make(const TransportOptions& options) override {
    return MakeInProcessTransport(network_, "t", options);
  }
  std::string address() const override { return "t:0"; }

 private:
  const std::shared_ptr<InProcessNetwork> network_ = MakeInProcessNetwork();
};

class ProcessKind final : public TransportKind {
 public:
  ProcessKind(TransportChoice choice, bool by_ucx) : choice_(choice), by_ucx_(by_ucx) {}

  std::string name() const override { return TransportChoiceName(choice_) + std::string(by_ucx_ ? "-by-ucx" : ""); }
  std::unique_ptr<Transport> Make(const TransportOptions& options) override {
    auto made = MakeProcessTransport({options, choice_, "the transport's secret", by_ucx_});
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    return std::move(made.value());
  }
  std::string address() const override { return "127.0.0.1:0"; }

 private:
  const TransportChoice choice_;
  const bool by_ucx_;
};

}  // namespace

std::vector<std::unique_ptr<TransportKind>> TransportKinds() {
  std::vector<std::unique_ptr<TransportKind>> kinds;
  const char* named = std::getenv("PERSIA_TEST_TRANSPORTS");
  std::string names = named != nullptr ? named : "in-process,tcp,tcp-by-ucx,shm";
  names += ",";
  for (size_t begin = 0, end; (end = names.find(',', begin)) != std::string::npos; begin = end + 1) {
    if (auto kind = TransportKindNamed(names.substr(begin, end - begin))) kinds.push_back(std::move(kind));
  }
  return kinds;
}

std::unique_ptr<TransportKind> TransportKindNamed(const std::string& name) {
  if (name == "in-process") return std::make_unique<InProcessKind>();
  // What carries rdma, where there is no device.
  if (name == "tcp-by-ucx") return std::make_unique<ProcessKind>(TransportChoice::kTcp, true);
  const auto choice = ParseTransportChoice(name);
  if (choice.ok()) return std::make_unique<ProcessKind>(choice.value(), false);
  return nullptr;
}

}  // namespace persia
