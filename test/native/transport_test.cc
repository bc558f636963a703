// What every Transport promises, over each kind that is there.
#include "net/transport.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>

#include "net/fault_transport.h"
#include "net_fixtures.h"

namespace persia {
namespace {

// Two transports, one connection: `client` reaches `server` as `peer`.
struct Pair {
  explicit Pair(TransportKind& kind, const TransportOptions& options = {})
      : server(kind.Make(options)), client(kind.Make(options)) {
    const auto address = server->Listen(kind.address(), [this](PeerId from, const std::string&) {
      accepted = from;
      server->Admit(from);
      return server_inbox;
    });
    REQUIRE_MESSAGE(address.ok(), address.status().message());
    const auto connected = client->Connect(address.value(), client_inbox);
    REQUIRE_MESSAGE(connected.ok(), connected.status().message());
    peer = connected.value();
  }

  std::shared_ptr<Inbox> server_inbox = std::make_shared<Inbox>(), client_inbox = std::make_shared<Inbox>();
  std::atomic<PeerId> accepted{0};
  std::unique_ptr<Transport> server, client;
  PeerId peer = 0;
};

MessageHeader Request(uint64_t id) {
  MessageHeader header;
  header.kind = MessageKind::kRequest;
  header.request_id = id;
  header.type = static_cast<uint16_t>(id * 3);
  return header;
}

// Runs the test over each kind of transport.
void OverEachKind(const std::function<void(TransportKind&)>& test) {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    test(*kind);
  }
}

TEST_CASE("Messages of any size arrive whole and in order, in both directions") {
  OverEachKind([](TransportKind& kind) {
    Pair pair(kind);
    const std::vector<size_t> sizes = {0, 1, 7, 48, 1000, 4096, 8191, 8192, 65'536, 262'145, 1'000'003, 5'000'000};
    for (size_t i = 0; i < sizes.size(); ++i) {
      CHECK(pair.client->Send(pair.peer, Request(i), Payload(PatternBuffer(i, sizes[i]))).ok());
    }
    const auto there = pair.server_inbox->Take(sizes.size());
    REQUIRE(there.size() == sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      CHECK(there[i].header.request_id == i);
      CHECK(there[i].header.type == i * 3);
      CHECK(SameBytes(there[i].payload, PatternBuffer(i, sizes[i])));
      CHECK(pair.server->Send(there[i].peer, Request(i), Payload(PatternBuffer(i + 100, sizes[i]))).ok());
    }
    const auto back = pair.client_inbox->Take(sizes.size());
    REQUIRE(back.size() == sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      CHECK(back[i].peer == pair.peer);
      CHECK(SameBytes(back[i].payload, PatternBuffer(i + 100, sizes[i])));
    }
  });
}

TEST_CASE("A payload of several pieces arrives as one, and its owners are let go") {
  OverEachKind([](TransportKind& kind) {
    Pair pair(kind);
    std::atomic<int> released{0};
    const std::vector<Buffer> parts = [] {
      std::vector<Buffer> buffers;
      for (const size_t bytes : {3, 70'000, 1, 300'000}) buffers.push_back(PatternBuffer(bytes, bytes));
      return buffers;
    }();
    Payload payload;
    std::string expected;
    for (const Buffer& part : parts) {
      payload.Add(part.bytes(), std::shared_ptr<const void>(nullptr, [&](const void*) { ++released; }));
      expected += TextOf(part);
    }
    CHECK(pair.client->Send(pair.peer, Request(1), std::move(payload)).ok());
    const auto there = pair.server_inbox->Take(1);
    REQUIRE(there.size() == 1);
    CHECK(TextOf(there[0].payload) == expected);
    CHECK(Eventually([&] { return released == 4; }));
  });
}

TEST_CASE("Many peers of one transport keep their messages apart") {
  OverEachKind([](TransportKind& kind) {
    constexpr size_t kPeers = 6, kMessages = 200;
    const auto server = kind.Make();
    const auto inbox = std::make_shared<Inbox>();
    const auto address = server->Listen(kind.address(), [&](PeerId peer, const std::string&) {
      server->Admit(peer);
      return inbox;
    });
    REQUIRE(address.ok());
    const auto client = kind.Make();
    std::vector<std::thread> threads;
    for (uint64_t sender = 0; sender < kPeers; ++sender) {
      threads.emplace_back([&, sender] {
        const auto peer = client->Connect(address.value(), std::make_shared<Inbox>());
        for (uint64_t i = 0; i < kMessages; ++i) {
          static_cast<void>(client->Send(peer.value(), Request(sender << 32 | i), Payload(PatternBuffer(sender, 100 + i * 50))).ok());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    const auto items = inbox->Take(kPeers * kMessages);
    REQUIRE(items.size() == kPeers * kMessages);
    std::map<PeerId, uint64_t> next, sender_of;
    for (const auto& item : items) {
      const uint64_t sender = item.header.request_id >> 32;
      CHECK(sender_of.try_emplace(item.peer, sender).first->second == sender);
      const uint64_t number = next[item.peer]++;
      CHECK((item.header.request_id & 0xffffffff) == number);
      CHECK(SameBytes(item.payload, PatternBuffer(sender, 100 + number * 50)));
    }
    CHECK(sender_of.size() == kPeers);
  });
}

TEST_CASE("What was sent before a disconnect arrives, then both sides are told once") {
  OverEachKind([](TransportKind& kind) {
    Pair pair(kind);
    for (uint64_t i = 0; i < 50; ++i) CHECK(pair.client->Send(pair.peer, Request(i), Payload(PatternBuffer(i, 3000 * i))).ok());
    pair.client->Disconnect(pair.peer);
    CHECK(pair.client->Send(pair.peer, Request(99), {}).code() == ErrorCode::kPeerLost);
    CHECK(pair.server_inbox->Take(50).size() == 50);
    const auto server_lost = pair.server_inbox->WaitLost(), client_lost = pair.client_inbox->WaitLost();
    REQUIRE(server_lost.size() == 1);
    REQUIRE(client_lost.size() == 1);
    CHECK(server_lost[0].second.code() == ErrorCode::kPeerLost);
    CHECK(client_lost[0].second.code() == ErrorCode::kAborted);
    CHECK(server_lost[0].first == pair.accepted);
    CHECK(client_lost[0].first == pair.peer);
  });
}

TEST_CASE("A transport that closes is lost to its peers, and loses them") {
  OverEachKind([](TransportKind& kind) {
    Pair pair(kind);
    CHECK(pair.client->Send(pair.peer, Request(1), {}).ok());
    CHECK(pair.server_inbox->Take(1).size() == 1);
    pair.server->Close();
    const auto lost = pair.server_inbox->WaitLost();
    REQUIRE(lost.size() == 1);
    CHECK(lost[0].second.code() == ErrorCode::kClosed);
    const auto client_lost = pair.client_inbox->WaitLost();
    REQUIRE(client_lost.size() == 1);
    CHECK(client_lost[0].second.code() == ErrorCode::kPeerLost);
    CHECK(pair.server->Connect("127.0.0.1:1", pair.client_inbox).status().code() == ErrorCode::kClosed);
    pair.server->Close();
  });
}

TEST_CASE("An address where nobody listens is a lost peer") {
  OverEachKind([](TransportKind& kind) {
    const auto first = kind.Make(), second = kind.Make();
    const auto address = first->Listen(kind.address(), [](PeerId, const std::string&) { return nullptr; });
    REQUIRE(address.ok());
    first->Close();
    const auto inbox = std::make_shared<Inbox>();
    const auto peer = second->Connect(address.value(), inbox);
    REQUIRE(peer.ok());
    const auto lost = inbox->WaitLost();
    REQUIRE(lost.size() == 1);
    CHECK(lost[0].second.code() == ErrorCode::kPeerLost);
    CHECK(second->Send(peer.value(), Request(1), {}).code() == ErrorCode::kPeerLost);
  });
}

TEST_CASE("A refused peer is lost") {
  OverEachKind([](TransportKind& kind) {
    const auto server = kind.Make(), client = kind.Make();
    const auto address = server->Listen(kind.address(), [](PeerId, const std::string&) { return nullptr; });
    const auto inbox = std::make_shared<Inbox>();
    REQUIRE(client->Connect(address.value(), inbox).ok());
    CHECK(inbox->WaitLost().size() == 1);
  });
}

TEST_CASE("A stranger's large message is not taken, and ends its connection") {
  OverEachKind([](TransportKind& kind) {
    const auto server = kind.Make(), client = kind.Make();
    const auto inbox = std::make_shared<Inbox>(), client_inbox = std::make_shared<Inbox>();
    const auto address = server->Listen(kind.address(), [&](PeerId, const std::string&) { return inbox; });
    const auto peer = client->Connect(address.value(), client_inbox);
    CHECK(client->Send(peer.value(), Request(1), Payload(PatternBuffer(1, kMostUnadmittedBytes))).ok());
    CHECK(inbox->Take(1).size() == 1);
    CHECK(client->Send(peer.value(), Request(2), Payload(PatternBuffer(2, kMostUnadmittedBytes + 1))).ok());
    const auto lost = inbox->WaitLost();
    REQUIRE(lost.size() == 1);
    CHECK(lost[0].second.code() == ErrorCode::kProtocol);
    CHECK(inbox->size() == 0);
    CHECK(client_inbox->WaitLost().size() == 1);
  });
}

TEST_CASE("Too large a message is refused where it is sent, and the connection stays") {
  OverEachKind([](TransportKind& kind) {
    TransportOptions options;
    options.limits.max_payload_bytes = 100'000;
    Pair pair(kind, options);
    CHECK(pair.client->Send(pair.peer, Request(1), Payload(PatternBuffer(1, 100'001))).code() == ErrorCode::kUsage);
    CHECK(pair.client->Send(pair.peer, Request(2), Payload(PatternBuffer(2, 100'000))).ok());
    const auto there = pair.server_inbox->Take(1);
    REQUIRE(there.size() == 1);
    CHECK(there[0].header.request_id == 2);
  });
}

TEST_CASE("Tasks run in order on the progress thread, timers at their time") {
  OverEachKind([](TransportKind& kind) {
    const auto transport = kind.Make();
    std::mutex mutex;
    std::vector<int> order;
    std::atomic<bool> on_thread{false};
    const auto note = [&](int number) {
      return [&, number] {
        std::lock_guard lock(mutex);
        order.push_back(number);
        on_thread = transport->OnProgressThread();
      };
    };
    const auto now = SteadyClock::now();
    transport->PostAt(now + std::chrono::milliseconds(40), note(4));
    transport->PostAt(now + std::chrono::milliseconds(20), note(3));
    transport->Post(note(1));
    transport->Post(note(2));
    CHECK(Eventually([&] {
      std::lock_guard lock(mutex);
      return order.size() == 4;
    }));
    CHECK(SteadyClock::now() - now >= std::chrono::milliseconds(40));
    CHECK(order == std::vector<int>{1, 2, 3, 4});
    CHECK(on_thread);
    CHECK(!transport->OnProgressThread());
  });
}

TEST_CASE("An idle transport uses no processor time") {
  OverEachKind([](TransportKind& kind) {
    Pair pair(kind);
    CHECK(pair.client->Send(pair.peer, Request(1), {}).ok());
    CHECK(pair.server_inbox->Take(1).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    // Two spinning threads would take 0.8 of each 0.4 s. A machine that is busy or emulated adds some now and then.
    double least = 1;
    for (int i = 0; i < 5 && least >= 0.1; ++i) {
      timespec before{}, after{};
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
      least = std::min(least, static_cast<double>(after.tv_sec - before.tv_sec) +
                                  static_cast<double>(after.tv_nsec - before.tv_nsec) * 1e-9);
    }
    CHECK(least < 0.1);
  });
}

TEST_CASE("The faults of a transport follow from its seed") {
  OverEachKind([](TransportKind& kind) {
    FaultCounts first;
    for (int repeat = 0; repeat < 2; ++repeat) {
      FaultOptions options;
      options.drop = options.duplicate = 0.1;
      options.delay = 0.05;
      options.most_delay_us = 100;
      FaultTransport faulty(kind.Make(), options);
      const auto server = kind.Make();
      const auto inbox = std::make_shared<Inbox>();
      const auto address = server->Listen(kind.address(), [&](PeerId, const std::string&) { return inbox; });
      const auto peer = faulty.Connect(address.value(), std::make_shared<Inbox>());
      for (uint64_t i = 0; i < 300; ++i) CHECK(faulty.Send(peer.value(), Request(i), {}).ok());
      const FaultCounts counts = faulty.counts();
      CHECK(counts.sent == 300);
      CHECK(counts.dropped > 10);
      CHECK(counts.duplicated > 10);
      CHECK(counts.delayed > 2);
      if (repeat == 0) first = counts;
      CHECK(counts.dropped == first.dropped);
      CHECK(counts.duplicated == first.duplicated);
      size_t arrived = inbox->Take(300 - counts.dropped).size();
      CHECK(Eventually([&] { return (arrived += inbox->Take(0).size()) >= 300 - counts.dropped; }));
    }
  });
}

}  // namespace
}  // namespace persia
