#include "net/rpc.h"

#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <set>

#include "base/rng.h"
#include "net/fault_transport.h"
#include "net/rpc_session.h"
#include "net/wire.h"
#include "net_fixtures.h"

namespace persia {
namespace {

constexpr uint16_t kEcho = 1, kAdd = 2, kHold = 3, kUnknown = 99;
const std::string kSecret = "0123456789abcdef-secret";

// A server that echoes, and adds integers to counters.
struct TestServer {
  TestServer(std::unique_ptr<Transport> made, const std::string& at, RpcServerOptions options = {})
      : transport(std::move(made)) {
    options.secret = kSecret;
    server = MakeRpcServer(transport, options);
    server->Register(kEcho, [this](RpcRequest request, RpcReply reply) {
      ++echoed;
      reply.Send(Payload(std::move(request.payload)), request.flags);
    }, {.idempotent = true, .on_progress_thread = true});
    server->Register(kAdd, [this](RpcRequest request, RpcReply reply) {
      WireReader reader(request.payload.bytes());
      const auto key = reader.Value<uint32_t>();
      const auto value = reader.Value<int64_t>();
      std::lock_guard lock(mutex);
      sums[key] += value;
      ++applied[{request.session, request.id}];
      WireWriter writer;
      writer.Value(key);
      reply.Send(Payload(writer.Take()));
    });
    server->Register(kHold, [this](RpcRequest request, RpcReply reply) {
      std::lock_guard lock(mutex);
      held.emplace_back(std::move(request), std::move(reply));
    });
    const auto listening = server->Listen(at);
    REQUIRE_MESSAGE(listening.ok(), listening.status().message());
    address = listening.value();
  }
  ~TestServer() {
    server->Close();
    transport->Close();
  }

  size_t held_count() {
    std::lock_guard lock(mutex);
    return held.size();
  }

  std::shared_ptr<Transport> transport;
  std::unique_ptr<RpcServer> server;
  std::string address;
  std::atomic<uint64_t> echoed{0};
  std::mutex mutex;
  std::map<uint32_t, int64_t> sums;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> applied;
  std::vector<std::pair<RpcRequest, RpcReply>> held;
};

RpcClientOptions ClientOptions(const std::string& address) {
  RpcClientOptions options;
  options.address = address;
  options.secret = kSecret;
  options.client_id = 7;
  return options;
}

Buffer AddRequest(uint32_t key, int64_t value) {
  WireWriter writer;
  writer.Value(key);
  writer.Value(value);
  return writer.Take();
}

TEST_CASE("Requests are answered, whichever transport carries them") {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    TestServer server(kind->Make(), kind->address());
    const std::shared_ptr<Transport> transport = kind->Make();
    const auto client = MakeRpcClient(transport, ClientOptions(server.address));
    for (const size_t bytes : {0, 5, 70'000, 2'000'000}) {
      const auto reply = client->Call(kEcho, Payload(PatternBuffer(bytes, bytes)),
                                      {.flags = {WireFormat::kBf16, IdCodec::kLz4}});
      REQUIRE_MESSAGE(reply.ok(), reply.status().message());
      CHECK(SameBytes(reply.value().payload, PatternBuffer(bytes, bytes)));
      CHECK(reply.value().flags.format == WireFormat::kBf16);
      CHECK(reply.value().flags.codec == IdCodec::kLz4);
    }
    CHECK(client->counts().connections == 1);
    CHECK(client->counts().resent == 0);
  }
}

TEST_CASE("Many requests are in flight at once and are answered in any order") {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    TestServer server(kind->Make(), kind->address());
    const std::shared_ptr<Transport> transport = kind->Make();
    const auto client = MakeRpcClient(transport, ClientOptions(server.address));
    constexpr uint64_t kCalls = 50;
    std::atomic<uint64_t> right{0}, ended{0};
    for (uint64_t i = 0; i < kCalls; ++i) {
      client->Call(kHold, Payload(PatternBuffer(i, 64)), {}, [&, i](Result<RpcResponse> reply) {
        right += reply.ok() && SameBytes(reply.value().payload, PatternBuffer(i, 64));
        ++ended;
      });
    }
    REQUIRE(Eventually([&] { return server.held_count() == kCalls; }));
    CHECK(client->Call(kEcho, Payload(TextBuffer("in between"))).ok());
    CHECK(ended == 0);
    {
      std::lock_guard lock(server.mutex);
      for (size_t i = server.held.size(); i-- > 0;) {
        server.held[i].second.Send(Payload(std::move(server.held[i].first.payload)));
      }
    }
    CHECK(Eventually([&] { return ended == kCalls; }));
    CHECK(right == kCalls);
  }
}

TEST_CASE("A handler's failure reaches the caller with its code, message and details") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const std::shared_ptr<Transport> transport = kind->Make();
  auto options = ClientOptions(server.address);
  options.peer_name = "parameter server 3";
  const auto client = MakeRpcClient(transport, options);
  Status got;
  std::atomic<bool> ended{false};
  client->Call(kHold, {}, {}, [&](Result<RpcResponse> reply) {
    got = reply.status();
    ended = true;
  });
  REQUIRE(Eventually([&] { return server.held_count() == 1; }));
  server.held[0].second.Fail(Status(ErrorCode::kTableFull, "no room for sign 5").With("sign", "5"));
  REQUIRE(Eventually([&] { return ended.load(); }));
  CHECK(got.code() == ErrorCode::kTableFull);
  CHECK(got.message() == "no room for sign 5");
  REQUIRE(got.details().size() == 2);
  CHECK(got.details()[0].second == "5");
  CHECK(got.details()[1].second == "parameter server 3");

