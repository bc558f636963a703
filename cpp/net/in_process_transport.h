// A transport between threads of one process: for tests, and for what needs a transport where there is no network.
//
// Payloads are copied once, and headers, lengths and checksums are made and checked as on a wire. Addresses are names in
// a network: "NAME:0" takes a free number. A peer's messages wait in the event loop of the one who gets them.
#pragma once

#include <memory>
#include <string>

#include "net/transport.h"

namespace persia {

// What the transports that can reach each other share.
class InProcessNetwork;
std::shared_ptr<InProcessNetwork> MakeInProcessNetwork();

std::unique_ptr<Transport> MakeInProcessTransport(std::shared_ptr<InProcessNetwork> network, const std::string& name,
                                                  const TransportOptions& options = {});

}  // namespace persia
