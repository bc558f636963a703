// The transport between processes: UCX active messages over tcp, rdma or shared memory.
//
// Each connection begins as a TCP connection to the address that was listened at, the *control connection*
// (ucx_control.h): the sides compare what they have, choose (transport_choice.h) and exchange the addresses of their UCX
// workers. It stays open and tells at once, whatever carries the messages, when the other process has gone.
//
//   control   ── offer ─► ◄─ answer ── address ─► ………………………… end of file: the peer is lost
//   UCX                                   ◄── messages ──►  goodbye
//
// Each message is one active message: a header { token u64, number u64, MessageHeader } and the payload. UCX may complete
// messages in another order than they were sent in (several lanes, rendezvous): they are put in order by their numbers. What
// UCX holds back of a message whose payload it has not fetched yet (rendezvous) takes no memory here; it is fetched once
// its header is checked. A goodbye has no MessageHeader and is the last message of a connection that ends in good order.
//
// Addresses are numeric ("127.0.0.1:0", "[::1]:7000"). Over tcp, messages take the network interface that the control
// connection takes, so a loopback connection stays on loopback.
//
// Threads: UCX and sockets are touched by the progress thread only; Send from another thread hands it the message.
#pragma once

#include <memory>
#include <string>

#include "net/transport.h"
#include "net/transport_choice.h"

namespace persia {

struct UcxOptions {
  TransportOptions transport;
  TransportChoice choice = TransportChoice::kAuto;
  // What who connects must know; sent and compared before anything else. Empty: everybody may.
  std::string secret;
};

// kTransport: UCX is not there, or what was chosen can't work on this machine; the message says why.
Result<std::unique_ptr<Transport>> MakeUcxTransport(const UcxOptions& options);

// What this machine has, for logs and `persia doctor`: a line each, such as
//   "ucx: 1.13.1 (/usr/lib/x86_64-linux-gnu/libucp.so.0)", "shm: works", "rdma: there is no RDMA device", "tcp: works"
std::string DescribeUcx();

}  // namespace persia
