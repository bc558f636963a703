// Of process_transport.h, for its parts only: what a transport between processes keeps, and which part does what.
//
//   process_transport.cc           what any thread calls; messages out, messages in; ends
//   process_transport_control.cc   the control connection: greeting, choice, how a peer opens
//   process_transport_stream.cc    messages as streams of bytes: shared memory, TCP
//   process_transport_ucx.cc       messages by UCX: RDMA
//
// Thread-safety: see process_transport.h; members say whose they are.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "net/control_message.h"
#include "net/event_loop.h"
#include "net/frame_stream.h"
#include "net/process_transport.h"
#include "net/shm_link.h"
#include "net/ucx_engine.h"

namespace persia {

class SocketAddress;

enum class PeerPhase {
  kConnecting,  // the socket
  kGreeting,    // control messages go back and forth
  kOpen,
  kLeaving,     // goodbye was sent; until the other side ends the control connection
  kLost,
};

// A message that came, on its way to its turn.
struct Arrived {
  MessageHeader header;
  Buffer payload;
  void* descriptor = nullptr;  // of UCX: what a payload that is not fetched yet is fetched by
  bool whole = true;           // false: the payload is being fetched
  bool goodbye = false;
};

// The progress thread's, except where said.
struct ProcessPeer {
  PeerId id = 0;
  bool accepted = false;
  PeerPhase phase = PeerPhase::kConnecting;
  std::shared_ptr<PeerHandler> handler;
  Acceptor acceptor;
  std::string from;
  int control = -1;
  uint32_t watched = 0;          // the events that the loop waits for on it
  std::string received, unsent;  // of the control connection
  uint64_t token = 0;            // in messages that come
  uint64_t token_there = 0;      // in messages that go
  ControlAnswer answer;
  std::deque<std::unique_ptr<Outgoing>> waiting;  // until it is open
  uint64_t next_out = 0, next_in = 0;

  // By a stream of bytes.
  std::unique_ptr<ByteLink> link;
  ShmLink* shm = nullptr;  // the same link, where it is one
  FrameWriter writer;
  FrameReader reader;
  bool carrying = false;     // the control connection carries the messages
  bool polled = false;       // it is in polled_
  uint32_t idle_rounds = 0;  // of polling it

  // By UCX.
  UcxEngine* engine = nullptr;
  ucp_ep_h endpoint = nullptr;
  bool wired = false;  // a message has come: both ends of the endpoint are connected
  std::map<uint64_t, Arrived> arrived;  // from next_in on

  std::atomic<bool> admitted{true};  // relaxed: it is set, if at all, before the peer knows that it may send more

  // Guarded by the transport's mutex.
  bool open = true;  // takes messages
  uint64_t queued_bytes = 0;
  std::string description = "not connected yet";
};

class ProcessTransport final : public Transport, private Poller {
 public:
  // `ucx` may be null: neither rdma, nor tcp by UCX.
  ProcessTransport(const UcxApi* ucx, const TransportReach& reach, const ProcessTransportOptions& options)
      : ucx_(ucx), options_(options), reach_(reach), loop_("net", options.transport.spin_us, this) {}
  ~ProcessTransport() override { Close(); }

  Result<std::string> Listen(const std::string& address, Acceptor acceptor) override;
  Result<PeerId> Connect(const std::string& address, std::shared_ptr<PeerHandler> handler) override;
  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override;
  void Admit(PeerId peer) override;
  void Disconnect(PeerId peer) override;
  void Post(std::function<void()> task) override { loop_.Post(std::move(task)); }
  void PostAt(SteadyClock::time_point time, std::function<void()> task) override { loop_.PostAt(time, std::move(task)); }
  bool OnProgressThread() const override { return loop_.OnLoop(); }
  void Close() override;
  std::string Describe(PeerId peer) const override;

 private:
  using Peer = ProcessPeer;
  using PeerPtr = std::shared_ptr<Peer>;
  using Phase = PeerPhase;
  struct UcxMessage;
  struct UcxFetch;

  // All of these run on the progress thread.
  bool Poll() override;
  bool Arm() override;

