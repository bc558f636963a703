// What a ring takes of a neighbour before it has started the bucket itself, and of its own caller.
#include "collective/ring_collective.h"

#include <doctest/doctest.h>

#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "collective/ring_message.h"
#include "net/rpc_session.h"
#include "net_fixtures.h"

namespace persia {
namespace {

constexpr char kSecret[] = "the ring's secret";

MessageHeader HeaderOf(RingMessage message) {
  MessageHeader header;
  header.kind = MessageKind::kChunk;
  header.type = static_cast<uint16_t>(message);
  return header;
}

// Rank 1 of a ring of two: says what a test wants it to say.
class OddNeighbour {
 public:
  explicit OddNeighbour(TransportKind& kind) : transport_(kind.Make()) {
    const auto listening = transport_->Listen(kind.address(), [this](PeerId, const std::string&) {
      return std::make_shared<Welcoming>(*transport_);
    });
    REQUIRE(listening.ok());
    address_ = listening.value();
  }
  ~OddNeighbour() { transport_->Close(); }

  const std::string& address() const { return address_; }

  // Again until the other one knows its own rank: it hangs up before that.
  void Join(const std::string& next) {
    for (;;) {
      const auto inbox = std::make_shared<Inbox>();
      next_ = transport_->Connect(next, inbox).value();
      Send(HeaderOf(RingMessage::kJoin), EncodeJoin({1, 2, kSecret}));
      bool lost = false;
      REQUIRE(Eventually([&] { return inbox->size() > 0 || (lost = !inbox->WaitLost(0).empty()); }));
      if (!lost) return;
    }
  }
  void Send(const MessageHeader& header, Buffer payload) {
    static_cast<void>(transport_->Send(next_, header, Payload(std::move(payload))).ok());
  }

 private:
  class Welcoming final : public PeerHandler {
   public:
    explicit Welcoming(Transport& transport) : transport_(transport) {}
    void OnMessage(PeerId peer, const MessageHeader& header, Buffer) override {
      if (RingMessage(header.type) != RingMessage::kJoin) return;
      transport_.Admit(peer);
      static_cast<void>(transport_.Send(peer, HeaderOf(RingMessage::kJoined), {}).ok());
    }
    void OnLost(PeerId, const Status&) override {}

   private:
    Transport& transport_;
  };