  CHECK(client->Call(kUnknown, {}).status().code() == ErrorCode::kProtocol);
}

TEST_CASE("A request whose reply writer is dropped fails instead of waiting for its deadline") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const std::shared_ptr<Transport> transport = kind->Make();
  const auto client = MakeRpcClient(transport, ClientOptions(server.address));
  std::atomic<int> code{-1};
  client->Call(kHold, {}, {}, [&](Result<RpcResponse> reply) { code = static_cast<int>(reply.status().code()); });
  REQUIRE(Eventually([&] { return server.held_count() == 1; }));
  {
    std::lock_guard lock(server.mutex);
    server.held.clear();
  }
  CHECK(Eventually([&] { return code == static_cast<int>(ErrorCode::kAborted); }));
}

TEST_CASE("A request without an answer ends at its deadline, naming the server, a late answer harms nobody") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const std::shared_ptr<Transport> transport = kind->Make();
  const auto client = MakeRpcClient(transport, ClientOptions(server.address));
  const auto reply = client->Call(kHold, {}, {.deadline_ms = 30});
  CHECK(reply.status().code() == ErrorCode::kDeadline);
  CHECK(reply.status().message().find(server.address) != std::string::npos);
  REQUIRE(Eventually([&] { return server.held_count() == 1; }));
  {
    std::lock_guard lock(server.mutex);
    server.held[0].second.Send({});
  }
  CHECK(client->Call(kEcho, Payload(TextBuffer("still there"))).ok());
}

TEST_CASE("A server that is not there is a deadline, not a hang, and the message says what happened") {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    std::string address;
    {
      TestServer server(kind->Make(), kind->address());
      address = server.address;
    }
    const std::shared_ptr<Transport> transport = kind->Make();
    const auto client = MakeRpcClient(transport, ClientOptions(address));
    const auto reply = client->Call(kEcho, {}, {.deadline_ms = 100});
    CHECK(reply.status().code() == ErrorCode::kDeadline);
    CHECK(reply.status().message().find("the last trouble was") != std::string::npos);
    CHECK(client->WaitUntilReady(10).code() == ErrorCode::kDeadline);
  }
}

