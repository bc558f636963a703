#include <sys/epoll.h>

#include <array>

#include "net/process_transport_core.h"

namespace persia {

// A message that UCX has, on its way out: until it is done with it.
struct ProcessTransport::UcxMessage {
  ProcessTransport* transport;
  PeerId peer;
  std::unique_ptr<Outgoing> message;
  std::array<ucp_dt_iov_t, Payload::kMostPieces> pieces{};
};

// One on its way in.
struct ProcessTransport::UcxFetch {
  ProcessTransport* transport;
  PeerId peer;
  uint64_t number;
  Buffer payload;  // outlives a peer that is lost meanwhile
};

namespace {

constexpr std::chrono::milliseconds kDrain{5'000};  // for UCX to end what it has, when a transport closes

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }

}  // namespace

Result<UcxEngine*> ProcessTransport::EngineFor(TransportChoice kind, const std::string& interface) {
  if (ucx_ == nullptr) return Status(ErrorCode::kTransport, "the other side goes by UCX, which this side has not loaded");
  std::string device;
  if (kind == TransportChoice::kTcp) device = interface;
  if (kind == TransportChoice::kRdma) {
    if (reach_.rdma_devices.empty()) return Status(ErrorCode::kTransport, reach_.no_rdma);
    device = reach_.rdma_devices.front();
  }
  auto& engine = engines_[{kind, device}];
  if (engine == nullptr) {
    auto made = UcxEngine::Make(*ucx_, kind, device, OnFrame, this);
    if (!made.ok()) return made.status();
    engine = std::move(made.value());
    loop_.Watch(engine->event_fd(), [](uint32_t) {}, EPOLLIN);  // only to wake up; Poll does the rest
  }
  return engine.get();
}

Status ProcessTransport::OpenEndpoint(const PeerPtr& peer, const std::string& worker) {
  if (worker.empty()) return Status(ErrorCode::kProtocol, "the other side does not say where it is");
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_FLAGS;
  params.address = reinterpret_cast<const ucp_address_t*>(worker.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = OnEndpointError;
  params.err_handler.arg = this;
  params.flags = UCP_EP_PARAMS_FLAGS_NO_LOOPBACK;
  const ucs_status_t status = ucx_->ep_create(peer->engine->worker(), &params, &peer->endpoint);
  if (status != UCS_OK) {
    peer->endpoint = nullptr;
    return Status(ErrorCode::kTransport, std::string("UCX cannot reach the other side by ") +
                                             TransportChoiceName(peer->engine->kind()) + ": " + ucx_->status_string(status));
  }
  by_endpoint_[peer->endpoint] = peer;
  return Status::Ok();
}

void ProcessTransport::TransmitByUcx(const PeerPtr& peer, std::unique_ptr<Outgoing> message) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.cb.send = OnSent;
  auto held = std::make_unique<UcxMessage>(UcxMessage{this, peer->id, std::move(message)});
  param.user_data = held.get();
  const Payload& payload = held->message->payload;
  const void* data = payload.pieces() > 0 ? payload.piece(0).data() : nullptr;
  size_t count = payload.bytes();
  param.datatype = ucp_dt_make_contig(1);
  if (payload.pieces() > 1) {
    for (size_t i = 0; i < payload.pieces(); ++i) {
      held->pieces[i].buffer = const_cast<std::byte*>(payload.piece(i).data());  // UCX only reads it
      held->pieces[i].length = payload.piece(i).size();
    }
    param.datatype = UCP_DATATYPE_IOV;
    data = held->pieces.data();
    count = payload.pieces();
  }
  ++in_ucx_;
  UcxMessage* const raw = held.release();
  const size_t head_bytes = raw->message->goodbye ? kGoodbyeBytes : sizeof(FrameHead);
  const ucs_status_ptr_t request = ucx_->am_send(peer->endpoint, 0, &raw->message->head, head_bytes, data, count, &param);
  if (UCS_PTR_IS_PTR(request)) return;  // OnSent comes
  Sent(raw, UCS_PTR_STATUS(request));
}

void ProcessTransport::OnSent(void* request, ucs_status_t status, void* user_data) {
  auto* message = static_cast<UcxMessage*>(user_data);
  ProcessTransport* const transport = message->transport;
  transport->Sent(message, status);
  transport->ucx_->request_free(request);
}

void ProcessTransport::Sent(UcxMessage* raw, ucs_status_t status) {
  const std::unique_ptr<UcxMessage> sent(raw);
  --in_ucx_;
  const PeerPtr peer = Find(sent->peer);
  if (peer == nullptr) return;
  Unqueue(peer.get(), sent->message->payload.bytes());
  // A lost peer's messages end with an error too; it is known already.
  if (status != UCS_OK && peer->phase != Phase::kLost) {
    to_lose_.emplace_back(peer, Lost(std::string("UCX could not send: ") + ucx_->status_string(status)));
  }
}

bool ProcessTransport::PollUcx() {
  if (engines_.empty()) return false;
  bool any = false;
  for (const auto& [key, engine] : engines_) any = (engine != nullptr && engine->Progress()) || any;
  DeliverArrivals();
  return any;
}

bool ProcessTransport::ArmUcx() {
  for (const auto& [key, engine] : engines_) {
    if (engine != nullptr && !engine->Arm()) return false;
  }
  return true;
}

ucs_status_t ProcessTransport::OnFrame(void* arg, const void* header, size_t header_length, void* data, size_t length,
                                   const ucp_am_recv_param_t* param) {
  const Bytes head(static_cast<const std::byte*>(header), header_length);
  return static_cast<ProcessTransport*>(arg)->TakeFrame(head, data, length, param->recv_attr);
}

// Inside UCX: nobody is called back from here, and no peer is lost.
ucs_status_t ProcessTransport::TakeFrame(Bytes head, void* data, size_t length, uint64_t attributes) {
  const bool fetch = (attributes & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  const ucs_status_t drop = fetch ? UCS_ERR_REJECTED : UCS_OK;
  std::array<uint64_t, 2> ids{};
  if (head.size() < kGoodbyeBytes) return drop;
  std::memcpy(ids.data(), head.data(), kGoodbyeBytes);
  const auto found = by_token_.find(ids[0]);
  if (found == by_token_.end()) return drop;  // of a connection that has ended, or nobody's
  const PeerPtr peer = found->second;
  peer->wired = true;
  Arrived arrived;
  const Status good = CheckFrame(*peer, head.subspan(kGoodbyeBytes), length, &arrived);
  if (!good.ok() || ids[1] < peer->next_in || peer->arrived.contains(ids[1])) {
    to_lose_.emplace_back(peer, good.ok() ? Status(ErrorCode::kProtocol, "a message came twice") : good);
    return drop;
  }
  if (fetch) {
    arrived.descriptor = data;
    arrived.whole = false;
    to_fetch_.emplace_back(peer, ids[1]);
  } else if (!arrived.goodbye) {
    arrived.payload = Buffer::CopyOf({static_cast<const std::byte*>(data), length});
  }
  peer->arrived.emplace(ids[1], std::move(arrived));
  to_deliver_.push_back(peer);
  return fetch ? UCS_INPROGRESS : UCS_OK;
}

void ProcessTransport::FetchPayload(const PeerPtr& peer, uint64_t number) {
  const auto found = peer->arrived.find(number);
  if (found == peer->arrived.end() || found->second.descriptor == nullptr) return;
  if (peer->phase == Phase::kGreeting) return;  // Open asks again
  const size_t bytes = found->second.header.payload_bytes;
  const Status good = CheckAdmitted(*peer, bytes);
  if (!good.ok()) return LosePeer(peer, good);
  // While it ends nobody is handed anything any more.
  Buffer payload = peer->phase == Phase::kOpen ? peer->handler->Place(peer->id, found->second.header) : Buffer(bytes);
  PERSIA_CHECK(payload.size() == bytes);
  void* const descriptor = std::exchange(found->second.descriptor, nullptr);
  auto fetch = std::make_unique<UcxFetch>(UcxFetch{this, peer->id, number, std::move(payload)});
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.cb.recv_am = OnFetched;
  param.user_data = fetch.get();
  param.datatype = ucp_dt_make_contig(1);
  ++in_ucx_;
  UcxFetch* const raw = fetch.release();
  const ucs_status_ptr_t request =
      ucx_->am_recv_data(peer->engine->worker(), descriptor, raw->payload.data(), bytes, &param);
  if (UCS_PTR_IS_PTR(request)) return;  // OnFetched comes
  Fetched(raw, UCS_PTR_STATUS(request));
}

void ProcessTransport::OnFetched(void* request, ucs_status_t status, size_t, void* user_data) {
  auto* fetch = static_cast<UcxFetch*>(user_data);
  ProcessTransport* const transport = fetch->transport;
  transport->Fetched(fetch, status);
  transport->ucx_->request_free(request);
}

void ProcessTransport::Fetched(UcxFetch* raw, ucs_status_t status) {
  const std::unique_ptr<UcxFetch> fetch(raw);
  --in_ucx_;
  const PeerPtr peer = Find(fetch->peer);
  if (peer == nullptr) return;
  const auto found = peer->arrived.find(fetch->number);
  if (found == peer->arrived.end()) return;
  if (status != UCS_OK) {
    to_lose_.emplace_back(peer, Lost(std::string("UCX could not fetch a message: ") + ucx_->status_string(status)));
    return;
  }
  found->second.payload = std::move(fetch->payload);
  found->second.whole = true;
  to_deliver_.push_back(peer);
}

// What UCX's callbacks have noted, now that it has returned.
void ProcessTransport::DeliverArrivals() {
  while (!to_fetch_.empty() || !to_deliver_.empty() || !to_lose_.empty()) {
    for (const auto& [peer, number] : std::exchange(to_fetch_, {})) FetchPayload(peer, number);
    for (const PeerPtr& peer : std::exchange(to_deliver_, {})) DeliverInOrder(peer);
    for (const auto& [peer, reason] : std::exchange(to_lose_, {})) LosePeer(peer, reason);
  }
  std::erase_if(closing_, [&](void* request) {
    if (ucx_->request_check_status(request) == UCS_INPROGRESS) return false;
    ucx_->request_free(request);
    return true;
  });
}

void ProcessTransport::DeliverInOrder(const PeerPtr& peer) {
  // A client may be quicker with its messages than with its place, over two connections: these wait for Open.
  while (peer->phase == Phase::kOpen || peer->phase == Phase::kLeaving) {
    const auto first = peer->arrived.find(peer->next_in);
    if (first == peer->arrived.end() || !first->second.whole) return;
    Arrived arrived = std::move(first->second);
    peer->arrived.erase(first);
    ++peer->next_in;
    if (arrived.goodbye) return LosePeer(peer, Lost("the other side ended the connection"));
    const uint64_t checksum = Xxh3(arrived.payload.data(), arrived.payload.size());
    Deliver(peer, arrived.header, std::move(arrived.payload), checksum);
  }
}

// Inside UCX: nobody is called back from here.
void ProcessTransport::OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status) {
  auto* transport = static_cast<ProcessTransport*>(arg);
  const auto found = transport->by_endpoint_.find(endpoint);
  if (found == transport->by_endpoint_.end()) return;
  transport->to_lose_.emplace_back(found->second,
                                   Lost(std::string("the connection broke: ") + transport->ucx_->status_string(status)));
}

// At once, whatever is on the way; UCX then ends the messages that it still has. Over RDMA, UCX 1.13 does not survive that
// while an endpoint is still being connected: such a one is closed behind what it has to send.
void ProcessTransport::CloseEndpoint(Peer* peer) {
  for (auto& [number, arrived] : peer->arrived) {
    if (arrived.descriptor != nullptr) ucx_->am_data_release(peer->engine->worker(), arrived.descriptor);
  }
  peer->arrived.clear();
  if (peer->endpoint == nullptr) return;
  by_endpoint_.erase(peer->endpoint);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  const bool at_once = peer->wired || peer->engine->kind() != TransportChoice::kRdma;
  param.flags = at_once ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  const ucs_status_ptr_t request = ucx_->ep_close(std::exchange(peer->endpoint, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) closing_.push_back(request);
}

// What UCX still has gets its time to end, then the engines go.
void ProcessTransport::CloseUcx() {
  const auto end = SteadyClock::now() + kDrain;
  while ((in_ucx_ > 0 || !closing_.empty()) && SteadyClock::now() < end) PollUcx();
  for (auto& [key, engine] : engines_) {
    if (engine == nullptr) continue;
    loop_.Unwatch(engine->event_fd());
    // UCX does not survive its end with operations left: better it stays, with the memory that these use.
    if (in_ucx_ > 0 || !closing_.empty()) static_cast<void>(engine.release());
  }
  engines_.clear();
}

}  // namespace persia
