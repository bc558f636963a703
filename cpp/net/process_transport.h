// The transport between processes: UCX active messages over tcp and rdma, our own rings over shared memory.
//
// Each connection begins as a TCP connection to the address that was listened at, the *control connection*
// (control_message.h): the sides compare what they have, choose (transport_choice.h) and tell where their messages go. It
// stays open and tells at once, whatever carries the messages, when the other process has gone.
//
//   control        ── offer ─► ◄─ answer ── place ─► ………………………… end of file: the peer is lost
//   UCX or rings                              ◄── messages ──►  goodbye
//
// Each message is a FrameHead { token u64, number u64, MessageHeader } and the payload: one active message of UCX, or bytes
// in the ring. UCX may complete messages in another order than they were sent in (several lanes, rendezvous): they are
// put in order by their numbers. Of a message whose payload UCX has not fetched yet (rendezvous) nothing takes memory here;
// it is fetched once its header is checked. A goodbye is the last message of a connection that ends in good order.
//
// Addresses are numeric ("127.0.0.1:0", "[::1]:7000"). Over tcp, messages take the network interface that the control
// connection takes, so a loopback connection stays on loopback.
//
// Threads: UCX, rings and sockets are touched by the progress thread only; Send from another thread hands it the message.
#pragma once

#include <memory>
#include <string>

#include "net/transport.h"
#include "net/transport_choice.h"

namespace persia {

struct ProcessTransportOptions {
  TransportOptions transport;
  TransportChoice choice = TransportChoice::kAuto;
  // What who connects must know; sent and compared before anything else. Empty: everybody may.
  std::string secret;
};

// kTransport: what was chosen can't work on this machine, since UCX is not there, or no device; the message says why. Shared
// memory works without UCX.
Result<std::unique_ptr<Transport>> MakeProcessTransport(const ProcessTransportOptions& options);

// What this machine has, for logs and `persia doctor`: a line each, such as
//   "ucx: 1.13.1 (/usr/lib/x86_64-linux-gnu/libucp.so.0)", "shm: works", "rdma: there is no RDMA device", "tcp: works"
std::string DescribeTransports();

}  // namespace persia
