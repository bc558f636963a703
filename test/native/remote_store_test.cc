// Rows on parameter servers: which server holds a sign, and that no gradient is lost, doubled or misrouted.
#include "store/remote_store.h"

#include <doctest/doctest.h>

#include <map>
#include <thread>

#include "base/rng.h"
#include "net/fault_transport.h"
#include "net/in_process_transport.h"
#include "store/parameter_server.h"
#include "store/sharding.h"

namespace persia {
namespace {

constexpr const char* kSecret = "a secret of more than 16 bytes";

std::vector<TableOptions> IntegerTables() {
  TableOptions table;
  table.dim = 3;
  table.optimizer = {.type = RowOptimizerType::kSgd, .lr = 1.0f};
  table.initializer.low = table.initializer.high = 0.0f;
  table.capacity_rows = 100'000;
  return {table, table};
}

}  // namespace

TEST_CASE("parameter servers hold equal shares of the signs, and one more server takes its share and nothing else") {
  constexpr uint64_t kSigns = 60'000;
  for (const uint32_t servers : {1u, 2u, 3u, 7u, 16u}) {
    std::vector<uint64_t> held(servers + 1);
    uint64_t moved = 0;
    for (uint64_t i = 0; i < kSigns; ++i) {
      const uint64_t sign = (uint64_t{3} << 56) + i * (i % 2 == 0 ? 1 : 977);  // as ids of a feature group come
      const uint32_t before = ServerOf(sign, servers), after = ServerOf(sign, servers + 1);
      REQUIRE(before < servers);
      ++held[before];
      if (before == after) continue;
      CHECK(after == servers);
      ++moved;
    }
    const double share = static_cast<double>(kSigns) / servers;
    for (uint32_t server = 0; server < servers; ++server) {
      CHECK(static_cast<double>(held[server]) == doctest::Approx(share).epsilon(0.06));
    }
    CHECK(static_cast<double>(moved) == doctest::Approx(static_cast<double>(kSigns) / (servers + 1)).epsilon(0.06));
  }
}

TEST_CASE("over 200 cuts of connections no gradient is lost, doubled or misrouted: integers add up") {
  constexpr uint32_t kServers = 2, kRanks = 2, kSigns = 400;
  for (const bool merges : {true, false}) {
    const auto network = MakeInProcessNetwork();
    const std::vector<TableOptions> tables = IntegerTables();
    std::vector<std::shared_ptr<FaultTransport>> transports;
    const auto transport_of = [&](const std::string& name) {
      FaultOptions faults{.seed = transports.size() + 1, .delay = 0.01, .most_delay_us = 200, .cut = 0.03};
      transports.push_back(std::make_shared<FaultTransport>(MakeInProcessTransport(network, name), faults));
      return transports.back();
    };
    const auto cuts = [&] {
      uint64_t sum = 0;
      for (const auto& transport : transports) sum += transport->counts().cut;
      return sum;
    };
    std::vector<std::unique_ptr<ParameterServer>> servers;
    std::vector<std::string> addresses;
    for (uint32_t i = 0; i < kServers; ++i) {
      RpcServerOptions rpc;
      rpc.secret = kSecret;
      rpc.threads = 3;
      const std::string name = "ps-" + std::to_string(i);
      servers.push_back(std::make_unique<ParameterServer>(
          transport_of(name), ParameterServer::Options{tables, {kRanks, merges, 0.0f}, rpc}));
      addresses.push_back(servers.back()->Listen(name + ":0").value());
    }
    std::vector<std::unique_ptr<RoleClients>> clients;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      clients.push_back(std::make_unique<RoleClients>(
          transport_of("rank-" + std::to_string(rank)),
          RoleClientsOptions{"parameter server", addresses, kSecret, rank, 30'000}));
    }
    // By class and sign: what was taken off the row.
    std::vector<std::vector<std::map<uint64_t, std::vector<float>>>> expected(
        kRanks, std::vector<std::map<uint64_t, std::vector<float>>>(tables.size()));
    const auto train = [&](uint32_t rank) {
      RemoteStore store(tables, *clients[rank], {WireFormat::kFp32, WireFormat::kFp32, IdCodec::kLz4});
      Rng rng(rank + 77);
      for (uint64_t step = 1; step <= 700; ++step) {
        std::vector<std::vector<uint64_t>> signs(tables.size());
        std::vector<std::vector<float>> rows(tables.size());
        std::vector<LookupBlock> lookups;
        std::vector<GradientBlock> gradients;
        for (uint32_t c = 0; c < tables.size(); ++c) {
          for (uint64_t sign = rng.Next() % 40; sign < kSigns; sign += 1 + rng.Next() % 40) signs[c].push_back(sign);
          rows[c].resize(signs[c].size() * 3);
          lookups.push_back({c, signs[c], rows[c].data()});
        }
        REQUIRE(store.Lookup({rank, step}, LookupMode::kTrain, lookups).ok());
        for (uint32_t c = 0; c < tables.size(); ++c) {
          for (size_t i = 0; i < rows[c].size(); ++i) {
            rows[c][i] = static_cast<float>(rng.Next() % 5) - 2.0f;
            auto& sum = expected[rank][c][signs[c][i / 3]];
            sum.resize(3);
            sum[i % 3] -= rows[c][i];
          }
          gradients.push_back({c, signs[c], rows[c].data()});
        }
        const Status status = store.Apply({rank, step}, gradients);
        REQUIRE_MESSAGE(status.ok(), status.message());
      }
    };
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < kRanks; ++rank) threads.emplace_back(train, rank);
    for (std::thread& thread : threads) thread.join();
    CHECK(cuts() >= 200);
    for (const auto& transport : transports) transport->Heal();
    RemoteStore store(tables, *clients[0], {});
    for (uint32_t c = 0; c < tables.size(); ++c) {
      uint64_t wrong = 0, misrouted = 0, rows = 0;
      REQUIRE(store.Scan(c, [&](uint64_t sign, std::span<const float> row, RowAge) {
        ++rows;
        for (size_t d = 0; d < 3; ++d) {
          float sum = 0;
          for (const auto& rank : expected) {
            const auto found = rank[c].find(sign);
            if (found != rank[c].end()) sum += found->second[d];
          }
          wrong += row[d] != sum ? 1 : 0;
        }
        std::vector<float> copy(3);
        for (uint32_t server = 0; server < kServers; ++server) {
          const bool held = servers[server]->store().Read(c, sign, copy).value();
          misrouted += held != (server == ServerOf(sign, kServers)) ? 1 : 0;
        }
      }).ok());
      CHECK(rows == kSigns);
      CHECK(wrong == 0);
      CHECK(misrouted == 0);
      CHECK(store.RowCount(c).value() == rows);
    }
    for (const auto& client : clients) client->Close();
    for (const auto& server : servers) server->Close();
    for (const auto& transport : transports) transport->Close();
  }
}

}  // namespace persia