  // process_transport.cc
  void Transmit(const PeerPtr& peer, std::unique_ptr<Outgoing> message);
  void Leave(const PeerPtr& peer);
  Status CheckFrame(const Peer& peer, Bytes head, size_t length, Arrived* arrived) const;
  Status CheckAdmitted(const Peer& peer, size_t payload_bytes) const;
  void Deliver(const PeerPtr& peer, const MessageHeader& header, Buffer payload, uint64_t checksum);
  void LosePeer(const PeerPtr& peer, const Status& reason);
  void LeaveAll();
  void CloseAll();
  PeerPtr Find(PeerId peer) const;  // any thread
  void Unqueue(Peer* peer, size_t bytes);

  // process_transport_control.cc
  void OnListener(int listener, const Acceptor& acceptor);
  void StartConnecting(const PeerPtr& peer, const SocketAddress& address);
  void OnControl(const PeerPtr& peer, uint32_t events);
  void TakeControls(const PeerPtr& peer);
  bool ReadControl(const PeerPtr& peer);
  void WriteControl(const PeerPtr& peer, const std::string& bytes);
  void FlushControl(const PeerPtr& peer);
  void WatchControl(const PeerPtr& peer, bool for_room);
  Status TakeControl(const PeerPtr& peer, const ControlMessage& message);
  Status TakeOffer(const PeerPtr& peer, Bytes body);
  Status TakeAnswer(const PeerPtr& peer, Bytes body);
  Result<std::string> MakePlace(const PeerPtr& peer, ChosenTransport* chosen);
  Status Open(const PeerPtr& peer, const std::string& place);

  // process_transport_stream.cc
  void OpenStream(const PeerPtr& peer);
  void OnStream(const PeerPtr& peer);
  bool PollStreams();
  bool ArmStreams();
  bool MoveStream(const PeerPtr& peer);
  bool ReadStream(const PeerPtr& peer);
  bool TakeHead(const PeerPtr& peer);
  bool WriteStream(const PeerPtr& peer);
  void KeepPolling(const PeerPtr& peer);

  // process_transport_ucx.cc
  Result<UcxEngine*> EngineFor(TransportChoice kind, const std::string& interface);
  Status OpenEndpoint(const PeerPtr& peer, const std::string& worker);
  void TransmitByUcx(const PeerPtr& peer, std::unique_ptr<Outgoing> message);
  void Sent(UcxMessage* message, ucs_status_t status);
  static void OnSent(void* request, ucs_status_t status, void* user_data);
  bool PollUcx();
  bool ArmUcx();
  static ucs_status_t OnFrame(void* arg, const void* header, size_t header_length, void* data, size_t length,
                              const ucp_am_recv_param_t* param);
  ucs_status_t TakeFrame(Bytes head, void* data, size_t length, uint64_t attributes);
  void FetchPayload(const PeerPtr& peer, uint64_t number);
  static void OnFetched(void* request, ucs_status_t status, size_t length, void* user_data);
  void Fetched(UcxFetch* fetch, ucs_status_t status);
  void DeliverArrivals();
  void DeliverInOrder(const PeerPtr& peer);
  static void OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status);
  void CloseEndpoint(Peer* peer);
  void CloseUcx();

  const UcxApi* const ucx_;
  const ProcessTransportOptions options_;
  const TransportReach reach_;

  mutable std::mutex mutex_;  // guards these, and of the peers what they say
  std::condition_variable peer_gone_;
  std::vector<int> listeners_;
  std::map<PeerId, PeerPtr> peers_;
  PeerId next_peer_ = 1;
  bool closed_ = false;

  // The progress thread's.
  std::map<uint64_t, PeerPtr> by_token_;
  uint32_t accepted_ = 0;
  std::vector<PeerPtr> polled_;  // by streams: all of shared memory; of TCP those that have moved lately, or must

  // The progress thread's, for UCX.
  std::map<std::pair<TransportChoice, std::string>, std::unique_ptr<UcxEngine>> engines_;
  std::map<ucp_ep_h, PeerPtr> by_endpoint_;
  std::vector<PeerPtr> to_deliver_;                     // have arrivals since the last look
  std::vector<std::pair<PeerPtr, uint64_t>> to_fetch_;  // numbers of messages
  std::vector<std::pair<PeerPtr, Status>> to_lose_;     // found inside UCX's callbacks
  std::vector<void*> closing_;                          // UCX's requests to close endpoints
  uint64_t in_ucx_ = 0;                                 // messages that UCX has, out and in

  EventLoop loop_;  // last: its thread uses all of the above
};

}  // namespace persia
