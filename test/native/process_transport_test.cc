// What is true of the transport between processes alone: choice, secrets, UCX's manners, and other processes that die.
#include "net/process_transport.h"

#include <doctest/doctest.h>

#include <dlfcn.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>

#include "net/control_message.h"
#include "net/frame_stream.h"
#include "net/rpc.h"
#include "net/shm_link.h"
#include "net/socket_address.h"
#include "net/socket_link.h"
#include "net/ucx_library.h"
#include "net_fixtures.h"

extern char** environ;

namespace persia {
namespace {

TransportReach Reach(const std::string& host, std::vector<std::string> devices) {
  TransportReach reach;
  reach.host = host;
  reach.rdma_devices = std::move(devices);
  if (reach.rdma_devices.empty()) reach.no_rdma = "there is no RDMA device";
  return reach;
}

TEST_CASE("auto takes shm on one host, else rdma where both have it, else tcp, and says why") {
  const auto autos = TransportChoice::kAuto;
  const auto chosen = [&](const TransportReach& here, const TransportReach& there) {
    const auto choice = ChooseTransport(autos, here, autos, there);
    REQUIRE(choice.ok());
    return std::string(TransportChoiceName(choice.value().kind)) + ": " + choice.value().why;
  };
  CHECK(chosen(Reach("a", {}), Reach("a", {})) == "shm: both are on one host");
  CHECK(chosen(Reach("a", {"x:1"}), Reach("a", {"x:1"})) == "shm: both are on one host");
  CHECK(chosen(Reach("a", {"x:1"}), Reach("b", {"x:1"})) == "rdma: both have an RDMA device with an active port");
  CHECK(chosen(Reach("a", {}), Reach("b", {"x:1"})) ==
        "tcp: they are on two hosts, and there is no RDMA device here");
  CHECK(chosen(Reach("a", {"x:1"}), Reach("b", {})) ==
        "tcp: they are on two hosts, and there is no RDMA device on the other side");
  CHECK(chosen(Reach("", {}), Reach("", {})).starts_with("tcp"));
}

TEST_CASE("A transport that was asked for is taken or refused, never replaced") {
  const auto here = Reach("a", {}), there = Reach("b", {"x:1"});
  using enum TransportChoice;
  CHECK(ChooseTransport(kTcp, here, kAuto, here).value().kind == kTcp);
  CHECK(ChooseTransport(kAuto, here, kTcp, here).value().kind == kTcp);
  CHECK(ChooseTransport(kShm, here, kShm, here).value().kind == kShm);
  CHECK(ChooseTransport(kShm, here, kAuto, there).status().message().find("one host") != std::string::npos);
  CHECK(ChooseTransport(kAuto, there, kRdma, here).status().message().find("on the other side") != std::string::npos);
  CHECK(ChooseTransport(kRdma, here, kAuto, there).status().code() == ErrorCode::kTransport);
  CHECK(ChooseTransport(kTcp, here, kShm, here).status().message().find("set to tcp, the other to shm") !=
        std::string::npos);
  for (const TransportChoice choice : {kAuto, kTcp, kRdma, kShm}) {
    CHECK(ParseTransportChoice(TransportChoiceName(choice)).value() == choice);
  }
  CHECK(ParseTransportChoice("ucx").status().code() == ErrorCode::kUsage);
}

TEST_CASE("rdma without a device is refused with the reason" * doctest::skip(!LocalReach().rdma_devices.empty())) {
  const auto made = MakeProcessTransport({{}, TransportChoice::kRdma, ""});
  CHECK(made.status().code() == ErrorCode::kTransport);
  CHECK(made.status().message().find("rdma: ") == 0);
}

TEST_CASE("What the machine has is told a line each") {
  const std::string text = DescribeTransports();
  INFO(text);
  for (const char* part : {"shm: works", "\nrdma: ", "\ntcp: works", "\nucx: 1."}) {
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("UCX leaves the process's signals and memory functions alone") {
  std::array<struct sigaction, 32> before{};
  for (int i = 1; i < 32; ++i) sigaction(i, nullptr, &before[static_cast<size_t>(i)]);
  std::array<unsigned char, 16> mmap_before{}, mmap_after{};
  std::memcpy(mmap_before.data(), dlsym(RTLD_DEFAULT, "mmap"), mmap_before.size());
  const auto kind = TransportKindNamed("tcp-by-ucx");
  {
    const auto server = kind->Make(), client = kind->Make();
    const auto inbox = std::make_shared<Inbox>();
    const auto address = server->Listen(kind->address(), [&](PeerId peer, const std::string&) {
      server->Admit(peer);
      return inbox;
    });
    const auto peer = client->Connect(address.value(), std::make_shared<Inbox>());
    MessageHeader header;
    CHECK(client->Send(peer.value(), header, Payload(PatternBuffer(1, 3'000'000))).ok());
    CHECK(inbox->Take(1).size() == 1);
    CHECK(client->Describe(peer.value()) == "tcp (lo, by UCX), because it was asked for");
  }
  for (int i = 1; i < 32; ++i) {
    struct sigaction after {};
    sigaction(i, nullptr, &after);
    CHECK((after.sa_handler == before[static_cast<size_t>(i)].sa_handler));
  }
  std::memcpy(mmap_after.data(), dlsym(RTLD_DEFAULT, "mmap"), mmap_after.size());
  CHECK(mmap_after == mmap_before);
}

TEST_CASE("A connection with a wrong secret is refused before anything else happens, and the client does not try again") {
  auto server = MakeProcessTransport({{}, TransportChoice::kShm, "right"});
  auto client = MakeProcessTransport({{}, TransportChoice::kShm, "wrong"});
  REQUIRE(server.ok());
  std::atomic<int> accepted{0};
  const auto address = server.value()->Listen("127.0.0.1:0", [&](PeerId, const std::string&) {
    ++accepted;
    return nullptr;
  });
  const auto inbox = std::make_shared<Inbox>();
  REQUIRE(client.value()->Connect(address.value(), inbox).ok());
  const auto lost = inbox->WaitLost();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].second.code() == ErrorCode::kRefused);
  CHECK(lost[0].second.message() == "the connection was refused: the secret is wrong");
  CHECK(accepted == 0);

  RpcClientOptions options;
  options.address = address.value();
  const std::shared_ptr<Transport> shared = std::move(client.value());
  const auto rpc = MakeRpcClient(shared, options);
  CHECK(rpc->Call(1, {}).status().code() == ErrorCode::kRefused);
}

TEST_CASE("Sides that are set to different transports refuse each other with both names") {
  auto server = MakeProcessTransport({{}, TransportChoice::kShm, ""});
  auto client = MakeProcessTransport({{}, TransportChoice::kTcp, ""});
  REQUIRE(client.ok());
  const auto address = server.value()->Listen("127.0.0.1:0", [&](PeerId, const std::string&) { return nullptr; });
  const auto inbox = std::make_shared<Inbox>();
  REQUIRE(client.value()->Connect(address.value(), inbox).ok());
  const auto lost = inbox->WaitLost();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].second.message().find("set to shm, the other to tcp") != std::string::npos);
}

