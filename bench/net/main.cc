// The data plane beside plain sockets, UCX's own measuring program and Gloo, in turns in one run.
//
//   small    64 bytes there and back, one at a time
//   lookup   a request of 32 KiB (4096 signs) and a reply of 256 KiB (their rows, 16 f32 each): round trips with one at a time,
//            GB/s of replies with 8 in flight
//   ring     sums of 4 MiB of floats over 2 and 4 processes, GB/s of the bucket
//   memory   what no process gets past: GB/s of copies of 256 KiB in the cache, and of the checksum that each payload has
//
// What the peers do, and don't: all move bytes that nobody looks at, without checksums, request ids or deadlines.
//   socket         one TCP connection; both sides poll it without blocking, which is its best
//   ucx_perftest   active messages, both sides polling: of small, back and forth (ucp_am_lat); beside a lookup, back and forth with
//                  144 KiB each way, which are as many bytes and messages; beside eight lookups, a stream one way (ucp_am_bw)
//   rpc by ucx     ours with UCX below it in place of a socket, as over RDMA
//   gloo           its ring over TCP; it has no shared memory
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/copy.h"
#include "base/hash.h"
#include "collective/ring_collective.h"
#include "net/process_transport.h"
#include "net/rpc.h"
#include "net/socket_address.h"
#include "processes.h"
#ifdef PERSIA_BENCH_GLOO
#include "gloo_peer.h"
#endif

namespace persia::bench {
namespace {

const std::string kSecret = "a secret for the benchmark";

struct Settings {
  uint32_t rounds = 5;
  double seconds = 1;
  std::string out;
  std::string only;  // sides whose "GROUP NAME" contains it
};

struct Work {
  const char* name;
  size_t request_bytes, reply_bytes;
  uint32_t depth;
};
constexpr Work kSmall = {"small", 64, 64, 1}, kLookup = {"lookup", 32 * 1024, 256 * 1024, 1},
               kLookups = {"lookup-8", 32 * 1024, 256 * 1024, 8};

// ------------------------------------------------------------------------------------------------ ours

struct Carrier {
  TransportChoice choice;
  bool by_ucx = false;
};

std::shared_ptr<Transport> MakeTransport(Carrier carrier) {
  auto made = MakeProcessTransport({{}, carrier.choice, kSecret, carrier.by_ucx});
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().message().c_str());
    std::_Exit(1);
  }
  return std::move(made.value());
}

void ServeRpc(Carrier carrier, const Work& work, const Process::Tell& tell) {
  RpcServerOptions options;
  options.secret = kSecret;
  const auto server = MakeRpcServer(MakeTransport(carrier), options);
  server->Register(1, [&](RpcRequest, RpcReply reply) {
    Buffer rows(work.reply_bytes);
    rows.data()[0] = rows.data()[work.reply_bytes - 1] = std::byte{7};
    reply.Send(Payload(std::move(rows)));
  }, {.idempotent = true, .on_progress_thread = true});
  tell(server->Listen("127.0.0.1:0").value());
  pause();
}

