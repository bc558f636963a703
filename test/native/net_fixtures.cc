#include "net_fixtures.h"

#include <cstdlib>

#include "net/in_process_transport.h"

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

}  // namespace

std::vector<std::unique_ptr<TransportKind>> TransportKinds() {
  std::vector<std::unique_ptr<TransportKind>> kinds;
  const char* named = std::getenv("PERSIA_TEST_TRANSPORTS");
  std::string names = named != nullptr ? named : "in-process";
  names += ",";
  for (size_t begin = 0, end; (end = names.find(',', begin)) != std::string::npos; begin = end + 1) {
    if (auto kind = TransportKindNamed(names.substr(begin, end - begin))) kinds.push_back(std::move(kind));
  }
  return kinds;
}

std::unique_ptr<TransportKind> TransportKindNamed(const std::string& name) {
  if (name == "in-process") return std::make_unique<InProcessKind>();
  return nullptr;
}

}  // namespace persia