TEST_CASE("A client with a wrong secret is refused with the reason, and all its requests fail at once") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const std::shared_ptr<Transport> transport = kind->Make();
  for (const std::string secret : {"", "0123456789abcdef-secreT", "0123456789abcdef-secret0"}) {
    auto options = ClientOptions(server.address);
    options.secret = secret;
    const auto client = MakeRpcClient(transport, options);
    const auto reply = client->Call(kEcho, {});
    CHECK(reply.status().code() == ErrorCode::kRefused);
    CHECK(reply.status().message().find("secret is wrong") != std::string::npos);
    CHECK(client->WaitUntilReady(1000).code() == ErrorCode::kRefused);
    CHECK(client->Call(kEcho, {}).status().code() == ErrorCode::kRefused);
  }
  CHECK(server.server->counts().refused == 3);
  CHECK(server.echoed == 0);
}

// Sends one message to the server and gives its answer.
Inbox::Item FirstAnswer(Transport& transport, const std::string& address, MessageKind kind, Buffer payload) {
  const auto inbox = std::make_shared<Inbox>();
  const auto peer = transport.Connect(address, inbox);
  MessageHeader header;
  header.kind = kind;
  REQUIRE(transport.Send(peer.value(), header, Payload(std::move(payload))).ok());
  auto items = inbox->Take(1);
  REQUIRE(items.size() == 1);
  CHECK(inbox->WaitLost().size() == 1);
  return std::move(items[0]);
}

TEST_CASE("Another version of the protocol is refused, and so is a request before the Hello") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const auto transport = kind->Make();
  RpcHello hello;
  hello.protocol = kRpcProtocol + 1;
  hello.secret = kSecret;
  const auto version = FirstAnswer(*transport, server.address, MessageKind::kHello, EncodeHello(hello));
  CHECK(version.header.kind == MessageKind::kRefuse);
  CHECK(DecodeStatus(version.payload.bytes()).message().find("speaks protocol 2, this server 1") != std::string::npos);
  const auto early = FirstAnswer(*transport, server.address, MessageKind::kRequest, {});
  CHECK(early.header.kind == MessageKind::kRefuse);
  CHECK(server.server->counts().refused == 2);
}

TEST_CASE("A secret must be long enough to be one") {
  const auto kind = TransportKindNamed("in-process");
  RpcServerOptions options;
  options.secret = "short";
  const auto server = MakeRpcServer(kind->Make(), options);
  CHECK(server->Listen(kind->address()).status().code() == ErrorCode::kConfigInvalid);
}

TEST_CASE("A caller waits for room when as many requests are in flight as allowed") {
  const auto kind = TransportKindNamed("in-process");
  TestServer server(kind->Make(), kind->address());
  const std::shared_ptr<Transport> transport = kind->Make();
  for (const bool by_bytes : {false, true}) {
    auto options = ClientOptions(server.address);
    options.max_requests_in_flight = by_bytes ? 100 : 2;
    options.max_bytes_in_flight = by_bytes ? 1000 : 1 << 20;
    const auto client = MakeRpcClient(transport, options);
    std::atomic<int> ended{0};
    const auto hold = [&] { client->Call(kHold, Payload(PatternBuffer(1, 400)), {}, [&](Result<RpcResponse>) { ++ended; }); };
    hold();
    hold();
    REQUIRE(Eventually([&] { return server.held_count() == 2; }));
    const auto third = client->Call(kEcho, Payload(PatternBuffer(1, 400)), {.deadline_ms = 30});
    CHECK(third.status().code() == ErrorCode::kDeadline);
    CHECK(third.status().message().find("no room") != std::string::npos);
    std::thread waiter([&] { CHECK(client->Call(kEcho, Payload(PatternBuffer(1, 400))).ok()); });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    {
      std::lock_guard lock(server.mutex);
      for (auto& [request, reply] : server.held) reply.Send({});
      server.held.clear();
    }
    waiter.join();
    CHECK(Eventually([&] { return ended == 2; }));
  }
}

