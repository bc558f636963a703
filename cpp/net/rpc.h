// Requests and replies between roles, over any Transport, executed exactly once.
//
// A client holds a *session* with a server: one connection at a time, many requests in flight, answered in any order.
// When the connection goes, the client connects again and sends what has no reply yet once more, under the same request
// ids, until the requests' deadlines.
//
//   client ──► Hello(secret, protocol, session, client id)      first message of each connection; the secret is compared in
//          ◄── Welcome(session's incarnation) | Refuse(Status)  constant time, a wrong one is refused, with the reason
//          ──► Request(id, done below, type, flags, payload)
//          ◄── Reply(id, flags, payload) | Failure(id, Status)
//          ──► Bye                                             the session is over
//
// Exactly once. Ids of a session are 1, 2, 3, …. The server keeps, for each id not below the client's "done below": that
// it is being executed, or its reply. A request that comes again is not executed again: it gets its reply when that is
// there, or again. What the client has a reply for is forgotten. Replies of types registered as `idempotent` are not
// kept; such a request is executed again when its reply was lost.
//   A server that was restarted has forgotten its sessions. Its Welcome says so by another incarnation, and the client fails what
// it had sent and what is not marked `repeatable`, with kPeerLost: nobody knows whether it was done. Requests that the
// receiver recognises by themselves (ParameterStore::Apply) or that change nothing are repeatable.
//
// Bounds: a client has at most max_requests_in_flight requests and max_bytes_in_flight of their payloads on the way, and
// none that is more than kMostAhead times as many ids ahead of the oldest without a reply; Call waits while there is no
// room (back-pressure), until the request's deadline. The server keeps at most max_sessions, of
// each at most max_requests_in_flight requests and max_remembered_bytes of replies. A session without a connection is
// forgotten after session_ttl_ms.
//
// Every request ends: with a reply, with the server's Status, or at its deadline (kDeadline), or when the client is
// closed (kClosed) or refused (kRefused).
//
// Threads: see each. Thread-safety: all methods from any thread, except where said.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "net/transport.h"

namespace persia {

constexpr uint64_t kMostAhead = 4;
// Session secrets are 16 to 64 bytes.
constexpr size_t kLeastSecretBytes = 16, kMostSecretBytes = 64;

// ---------------------------------------------------------------------------------------------------------- server

struct RpcServerOptions {
  std::string secret = {};                         // of all sessions
  uint32_t threads = 1;                            // that run handlers, "rpc-1", …
  uint32_t max_sessions = 1024;
  uint32_t max_requests_in_flight = 1024;          // of a session; at least kMostAhead times any client's
  uint64_t max_remembered_bytes = 64u << 20;       // of a session
  uint64_t session_ttl_ms = 600'000;
  uint64_t hello_ms = 5'000;                       // a connection that says nothing for so long is closed
};

// A request as its handler gets it.
struct RpcRequest {
  uint64_t client_id = 0;
  uint64_t session = 0;
  uint64_t id = 0;  // within the session
  uint16_t type = 0;
  WireFlags flags;
  Buffer payload;
};

class RpcSession;

// Answers one request, from any thread, at any time; later answers than the first are ignored. Dropped without an
// answer it fails the request with kAborted. May outlive the server: the answer goes nowhere then.
class RpcReply {
 public:
  RpcReply() = default;
  RpcReply(std::weak_ptr<RpcSession> session, uint64_t id) : session_(std::move(session)), id_(id) {}
  ~RpcReply();
  RpcReply(RpcReply&& other) noexcept;
  RpcReply& operator=(RpcReply&& other) noexcept;

  void Send(Payload payload, WireFlags flags = {});
  void Fail(const Status& status);

 private:
  std::weak_ptr<RpcSession> session_;
  uint64_t id_ = 0;  // 0: answered
};

using RpcHandler = std::function<void(RpcRequest request, RpcReply reply)>;

struct RpcHandlerOptions {
  bool idempotent = false;  // may be executed again: its replies are not kept
  // Runs on the transport's progress thread: no switch of threads, but it must take microseconds and never wait.
  bool on_progress_thread = false;
};

struct RpcServerCounts {
  uint64_t requests = 0;   // executed
  uint64_t repeated = 0;   // came again and were not executed again
  uint64_t refused = 0;    // connections
  uint64_t sessions = 0;   // now
};

class RpcServer {
 public:
  virtual ~RpcServer() = default;  // closes

  // Before Listen. A type has one handler.
  virtual void Register(uint16_t type, RpcHandler handler, const RpcHandlerOptions& options = {}) = 0;

  // Returns the address to connect to. kConfigInvalid: the secret is too short or too long. Else as Transport::Listen.
  virtual Result<std::string> Listen(const std::string& address) = 0;

  virtual RpcServerCounts counts() const = 0;

  // Takes no more requests, waits for the handlers that run, drops the rest, ends its threads. Idempotent. Not from a
  // handler.
  virtual void Close() = 0;
};

// The transport may serve other servers and clients too; it is closed by its owner, after this.
std::unique_ptr<RpcServer> MakeRpcServer(std::shared_ptr<Transport> transport, const RpcServerOptions& options);

// ---------------------------------------------------------------------------------------------------------- client

struct RpcClientOptions {
  std::string address;
  std::string secret;
  uint64_t client_id = 0;  // who this is, for the server's handlers; several clients may share one
  std::string peer_name = "the server";  // in messages: "parameter server 1"
  uint32_t max_requests_in_flight = 256;
  uint64_t max_bytes_in_flight = 256u << 20;
  // Between attempts to connect; doubles up to the longest.
  uint64_t least_backoff_ms = 5, most_backoff_ms = 1'000;
  // A server that does not admit this client for so long, from the start or when a connection went, is lost: all requests,
  // also later ones, fail with kPeerLost. 0: never, requests wait for their deadlines.
  uint64_t lost_after_ms = 0;
  // A request without an answer for so long is sent again on the same connection: no transport loses messages silently,
  // but if one ever does, this costs time and not the run.
  uint64_t resend_ms = 10'000;
};

struct RpcResponse {
  WireFlags flags;
  Buffer payload;
};

struct RpcCallOptions {
  uint64_t deadline_ms = 60'000;  // from the call on, with waiting for room
  bool repeatable = false;        // may be sent to a server that has forgotten whether it executed it
  WireFlags flags = {};
};

// Called once, on the progress thread (or in Call itself, when there is no room until the deadline); must not wait.
using RpcDone = std::function<void(Result<RpcResponse> response)>;

struct RpcClientCounts {
  uint64_t calls = 0, connections = 0, resent = 0;
};

class RpcClient {
 public:
  virtual ~RpcClient() = default;  // closes

  // Starts a request. Waits while there is no room, so not from callbacks of the same transport.
  virtual void Call(uint16_t type, Payload request, const RpcCallOptions& options, RpcDone done) = 0;

  // The same, and waits for the end.
  Result<RpcResponse> Call(uint16_t type, Payload request, const RpcCallOptions& options = {});

  // Waits until the server has admitted this client. kDeadline, kRefused, kClosed.
  virtual Status WaitUntilReady(uint64_t deadline_ms) = 0;

  virtual RpcClientCounts counts() const = 0;
  // What carries the connection: Transport::Describe.
  virtual std::string Describe() const = 0;

  // Fails all requests with kClosed and disconnects. Idempotent. Not from callbacks of the transport.
  virtual void Close() = 0;
};

// Connects when it is made, and again whenever the connection goes.
std::unique_ptr<RpcClient> MakeRpcClient(std::shared_ptr<Transport> transport, const RpcClientOptions& options);

}  // namespace persia