TEST_CASE("Addresses are numeric, and what is none is refused") {
  CHECK(SocketAddress::Parse("127.0.0.1:80").value().ToString() == "127.0.0.1:80");
  CHECK(SocketAddress::Parse("localhost:80").value().ToString() == "127.0.0.1:80");
  CHECK(SocketAddress::Parse("[::1]:80").value().ToString() == "[::1]:80");
  CHECK(SocketAddress::Parse("127.8.9.1:80").value().Interface() == "lo");
  for (const char* text : {"127.0.0.1:80", "127.8.9.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"}) {
    CHECK(SocketAddress::Parse(text).value().IsLoopback());
  }
  for (const char* text : {"10.0.0.1:80", "[::2]:80", "[::ffff:10.0.0.1]:80", "0.0.0.0:80"}) {
    CHECK_FALSE(SocketAddress::Parse(text).value().IsLoopback());
  }
  for (const char* text : {"", ":", "host:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:8x", "::1:80", "[::1:80"}) {
    CHECK(SocketAddress::Parse(text).status().code() == ErrorCode::kTransport);
  }
}

TEST_CASE("What is no transport of ours is hung up on") {
  auto server = MakeProcessTransport({{}, TransportChoice::kShm, ""});
  const auto text = server.value()->Listen("127.0.0.1:0", [](PeerId, const std::string&) { return nullptr; });
  const auto address = SocketAddress::Parse(text.value());
  const std::vector<std::string> strange = {"GET / HTTP/1.1\r\n\r\n", EncodePlace("early"), EncodeWake(),
                                            EncodeOffer({}).replace(14, 1, 1, '\xff')};
  for (const std::string& bytes : strange) {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(connect(socket, address.value().get(), address.value().length()) == 0);
    REQUIRE(send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
    char answer[64];
    CHECK(recv(socket, answer, sizeof(answer), 0) <= 0);
    close(socket);
  }
}

TEST_CASE("Two ends of a socket carry any bytes in order, those read before included, and its end is a lost peer") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  SocketLink a(ends[0], ""), b(ends[1], "read before");
  const Buffer sent = PatternBuffer(3, 5'000'000);
  std::string before(11, ' ');
  CHECK(b.Read(std::as_writable_bytes(std::span(before)).first(5)) == 5);
  CHECK(b.Read(std::as_writable_bytes(std::span(before)).subspan(5)) == 6);
  CHECK(before == "read before");
  Buffer got(sent.size());
  std::thread writer([&] {
    for (size_t at = 0; at < sent.size();) {
      const Bytes part = sent.bytes().subspan(at, std::min<size_t>(sent.size() - at, 77'777));
      const std::array pieces = {part.first(part.size() / 3), part.subspan(part.size() / 3)};
      at += a.Write(pieces);
    }
  });
  size_t turn = 0;
  constexpr std::array<size_t, 4> kParts = {64, 33'333, 1, 200'000};
  for (size_t at = 0; at < got.size();) at += b.Read(got.span().subspan(at, std::min(got.size() - at, kParts[turn++ % 4])));
  writer.join();
  CHECK(SameBytes(sent, got));
  CHECK(b.Read(got.span()) == 0);
  CHECK(b.status().ok());
  close(ends[0]);
  while (b.status().ok()) CHECK(b.Read(got.span()) == 0);
  CHECK(b.status().code() == ErrorCode::kPeerLost);
  close(ends[1]);
}

TEST_CASE("A flipped bit in a frame's payload is a protocol error, also in the middle of a long one") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  SocketLink a(ends[0], ""), b(ends[1], "");
  for (const size_t bytes : {1, 5'000, 64'000, 300'000}) {
    for (const bool flip : {false, true}) {
      Buffer payload = PatternBuffer(1, bytes);
      auto frame = std::make_unique<Outgoing>();
      SealMessage(Payload(Buffer::CopyOf(payload.bytes())), &frame->head.message);
      if (flip) payload.data()[bytes / 2] ^= std::byte{4};
      frame->payload = Payload(std::move(payload));
      FrameWriter writer;
      FrameReader reader;
      writer.Add(std::move(frame));
      size_t out = 0;
      const auto write = [&] {
        const FrameWriter::Wrote wrote = writer.Write(&a, 10'000);  // a turn
        CHECK(wrote.bytes <= 10'000);
        out += wrote.payload_bytes;
      };
      while (!reader.has_head()) write(), reader.ReadHead(&b);
      reader.Place(Buffer(bytes));
      while (!reader.whole()) write(), reader.ReadPayload(&b, 1 << 20);
      CHECK(out == bytes);
      const Status status = CheckPayload(reader.head().message, bytes, reader.checksum());
      CHECK(status.ok() == !flip);
      CHECK(reader.Take().size() == bytes);
    }
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("Two ends of shared memory carry any bytes in order, and damaged counters are noticed") {
  auto created = ShmLink::Create();
  REQUIRE(created.ok());
  auto opened = ShmLink::Open(created.value()->name());
  REQUIRE(opened.ok());
  created.value()->Unlink();
  CHECK(ShmLink::Open(created.value()->name()).status().code() == ErrorCode::kTransport);
  CHECK(ShmLink::Open("/../etc/passwd").status().code() == ErrorCode::kProtocol);
  ShmLink& a = *created.value();
  ShmLink& b = *opened.value();
  const Buffer sent = PatternBuffer(3, 5'000'000);
  Buffer got(sent.size());
  std::thread writer([&] {
    for (size_t at = 0; at < sent.size();) {
      const Bytes part = sent.bytes().subspan(at, std::min<size_t>(sent.size() - at, 77'777));
      const std::array pieces = {part.first(part.size() / 3), part.subspan(part.size() / 3)};
      at += a.Write(pieces);
    }
  });
  for (size_t at = 0; at < got.size();) at += b.Read(got.span().subspan(at, std::min<size_t>(got.size() - at, 33'333)));
  writer.join();
  CHECK(SameBytes(sent, got));
  CHECK(a.status().ok());

  CHECK(b.Sleep(false));
  CHECK(!b.MustWake());
  CHECK(a.MustWake());
  CHECK(!a.MustWake());
  const std::array one = {sent.bytes().first(1)};
  CHECK(a.Write(one) == 1);
  CHECK(!b.Sleep(false));
}

// ------------------------------------------------------------------------------------------------ another process

// Runs a test case that is skipped otherwise in a process of its own, with an address in its environment.
class OtherProcess {
 public:
  OtherProcess(const std::string& test_case, const std::string& kind, const std::string& address) {
    const std::string filter = "-tc=" + test_case;
    char program[] = "persia_tests", no_skip[] = "-ns";
    std::string filter_copy = filter;
    char* arguments[] = {program, no_skip, filter_copy.data(), nullptr};
    setenv("PERSIA_TEST_PEER", (kind + "@" + address).c_str(), 1);
    REQUIRE(posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0);
    unsetenv("PERSIA_TEST_PEER");
  }
  ~OtherProcess() {
    Kill();
    waitpid(pid_, nullptr, 0);
  }
  void Kill() const { kill(pid_, SIGKILL); }

 private:
  pid_t pid_ = 0;
};

// Sends large messages for ever.
TEST_CASE("other process: sends without end" * doctest::skip()) {
  const char* given = std::getenv("PERSIA_TEST_PEER");
  if (given == nullptr) return;  // not as part of the other test
  const std::string peer_text = given;
  const auto kind = TransportKindNamed(peer_text.substr(0, peer_text.find('@')));
  const auto transport = kind->Make();
  const auto inbox = std::make_shared<Inbox>();
  const auto peer = transport->Connect(peer_text.substr(peer_text.find('@') + 1), inbox);
  MessageHeader header;
  for (uint64_t i = 0;; ++i) {
    header.request_id = i;
    if (!transport->Send(peer.value(), header, Payload(PatternBuffer(i, 300'000))).ok()) {
      MESSAGE(inbox->WaitLost()[0].second.message());
      return;
    }
    while (inbox->size() + 8 < i) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

TEST_CASE("A process that is killed while it sends is lost at once, others of the same transport go on") {
  for (const auto& kind : TransportKinds()) {
    if (kind->name() == "in-process") continue;
    INFO("over " << kind->name());
    const auto server = kind->Make();
    std::mutex mutex;
    std::vector<std::shared_ptr<Inbox>> inboxes;
    const auto address = server->Listen(kind->address(), [&](PeerId peer, const std::string&) {
      std::lock_guard lock(mutex);
      server->Admit(peer);
      inboxes.push_back(std::make_shared<Inbox>());
      return inboxes.back();
    });
    REQUIRE(address.ok());
    const auto accepted = [&](size_t count) {
      return Eventually([&] {
        std::lock_guard lock(mutex);
        return inboxes.size() == count;
      });
    };
    const OtherProcess first("other process: sends without end", kind->name(), address.value());
    REQUIRE(accepted(1));
    const OtherProcess second("other process: sends without end", kind->name(), address.value());
    REQUIRE(accepted(2));
    std::array<uint64_t, 2> next{};
    const auto take = [&](size_t who) {
      for (const auto& item : inboxes[who]->Take(1)) {
        CHECK(item.header.request_id == next[who]);
        CHECK(SameBytes(item.payload, PatternBuffer(next[who]++, 300'000)));
        static_cast<void>(server->Send(item.peer, item.header, {}).ok());
      }
    };
    for (int i = 0; i < 20; ++i) {
      take(0);
      take(1);
    }
    first.Kill();
    const auto killed_at = SteadyClock::now();
    const auto lost = inboxes[0]->WaitLost();
    REQUIRE(lost.size() == 1);
    CHECK(lost[0].second.code() == ErrorCode::kPeerLost);
    CHECK(SteadyClock::now() - killed_at < std::chrono::seconds(5));
    for (int i = 0; i < 20; ++i) take(1);
    CHECK(next[1] >= 40);
    // A new connection of the same transport works after one died in the middle.
    const OtherProcess third("other process: sends without end", kind->name(), address.value());
    REQUIRE(accepted(3));
    CHECK(inboxes[2]->Take(3).size() >= 3);
  }
}

}  // namespace
}  // namespace persia
