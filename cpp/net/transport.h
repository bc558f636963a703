// Transport: messages between processes, over whatever carries them. Implementations: in_process_transport.h (threads of
// one process, for tests), process_transport.h (tcp, rdma, shm), fault_transport.h (breaks another one on purpose).
//
// A connection is a *peer*: a number that is never used again in its transport. Messages of a peer arrive whole, once
// and in order, or the peer is lost; nothing arrives after that. What was sent before and did not arrive by then is gone:
// who needs more (retry, exactly once) uses rpc.h. Nothing here blocks.
//
// Threads: each transport has one progress thread, woken by events: it spins shortly and then blocks, so an idle transport
// costs nothing. Callbacks (PeerHandler, Acceptor, tasks) run there, one at a time, never under a lock; one that takes
// long holds up all peers. From inside callbacks everything may be called except Close and the destructor.
//
// Bounds: a message has at most limits.max_payload_bytes. A peer that does not take what is sent to it, until more than
// max_queued_bytes wait for it, is cut. An accepted peer may send small messages only (kMostUnadmittedBytes) until its
// handler has admitted it, so that strangers get no memory.
//
// Thread-safety: any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "net/buffer.h"
#include "net/message.h"

namespace persia {

using PeerId = uint64_t;  // 1, 2, …
using SteadyClock = std::chrono::steady_clock;

constexpr uint64_t kMostUnadmittedBytes = 4096;  // of payload

struct TransportOptions {
  MessageLimits limits;
  uint64_t max_queued_bytes = uint64_t{1} << 30;  // of one peer
  uint32_t max_peers = 4096;                      // accepted ones
  uint64_t connect_ms = 5'000;                    // the longest that an attempt to connect takes
  uint64_t spin_us = 50;  // how long the progress thread looks for events before it blocks
};

// What a peer's owner gets to know. The transport holds it until OnLost has returned.
class PeerHandler {
 public:
  virtual ~PeerHandler() = default;

  // Gives the memory that a payload goes to, of header.payload_bytes; called by transports that know the header before they
  // have the payload, and the header is checked. When the payload then is not what its checksum says, or does not come, there
  // is no OnMessage for it.
  virtual Buffer Place([[maybe_unused]] PeerId peer, const MessageHeader& header) { return Buffer(header.payload_bytes); }

  // The header is checked, the payload has its length and checksum.
  virtual void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) = 0;

  // Exactly once for each peer, also after Disconnect (kAborted) and Close (kClosed); the last call for it. kPeerLost:
  // it went, or could not be reached. kProtocol: it sent something that is no message. kRefused, kTransport: it said why
  // it does not want this connection, or why nothing can carry it; trying again is of no use.
  virtual void OnLost(PeerId peer, const Status& reason) = 0;
};

// Gives each accepted peer its handler; null refuses it. `from` is for logs.
using Acceptor = std::function<std::shared_ptr<PeerHandler>(PeerId peer, const std::string& from)>;

class Transport {
 public:
  virtual ~Transport() = default;  // closes

  // Accepts peers at an address, "127.0.0.1:0" or "[::1]:7000": port 0 takes a free one. Returns the address to connect
  // to. kTransport: it can't be used.
  virtual Result<std::string> Listen(const std::string& address, Acceptor acceptor) = 0;

  // Starts connecting and returns at once: messages may be sent right away. An address where nobody answers shows as
  // OnLost. kUsage: no address. kClosed: the transport is closed.
  virtual Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) = 0;

  // Sends a message; its lengths and checksums are filled in here. A peer that is lost takes nothing: kPeerLost, which
  // OnLost has told or will tell. kUsage: too large a message.
  virtual Status Send(PeerId peer, const MessageHeader& header, Payload payload) = 0;

  // From now on the accepted peer may send messages up to the limit.
  virtual void Admit(PeerId peer) = 0;

  // Ends a connection. What was sent before is still delivered, as long as that takes less than a second.
  virtual void Disconnect(PeerId peer) = 0;

  // Runs a task on the progress thread: soon, or at a time. Not run when the transport closes before.
  virtual void Post(std::function<void()> task) = 0;
  virtual void PostAt(SteadyClock::time_point time, std::function<void()> task) = 0;

  // Whether the caller is the progress thread.
  virtual bool OnProgressThread() const = 0;

  // Loses all peers, runs no more tasks, ends the progress thread. Nothing is called back afterwards. Idempotent.
  virtual void Close() = 0;

  // What carries messages to a peer, for logs: "in-process", "tcp", "rdma (mlx5_0:1)", …
  virtual std::string Describe(PeerId peer) const = 0;
};

// Waits until the callbacks that run right now are done, and whatever was posted before. Returns at once on the progress
// thread itself. For whoever must not be called back any more.
void WaitForCallbacks(Transport& transport);

}  // namespace persia