TEST_CASE("One slow request among many quick ones costs the server no more memory than agreed") {
  const auto kind = TransportKindNamed("in-process");
  RpcServerOptions server_options;
  server_options.max_requests_in_flight = 4 * kMostAhead;
  TestServer server(kind->Make(), kind->address(), server_options);
  const std::shared_ptr<Transport> transport = kind->Make();
  auto options = ClientOptions(server.address);
  options.max_requests_in_flight = 4;
  const auto client = MakeRpcClient(transport, options);
  std::atomic<bool> slow_ended{false};
  client->Call(kHold, {}, {}, [&](Result<RpcResponse>) { slow_ended = true; });
  REQUIRE(Eventually([&] { return server.held_count() == 1; }));
  const int most = 4 * kMostAhead - 1;
  for (int done = 0; done < most; ++done) CHECK(client->Call(kAdd, Payload(AddRequest(1, 1))).ok());
  const auto more = client->Call(kAdd, Payload(AddRequest(1, 1)), {.deadline_ms = 50});
  CHECK(more.status().code() == ErrorCode::kDeadline);
  server.held[0].second.Send({});
  CHECK(Eventually([&] { return slow_ended.load(); }));
  CHECK(client->Call(kAdd, Payload(AddRequest(1, 1))).ok());
  CHECK(server.sums[1] == most + 1);
}

TEST_CASE("Closing a client ends its requests and its session, closing a server lets clients find the next one") {
  const auto kind = TransportKindNamed("in-process");
  auto server = std::make_unique<TestServer>(kind->Make(), kind->address());
  const std::string address = server->address;
  const std::shared_ptr<Transport> transport = kind->Make();
  const auto first = MakeRpcClient(transport, ClientOptions(address));
  const auto second = MakeRpcClient(transport, ClientOptions(address));
  CHECK(second->Call(kEcho, {}).ok());
  std::atomic<int> code{-1};
  first->Call(kHold, {}, {}, [&](Result<RpcResponse> reply) { code = static_cast<int>(reply.status().code()); });
  REQUIRE(Eventually([&] { return server->held_count() == 1; }));
  CHECK(server->server->counts().sessions == 2);
  first->Close();
  CHECK(code == static_cast<int>(ErrorCode::kClosed));
  CHECK(first->Call(kEcho, {}).status().code() == ErrorCode::kClosed);
  CHECK(Eventually([&] { return server->server->counts().sessions == 1; }));

  std::atomic<int> repeatable{-1}, other{-1};
  second->Call(kHold, {}, {.repeatable = true},
               [&](Result<RpcResponse> reply) { repeatable = static_cast<int>(reply.status().code()); });
  second->Call(kHold, {}, {}, [&](Result<RpcResponse> reply) { other = static_cast<int>(reply.status().code()); });
  REQUIRE(Eventually([&] { return server->held_count() == 3; }));
  // The held replies would answer when the server's members go: nothing may reach the client from there.
  server->server->Close();
  server.reset();
  TestServer again(kind->Make(), address);
  REQUIRE(Eventually([&] { return again.held_count() == 1; }));
  CHECK(Eventually([&] { return other == static_cast<int>(ErrorCode::kPeerLost); }));
  again.held[0].second.Send({});
  CHECK(Eventually([&] { return repeatable == static_cast<int>(ErrorCode::kOk); }));
  CHECK(second->counts().connections == 2);
}

