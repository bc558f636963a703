// The transport between processes: streams of bytes over shared memory and TCP, UCX active messages over RDMA.
//
// Each connection begins as a TCP connection to the address that was listened at, the *control connection*
// (control_message.h): the sides compare what they have, choose (transport_choice.h) and tell where their messages go. It
// stays open and tells at once, whatever carries the messages, when the other process has gone. Where TCP was chosen, messages
// follow on it.
//
//   control        ── offer ─► ◄─ answer ── place ─► ………………………… end of file: the peer is lost
//   where they go                             ◄── messages ──►  goodbye
//
// Each message is a frame (frame.h). In a stream frames come one after another (frame_stream.h). UCX may complete messages in
// another order than they were sent in (several lanes, rendezvous): they are put in order by their numbers. Nothing takes memory
// for a payload before its header is checked; of UCX it is fetched then (rendezvous). A goodbye is the last frame of a
// connection that ends in good order.
//
// Addresses are numeric ("127.0.0.1:0", "[::1]:7000").
//
// Threads: UCX, shared memory and sockets are touched by the progress thread only; Send from another thread hands it the message.
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
  // Accepted TCP connections go by UCX as well, as those over RDMA do: to test that where there is no such device.
  bool tcp_by_ucx = false;
};

// kTransport: what was chosen can't work on this machine, since there is no device, or no UCX to use it; the message says why.
// Only rdma needs UCX.
Result<std::unique_ptr<Transport>> MakeProcessTransport(const ProcessTransportOptions& options);

// What this machine has, for logs and `persia doctor`: a line each, such as
//   "ucx: 1.13.1 (/usr/lib/x86_64-linux-gnu/libucp.so.0)", "shm: works", "rdma: there is no RDMA device", "tcp: works"
std::string DescribeTransports();

}  // namespace persia
