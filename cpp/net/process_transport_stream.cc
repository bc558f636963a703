#include "net/process_transport_core.h"
#include "net/socket_link.h"

namespace persia {
namespace {

constexpr size_t kTurnBytes = kShmRingBytes;  // of a peer, then the others get their turn
constexpr uint32_t kIdleRounds = 64;          // then a socket is left to epoll

Status Lost(const std::string& why) { return Status(ErrorCode::kPeerLost, why); }

}  // namespace

void ProcessTransport::OpenStream(const PeerPtr& peer) {
  if (peer->shm != nullptr) {
    peer->shm->Unlink();
  } else {
    peer->carrying = true;
    peer->link = std::make_unique<SocketLink>(peer->control, std::exchange(peer->received, {}));
  }
  KeepPolling(peer);
}

void ProcessTransport::KeepPolling(const PeerPtr& peer) {
  peer->idle_rounds = 0;
  if (!std::exchange(peer->polled, true)) polled_.push_back(peer);
}

// Something has happened to a socket that carries messages.
void ProcessTransport::OnStream(const PeerPtr& peer) {
  KeepPolling(peer);
  MoveStream(peer);
  // Who waits for room asks for it again before the loop blocks.
  if (peer->phase != Phase::kLost) WatchControl(peer, false);
}

bool ProcessTransport::PollStreams() {
  bool any = false;
  // A callback may lose peers, or open some, which changes the list.
  for (size_t i = 0; i < polled_.size(); ++i) {
    const PeerPtr peer = polled_[i];
    if (MoveStream(peer)) {
      any = true;
      peer->idle_rounds = 0;
    } else if (++peer->idle_rounds > kIdleRounds && peer->carrying && peer->writer.empty() && peer->unsent.empty()) {
      // A link that gave nothing has nothing read ahead either.
      peer->polled = false;
      std::erase(polled_, peer);
    }
  }
  return any;
}

bool ProcessTransport::ArmStreams() {
  // All of them, so that none is left without having said what it waits for.
  bool sleeps = true;
  for (const PeerPtr& peer : polled_) {
    const bool for_room = !peer->writer.empty() || !peer->unsent.empty();
    if (peer->shm != nullptr) {
      sleeps = peer->shm->Sleep(!peer->writer.empty()) && sleeps;
    } else {
      WatchControl(peer, for_room);
    }
  }
  return sleeps;
}

// False: nothing came and nothing went.
bool ProcessTransport::MoveStream(const PeerPtr& peer) {
  const bool read = ReadStream(peer);
  return (peer->phase != Phase::kLost && WriteStream(peer)) || read;
}

// Writes what there is room for, at most a turn's worth. False: nothing.
bool ProcessTransport::WriteStream(const PeerPtr& peer) {
  if (peer->writer.empty()) return false;
  if (peer->carrying && !peer->unsent.empty()) {
    FlushControl(peer);
    if (!peer->unsent.empty()) return false;
  }
  const FrameWriter::Wrote wrote = peer->writer.Write(peer->link.get(), kTurnBytes);
  if (wrote.payload_bytes > 0) Unqueue(peer.get(), wrote.payload_bytes);
  if (!peer->writer.empty()) KeepPolling(peer);
  if (wrote.bytes > 0 && peer->shm != nullptr && peer->shm->MustWake()) WriteControl(peer, EncodeWake());
  return wrote.bytes > 0;
}

// Reads at most a turn's worth. False: nothing was there.
bool ProcessTransport::ReadStream(const PeerPtr& peer) {
  FrameReader& reader = peer->reader;
  ByteLink* const link = peer->link.get();
  size_t left = kTurnBytes;
  bool any = false;
  while (left > 0 && (peer->phase == Phase::kOpen || peer->phase == Phase::kLeaving)) {
    size_t count = 0;
    if (!reader.has_head()) {
      count = reader.ReadHead(link);
      any = any || count > 0;
      if (!reader.has_head()) break;
      if (!TakeHead(peer)) return true;
    }
    count = reader.ReadPayload(link, left);
    any = any || count > 0;
    left -= std::min(left, count + sizeof(FrameHead));
    if (reader.whole()) {
      const uint64_t checksum = reader.checksum();
      Deliver(peer, reader.head().message, reader.Take(), checksum);
    } else if (count == 0) {
      break;
    }
  }
  if (peer->phase == Phase::kLost) return true;
  const Status status = link->status();
  if (!status.ok()) {
    const bool left_by_us = peer->phase == Phase::kLeaving && status.code() == ErrorCode::kPeerLost;
    LosePeer(peer, left_by_us ? Status(ErrorCode::kAborted, "disconnected") : status);
    return true;
  }
  if (any && peer->shm != nullptr && peer->shm->MustWake()) WriteControl(peer, EncodeWake());
  return any;
}

// A head is there. True: it is right, and has memory for its payload; else the peer is lost.
bool ProcessTransport::TakeHead(const PeerPtr& peer) {
  const FrameHead& head = peer->reader.head();
  const bool goodbye = head.message.magic == 0;
  const Bytes header(reinterpret_cast<const std::byte*>(&head.message), goodbye ? 0 : sizeof(MessageHeader));
  Arrived arrived;
  Status good = CheckFrame(*peer, header, head.message.payload_bytes, &arrived);
  if (head.token != peer->token || head.number != peer->next_in++) {
    good = Status(ErrorCode::kProtocol, "a message is not of this connection or out of turn");
  }
  if (good.ok() && goodbye) good = Lost("the other side ended the connection");
  if (!good.ok()) {
    LosePeer(peer, good);
    return false;
  }
  // While it ends nobody is handed anything any more.
  const size_t bytes = arrived.header.payload_bytes;
  Buffer payload = peer->phase == Phase::kOpen ? peer->handler->Place(peer->id, arrived.header) : Buffer(bytes);
  PERSIA_CHECK(payload.size() == bytes);
  peer->reader.Place(std::move(payload));
  return true;
}

}  // namespace persia