// Several clients with several threads each add integers to counters of two servers, over transports that break. Every
// addition must arrive once, at its server.
void CheckConservation(TransportKind& kind, const FaultOptions& faults, uint64_t least_cuts, uint64_t least_calls) {
  constexpr uint32_t kServers = 2, kThreads = 3, kKeys = 50;
  std::vector<FaultTransport*> faulty;
  const auto make = [&](uint64_t number) {
    FaultOptions options = faults;
    options.seed = number;
    auto made = std::make_unique<FaultTransport>(kind.Make(), options);
    faulty.push_back(made.get());
    return made;
  };
  std::vector<std::unique_ptr<TestServer>> servers;
  for (uint32_t i = 0; i < kServers; ++i) {
    servers.push_back(std::make_unique<TestServer>(make(i), kind.address(), RpcServerOptions{.threads = 2}));
  }
  const std::shared_ptr<Transport> transport = make(100);
  std::vector<std::unique_ptr<RpcClient>> clients;
  for (const auto& server : servers) {
    auto options = ClientOptions(server->address);
    options.resend_ms = 50;
    options.least_backoff_ms = 1;
    options.most_backoff_ms = 5;
    options.max_requests_in_flight = 16;
    clients.push_back(MakeRpcClient(transport, options));
  }
  const auto cuts = [&] {
    uint64_t total = 0;
    for (const FaultTransport* each : faulty) total += each->counts().cut;
    return total;
  };
  std::atomic<uint64_t> calls{0}, ended{0}, failed{0}, misrouted{0};
  Status failure;  // the first one
  std::vector<std::map<uint32_t, int64_t>> expected(kServers * kThreads);
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Rng rng(RandomKey(5, thread));
      while (cuts() < least_cuts || calls < least_calls) {
        const auto to = static_cast<uint32_t>(rng.Next() % kServers);
        const auto key = static_cast<uint32_t>(rng.Next() % kKeys * kServers + to);
        const auto value = static_cast<int64_t>(rng.Next() % 1000);
        expected[to * kThreads + thread][key] += value;
        ++calls;
        Payload request(AddRequest(key, value));
        request.Add(PatternBuffer(key, rng.Next() % 20'000));
        clients[to]->Call(kAdd, std::move(request), {}, [&, key](Result<RpcResponse> reply) {
          if (!reply.ok() && failed++ == 0) failure = reply.status();
          if (reply.ok()) misrouted += WireReader(reply.value().payload.bytes()).Value<uint32_t>() != key;
          ++ended;
        });
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(Eventually([&] { return ended == calls; }));
  CHECK_MESSAGE(failed == 0, failure.message());
  CHECK(misrouted == 0);
  CHECK(cuts() >= least_cuts);
  uint64_t doubled = 0, applied = 0, wrong = 0;
  for (uint32_t i = 0; i < kServers; ++i) {
    std::map<uint32_t, int64_t> sums;
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      for (const auto& [key, value] : expected[i * kThreads + thread]) sums[key] += value;
    }
    std::lock_guard lock(servers[i]->mutex);
    for (const auto& [key, value] : servers[i]->sums) wrong += key % kServers != i || sums[key] != value;
    wrong += servers[i]->sums.size() != sums.size();
    for (const auto& [id, times] : servers[i]->applied) doubled += times != 1;
    applied += servers[i]->applied.size();
  }
  CHECK(wrong == 0);
  CHECK(doubled == 0);
  CHECK(applied == calls);
  MESSAGE(kind.name() << ": " << calls.load() << " requests, " << cuts() << " cuts, " << applied << " applied, "
                      << doubled << " doubled, " << misrouted.load() << " misrouted");
  for (auto& client : clients) client->Close();
  transport->Close();
}

TEST_CASE("Integers are conserved over 200 connection cuts: none lost, none doubled, none misrouted") {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    CheckConservation(*kind, {.cut = 0.02}, 200, 5'000);
  }
}

TEST_CASE("Integers are conserved when messages are lost, doubled, late and cut off") {
  for (const auto& kind : TransportKinds()) {
    INFO("over " << kind->name());
    CheckConservation(*kind, {.drop = 0.01, .duplicate = 0.05, .delay = 0.02, .most_delay_us = 500, .cut = 0.005}, 20, 3'000);
  }
}

TEST_CASE("A reply too large to be kept is told to be lost, not executed twice") {
  const auto kind = TransportKindNamed("in-process");
  const std::shared_ptr<Transport> server_transport = kind->Make();
  RpcServerOptions options;
  options.secret = kSecret;
  options.max_remembered_bytes = 100;
  const auto server = MakeRpcServer(server_transport, options);
  std::atomic<int> executed{0};
  server->Register(1, [&](RpcRequest, RpcReply reply) {
    ++executed;
    reply.Send(Payload(PatternBuffer(1, 1000)));
  });
  const auto address = server->Listen(kind->address());
  // A client by hand, which says nothing of having the reply and asks again.
  const auto client = kind->Make();
  const auto inbox = std::make_shared<Inbox>();
  const auto peer = client->Connect(address.value(), inbox);
  MessageHeader header;
  header.kind = MessageKind::kHello;
  REQUIRE(client->Send(peer.value(), header, Payload(EncodeHello({kRpcProtocol, 1, 1, kSecret}))).ok());
  header.kind = MessageKind::kRequest;
  header.type = 1;
  header.request_id = 1;
  REQUIRE(client->Send(peer.value(), header, {}).ok());
  CHECK(inbox->Take(2).back().payload.size() == 1000);
  REQUIRE(client->Send(peer.value(), header, {}).ok());
  const auto second = inbox->Take(1);
  REQUIRE(second.size() == 1);
  CHECK(second[0].header.kind == MessageKind::kFailure);
  CHECK(DecodeStatus(second[0].payload.bytes()).code() == ErrorCode::kAborted);
  CHECK(executed == 1);
  server->Close();
}

TEST_CASE("Sessions without a connection make room for others once they are old enough") {
  const auto kind = TransportKindNamed("in-process");
  RpcServerOptions options;
  options.max_sessions = 1;
  options.session_ttl_ms = 20;
  TestServer server(kind->Make(), kind->address(), options);
  const auto first = kind->Make();
  const auto inbox = std::make_shared<Inbox>();
  MessageHeader header;
  header.kind = MessageKind::kHello;
  const auto hello = [&](uint64_t session) {
    const auto peer = first->Connect(server.address, inbox);
    REQUIRE(first->Send(peer.value(), header, Payload(EncodeHello({kRpcProtocol, session, 1, kSecret}))).ok());
    const auto items = inbox->Take(1);
    REQUIRE(items.size() == 1);
    return std::pair(items[0].header.kind, peer.value());
  };
  const auto [kind_of_first, peer] = hello(1);
  CHECK(kind_of_first == MessageKind::kWelcome);
  CHECK(hello(2).first == MessageKind::kRefuse);
  first->Disconnect(peer);
  CHECK(Eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    return hello(3).first == MessageKind::kWelcome;
  }));
}

TEST_CASE("A connection that says nothing is closed") {
  const auto kind = TransportKindNamed("in-process");
  RpcServerOptions options;
  options.hello_ms = 20;
  TestServer server(kind->Make(), kind->address(), options);
  const auto transport = kind->Make();
  const auto inbox = std::make_shared<Inbox>();
  REQUIRE(transport->Connect(server.address, inbox).ok());
  CHECK(inbox->WaitLost().size() == 1);
}

TEST_CASE("A status survives the wire, what is no status is a protocol error") {
  const Status status = Status(ErrorCode::kTableFull, "full").With("a", "1").With("b", "");
  const Buffer bytes = EncodeStatus(status);
  const Status back = DecodeStatus(bytes.bytes());
  CHECK(back.code() == status.code());
  CHECK(back.message() == status.message());
  CHECK(back.details() == status.details());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    CHECK(DecodeStatus(bytes.bytes().first(cut)).code() == ErrorCode::kProtocol);
  }
  WireWriter unknown;
  unknown.Text("PERSIA_OF_TOMORROW");
  unknown.Text("what");
  unknown.Value(uint32_t{0});
  CHECK(DecodeStatus(unknown.Take().bytes()).message() == "PERSIA_OF_TOMORROW: what");
}

}  // namespace
}  // namespace persia