// Round trips a second.
double CallRpc(Carrier carrier, const Work& work, const std::string& address, double seconds) {
  RpcClientOptions options;
  options.address = address;
  options.secret = kSecret;
  const auto transport = MakeTransport(carrier);
  const auto client = MakeRpcClient(transport, options);
  PERSIA_CHECK(client->WaitUntilReady(10'000).ok());
  // The next call starts where the reply comes, as it does in a pipeline.
  std::atomic<uint64_t> calls{0};
  std::atomic<uint32_t> running{0};
  std::atomic<bool> stop{false};
  std::function<void()> call = [&] {
    client->Call(1, Payload(Buffer(work.request_bytes)), {}, [&](Result<RpcResponse> response) {
      PERSIA_CHECK(response.ok() && response.value().payload.size() == work.reply_bytes);
      calls.fetch_add(1, std::memory_order_relaxed);
      if (stop.load(std::memory_order_relaxed)) {
        running.fetch_sub(1);
      } else {
        call();
      }
    });
  };
  running = work.depth;
  for (uint32_t i = 0; i < work.depth; ++i) call();
  usleep(static_cast<useconds_t>(seconds * 2e5));  // warm-up
  const double start = NowSeconds();
  const uint64_t before = calls;
  usleep(static_cast<useconds_t>(seconds * 1e6));
  const double rate = static_cast<double>(calls - before) / (NowSeconds() - start);
  stop = true;
  while (running > 0) usleep(100);
  return rate;
}

double RpcRate(Carrier carrier, const Work& work, double seconds) {
  Process server([&](const Process::Tell& tell) { ServeRpc(carrier, work, tell); });
  const std::string address = server.Line();
  Process client([&](const Process::Tell& tell) { tell(std::to_string(CallRpc(carrier, work, address, seconds))); });
  return std::stod(client.Line());
}

// ------------------------------------------------------------------------------------------------ a plain socket

void SendAtOnce(int socket) {
  const int one = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

// Moves what it can without blocking. False: nothing.
bool Move(int socket, bool out, std::vector<char>* buffer, size_t* at) {
  const ssize_t count = out ? send(socket, buffer->data() + *at, buffer->size() - *at, MSG_NOSIGNAL | MSG_DONTWAIT)
                            : recv(socket, buffer->data() + *at, buffer->size() - *at, MSG_DONTWAIT);
  // The other side has ended: a server's normal end.
  if ((count == 0 && !out) || (count < 0 && (errno == ECONNRESET || errno == EPIPE))) std::_Exit(0);
  PERSIA_CHECK(count > 0 || errno == EAGAIN || errno == EWOULDBLOCK);
  if (count > 0) *at += static_cast<size_t>(count);
  return count > 0;
}

void ServeSocket(const Work& work, const Process::Tell& tell) {
  const SocketAddress any = SocketAddress::Parse("127.0.0.1:0").value();
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  PERSIA_CHECK(bind(listener, any.get(), any.length()) == 0 && listen(listener, 1) == 0);
  tell(SocketAddress::OfSocket(listener).ToString());
  const int socket = accept(listener, nullptr, nullptr);
  SendAtOnce(socket);
  std::vector<char> request(work.request_bytes), reply(work.reply_bytes);
  size_t in = 0, out = 0;
  for (uint64_t owed = 0;;) {
    if (Move(socket, false, &request, &in) && in == request.size()) in = 0, ++owed;
    if (owed > 0 && Move(socket, true, &reply, &out) && out == reply.size()) out = 0, --owed;
  }
}

double CallSocket(const Work& work, const std::string& address, double seconds) {
  const SocketAddress server = SocketAddress::Parse(address).value();
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  PERSIA_CHECK(connect(socket, server.get(), server.length()) == 0);
  SendAtOnce(socket);
  std::vector<char> request(work.request_bytes), reply(work.reply_bytes);
  size_t in = 0, out = 0;
  uint64_t started = 0, calls = 0, before = 0;
  double start = NowSeconds() + seconds / 5, now = 0;
  bool warm = false;
  while ((now = NowSeconds()) < start + seconds || !warm) {
    if (!warm && now >= start) warm = true, before = calls, start = now;
    if (started < calls + work.depth && Move(socket, true, &request, &out) && out == request.size()) out = 0, ++started;
    if (started > calls && Move(socket, false, &reply, &in) && in == reply.size()) in = 0, ++calls;
  }
  return static_cast<double>(calls - before) / (now - start);
}

double SocketRate(const Work& work, double seconds) {
  Process server([&](const Process::Tell& tell) { ServeSocket(work, tell); });
  const std::string address = server.Line();
  Process client([&](const Process::Tell& tell) { tell(std::to_string(CallSocket(work, address, seconds))); });
  return std::stod(client.Line());
}

// ------------------------------------------------------------------------------------------------ ucx_perftest

bool HasPerftest() { return std::system("command -v ucx_perftest >/dev/null 2>&1") == 0; }

// Messages a second of a stream of `bytes`, or round trips a second; 0 when the program failed.
double PerftestRate(const std::string& transport, size_t bytes, bool stream, double seconds) {
  static int port = 10'000 + getpid() % 20'000;  // below those that systems hand out
  const std::string prefix = "UCX_TLS=" + transport + " UCX_NET_DEVICES=" + (transport == "tcp" ? "lo" : "all") +
                             " UCX_LOG_LEVEL=fatal timeout 60 ucx_perftest -p " + std::to_string(++port);
  Process server([&](const Process::Tell&) {
    static_cast<void>(std::system((prefix + " >/dev/null 2>&1").c_str()));
    pause();
  });
  const auto count = static_cast<uint64_t>(seconds * (stream ? 1.5e9 / static_cast<double>(bytes) : 4e4)) + 100;
  const std::string command = prefix + " 127.0.0.1 -f -t " + (stream ? "ucp_am_bw" : "ucp_am_lat") + " -s " +
                              std::to_string(bytes) + " -n " + std::to_string(count) + " -w 100 2>/dev/null";
  double rate = 0;
  for (int attempt = 0; attempt < 20 && rate == 0; ++attempt) {  // until the server listens
    usleep(100'000);
    FILE* output = popen(command.c_str(), "r");
    PERSIA_CHECK(output != nullptr);
    char line[512];
    while (std::fgets(line, sizeof(line), output) != nullptr) {
      // iterations, latency 50 %, average, overall, bandwidth average, overall, message rate average, overall
      double values[8];
      char* at = line + std::strspn(line, "Final: \t");
      int found = 0;
      for (char* end = at; found < 8; ++found, at = end) {
        values[found] = std::strtod(at, &end);
        if (end == at) break;
      }
      if (found == 8) rate = stream ? values[7] : 1e6 / (2 * values[3]);
    }
    pclose(output);
  }
  return rate;
}

// ------------------------------------------------------------------------------------------------ rings

constexpr size_t kRingValues = size_t{1} << 20;

// Sums a second of a rank that is one of a group of processes.
double TimeSums(const std::function<void(float* values)>& sum, double seconds) {
  std::vector<float> values(kRingValues, 0.5f);
  for (int i = 0; i < 3; ++i) sum(values.data());
  // The ranks do as many sums as rank 0 says by its first values.
  uint64_t sums = 0;
  const double start = NowSeconds();
  for (bool more = true; more; ++sums) {
    values[0] = NowSeconds() - start > seconds ? 1.0f : 0.0f;
    sum(values.data());
    more = values[0] == 0.0f;  // until some rank's time is over: all see it at the same sum
    std::fill_n(values.data(), 16, 0.5f);
  }
  return static_cast<double>(sums) / (NowSeconds() - start);
}

double RingRate(uint32_t ranks, TransportChoice choice, double seconds) {
  std::vector<Process> processes;
  const auto folder = std::filesystem::temp_directory_path() / ("persia-ring-" + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    processes.emplace_back([&, rank](const Process::Tell& tell) {
      auto member = MakeRingMember(MakeTransport({choice}), "127.0.0.1:0", kSecret);
      // Addresses are told by files: written under another name first, so that none is read half.
      const auto own = folder / std::to_string(rank);
      std::ofstream(own.string() + ".new") << member.value()->address();
      std::filesystem::rename(own.string() + ".new", own);
      std::vector<std::string> addresses;
      for (uint32_t other = 0; other < ranks; ++other) {
        while (!std::filesystem::exists(folder / std::to_string(other))) usleep(1000);
        std::ifstream file(folder / std::to_string(other));
        addresses.emplace_back();
        file >> addresses.back();
      }
      auto ring = member.value()->Join(rank, addresses, 30'000, {});
      PERSIA_CHECK(ring.ok());
      const double rate = TimeSums(
          [&](float* values) { PERSIA_CHECK(ring.value()->AllReduce({values, kRingValues}).ok()); }, seconds);
      tell(std::to_string(rate));
      ring.value().reset();
    });
  }
  double rate = 0;
  for (Process& process : processes) rate = std::stod(process.Line());
  std::filesystem::remove_all(folder);
  return rate;
}

#ifdef PERSIA_BENCH_GLOO
double GlooRate(uint32_t ranks, double seconds) {
  std::vector<Process> processes;
  const auto folder = std::filesystem::temp_directory_path() / ("persia-gloo-" + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    processes.emplace_back([&, rank](const Process::Tell& tell) {
      GlooRing ring(rank, ranks, folder.string());
      tell(std::to_string(TimeSums([&](float* values) { ring.Sum(values, kRingValues); }, seconds)));
    });
  }
  double rate = 0;
  for (Process& process : processes) rate = std::stod(process.Line());
  std::filesystem::remove_all(folder);
  return rate;
}
#endif

// ------------------------------------------------------------------------------------------------ memory

void CopyOnce(std::span<std::byte> to, std::span<const std::byte> from) { CopyBytes(to.data(), from.data(), from.size()); }
void SumOnce(std::span<std::byte> to, std::span<const std::byte> from) {
  const uint64_t sum = Xxh3(from.data(), from.size());
  std::memcpy(to.data(), &sum, sizeof(sum));
}

// Bytes a second of one thread.
double MemoryRate(void (*once)(std::span<std::byte> to, std::span<const std::byte> from), double seconds) {
  std::vector<std::byte> from(256 * 1024, std::byte{1}), to(from.size());
  uint64_t times = 0;
  const double start = NowSeconds();
  double now = start;
  for (; now < start + seconds; now = NowSeconds()) {
    for (int i = 0; i < 16; ++i, ++times) {
      once(to, from);
      from[times % from.size()] = to[0];
    }
  }
  return static_cast<double>(times * from.size()) / (now - start);
}

// ------------------------------------------------------------------------------------------------ the run

struct Side {
  std::string group, name, unit;
  double factor;  // from what is sampled to the unit
  bool peer;      // ours are shown as shares of the group's peers
  std::function<double()> sample;
};

std::vector<Side> Sides(const Settings& settings) {
  const double seconds = settings.seconds;
  const bool perftest = HasPerftest();
  std::vector<Side> sides;
  for (const Work& work : {kSmall, kLookup, kLookups}) {
    const bool rate = work.depth == 1;
    const double factor = rate ? 1e-3 : static_cast<double>(work.reply_bytes) * 1e-9;
    const std::string unit = rate ? "k round trips/s" : "GB/s of replies";
    for (const TransportChoice choice : {TransportChoice::kTcp, TransportChoice::kShm}) {
      const bool tcp = choice == TransportChoice::kTcp;
      const std::string group = work.name + std::string(" over ") + TransportChoiceName(choice);
      const auto add = [&](const char* name, bool peer, std::function<double()> sample) {
        sides.push_back({group, name, unit, factor, peer, std::move(sample)});
      };
      add("rpc", false, [=] { return RpcRate({choice}, work, seconds); });
      if (tcp) add("socket", true, [=] { return SocketRate(work, seconds); });
      if (tcp && perftest) add("rpc by ucx", false, [=] { return RpcRate({choice, true}, work, seconds); });
      const size_t bytes = rate ? (work.request_bytes + work.reply_bytes) / 2 : work.reply_bytes;
      if (perftest) add("ucx_perftest", true, [=] { return PerftestRate(tcp ? "tcp" : "posix", bytes, !rate, seconds); });
    }
  }
  for (const uint32_t ranks : {2u, 4u}) {
    const std::string group = "ring of " + std::to_string(ranks);
    const double factor = static_cast<double>(kRingValues) * 4e-9;
    for (const TransportChoice choice : {TransportChoice::kShm, TransportChoice::kTcp}) {
      sides.push_back({group, std::string("ring over ") + TransportChoiceName(choice), "GB/s", factor, false,
                       [=] { return RingRate(ranks, choice, seconds); }});
    }
#ifdef PERSIA_BENCH_GLOO
    sides.push_back({group, "gloo", "GB/s", factor, true, [=] { return GlooRate(ranks, seconds); }});
#endif
  }
  sides.push_back({"memory", "copy", "GB/s", 1e-9, true, [=] { return MemoryRate(CopyOnce, seconds); }});
  sides.push_back({"memory", "checksum", "GB/s", 1e-9, true, [=] { return MemoryRate(SumOnce, seconds); }});
  std::erase_if(sides, [&](const Side& side) {
    return (side.group + " " + side.name).find(settings.only) == std::string::npos;
  });
  if (!perftest) std::printf("skipped: ucx_perftest is not installed (Debian: ucx-utils)\n");
#ifndef PERSIA_BENCH_GLOO
  std::printf("skipped: Gloo is not installed (Debian: libgloo-dev)\n");
#endif
  return sides;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Report(const Settings& settings, const std::vector<Side>& sides, const std::vector<std::vector<double>>& samples) {
  std::map<std::string, double> best;  // of the peers
  for (size_t i = 0; i < sides.size(); ++i) {
    if (sides[i].peer) best[sides[i].group] = std::max(best[sides[i].group], Median(samples[i]));
  }
  std::optional<std::ofstream> out;
  if (!settings.out.empty()) out.emplace(settings.out, std::ios::app);
  for (size_t i = 0; i < sides.size(); ++i) {
    const Side& side = sides[i];
    const double median = Median(samples[i]) * side.factor;
    const auto [low, high] = std::minmax_element(samples[i].begin(), samples[i].end());
    std::string share;
    if (!side.peer && best.contains(side.group)) {
      char text[64];
      std::snprintf(text, sizeof(text), "%.2f of the best peer", Median(samples[i]) / best[side.group]);
      share = text;
    }
    std::printf("%-18s %-14s %9.3f %-16s (%.3f … %.3f) %s\n", side.group.c_str(), side.name.c_str(), median,
                side.unit.c_str(), *low * side.factor, *high * side.factor, share.c_str());
    if (out) {
      *out << "{\"name\":\"net/" << side.group << "/" << side.name << "\",\"unit\":\"" << side.unit << "\",\"median\":" << median
           << ",\"low\":" << *low * side.factor << ",\"high\":" << *high * side.factor << "}\n";
    }
  }
}

int Run(const Settings& settings) {
  const std::vector<Side> sides = Sides(settings);
  std::vector<std::vector<double>> samples(sides.size());
  for (uint32_t round = 0; round < settings.rounds; ++round) {
    for (size_t i = 0; i < sides.size(); ++i) samples[i].push_back(sides[i].sample());
  }
  Report(settings, sides, samples);
  int failed = 0;
  for (const auto& side : samples) failed += Median(side) <= 0;
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace persia::bench

int main(int argc, char** argv) {
  persia::bench::Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--smoke") {
      settings.rounds = 1;
      settings.seconds = 1.0;  // a reply comes within it on a busy machine too
    } else if (option == "--rounds" && i + 1 < argc) {
      settings.rounds = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (option == "--seconds" && i + 1 < argc) {
      settings.seconds = std::atof(argv[++i]);
    } else if (option == "--out" && i + 1 < argc) {
      settings.out = argv[++i];
    } else if (option == "--only" && i + 1 < argc) {
      settings.only = argv[++i];
    } else {
      std::fprintf(stderr, "usage: persia_net_bench [--smoke] [--rounds N] [--seconds S] [--only TEXT] [--out FILE]\n");
      return 2;
    }
  }
  return persia::bench::Run(settings);
}