  const std::unique_ptr<Transport> transport_;
  std::string address_;
  PeerId next_ = 0;
};

// Rank 0 of a ring whose other rank is odd.
struct Pair {
  explicit Pair(const RingOptions& options) : kind(TransportKindNamed("in-process")), neighbour(*kind) {
    auto member = MakeRingMember(kind->Make(), kind->address(), kSecret);
    REQUIRE(member.ok());
    const std::string address = member.value()->address();
    std::thread odd([&] { neighbour.Join(address); });
    auto joined = member.value()->Join(0, {address, neighbour.address()}, 30'000, options);
    odd.join();
    REQUIRE(joined.ok());
    ring = std::move(joined.value());
  }

  std::unique_ptr<TransportKind> kind;
  OddNeighbour neighbour;
  std::unique_ptr<Collective> ring;
};

constexpr uint32_t kValues = 65'536;               // of a bucket: one block
constexpr size_t kHalfBytes = kValues / 2 * sizeof(float);  // one share of two
constexpr uint64_t kBuckets = 8;                   // that may be under way
const RingOptions kOptions = {.deadline_ms = 60'000, .most_bytes = kBuckets * kValues * sizeof(float)};

RingStep StepOf(uint64_t bucket) { return {.bucket = bucket, .block = 0, .step = 0, .f64 = false, .count = kValues}; }

TEST_CASE("What a neighbour has under way comes early and is summed when its turn comes") {
  Pair pair(kOptions);
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    Buffer share(kHalfBytes);
    for (size_t i = 0; i < kValues / 2; ++i) reinterpret_cast<float*>(share.data())[i] = 2.0f;
    pair.neighbour.Send(StepOf(bucket).ToHeader(), std::move(share));
  }
  std::vector<float> values(kValues, 1.0f);
  const uint64_t first = pair.ring->Start(values);
  RingStep last = StepOf(first);
  last.step = 1;
  pair.neighbour.Send(last.ToHeader(), PatternBuffer(1, kHalfBytes));
  REQUIRE(pair.ring->Wait(first).ok());
  CHECK(values[kValues - 1] == 3.0f);
  CHECK(pair.ring->status().ok());
}

TEST_CASE("A neighbour that sends what no rank can have under way fails the ring, and no more is kept of it") {
  using Odd = std::pair<const char*, std::function<void(OddNeighbour&)>>;
  const auto send = [](OddNeighbour& neighbour, const RingStep& step, size_t bytes = kHalfBytes) {
    neighbour.Send(step.ToHeader(), Buffer(bytes));
  };
  const auto changed = [](auto change) {
    RingStep step = StepOf(0);
    change(step);
    return step;
  };
  const std::vector<Odd> all = {
      {"more bytes", [&](OddNeighbour& n) { for (uint64_t i = 0; i <= 2 * kBuckets; ++i) send(n, StepOf(i)); }},
      {"a bucket too far ahead", [&](OddNeighbour& n) { send(n, StepOf(kMostRingBuckets)); }},
      {"a share twice", [&](OddNeighbour& n) { send(n, StepOf(0)), send(n, StepOf(0)); }},
      {"a block that is not there", [&](OddNeighbour& n) { send(n, changed([](RingStep& s) { s.block = 1; })); }},
      {"a sum that needs this rank", [&](OddNeighbour& n) { send(n, changed([](RingStep& s) { s.step = 1; })); }},
      {"a part of a share", [&](OddNeighbour& n) { send(n, StepOf(0), kHalfBytes - 4); }},
      {"a share of another size", [&](OddNeighbour& n) { send(n, changed([](RingStep& s) { s.count = 64; })); }},
  };
  for (const auto& [what, odd] : all) {
    INFO(what);
    Pair pair(kOptions);
    odd(pair.neighbour);
    REQUIRE(Eventually([&] { return !pair.ring->status().ok(); }));
    const Status status = pair.ring->status();
    CHECK(status.code() == ErrorCode::kProtocol);
    CHECK(status.message().find("NN worker 1 sent what cannot be a part of bucket") == 0);
  }
}

TEST_CASE("A share of a bucket that is complete fails the ring") {
  Pair pair(kOptions);
  std::vector<float> values(kValues, 1.0f);
  const uint64_t bucket = pair.ring->Start(values);
  RingStep step = StepOf(bucket);
  for (step.step = 0; step.step < 2; ++step.step) pair.neighbour.Send(step.ToHeader(), PatternBuffer(1, kHalfBytes));
  REQUIRE(pair.ring->Wait(bucket).ok());
  pair.neighbour.Send(StepOf(bucket).ToHeader(), Buffer(kHalfBytes));
  REQUIRE(Eventually([&] { return !pair.ring->status().ok(); }));
  CHECK(pair.ring->status().code() == ErrorCode::kProtocol);
}

TEST_CASE("A rank that starts more than may be under way fails the ring with the reason") {
  Pair pair(kOptions);
  std::vector<std::vector<float>> buckets(kBuckets + 1, std::vector<float>(kValues));
  for (uint64_t i = 0; i < kBuckets; ++i) pair.ring->Start(buckets[i]);
  CHECK(pair.ring->status().ok());
  const Status status = pair.ring->Wait(pair.ring->Start(buckets[kBuckets]));
  CHECK(status.code() == ErrorCode::kUsage);
  CHECK(status.message().find("under way at once") != std::string::npos);
}

}  // namespace
}  // namespace persia
