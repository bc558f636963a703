// The roles as processes hold them, over real transports on loopback: requests, and the ring where gradients are summed.
#pragma GCC diagnostic ignored "-Wrestrict"  // g++ 12 takes `"f" + string` for an overlap (its bug 105651)
#include "trainer/cluster_roles.h"

#include <cstdio>

#include "net/process_transport.h"
#include "trainer_fixtures.h"

namespace persia {
namespace {

TrainerConfig RolesConfig(TrainerMode mode) { return WorkersConfig(mode, 2, false); }

using MakeRole = Result<std::unique_ptr<ClusterRole>> (*)(const TrainerConfig&, const RoleOptions&);

// Two processes of each role, and a driver.
struct Roles {
  Roles(const TrainerConfig& config, TransportChoice transport) {
    const NetOptions net{"127.0.0.1", 0, transport, "a secret of more than 16 bytes", 10'000};
    const auto start = [&](MakeRole make, std::vector<std::string>* addresses) {
      for (uint32_t rank = 0; rank < 2; ++rank) {
        auto role = make(config, {net, {}, rank, 2});
        REQUIRE_MESSAGE(role.ok(), role.status().message());
        CHECK(role.value()->state() == RoleState::kListening);
        addresses->push_back(role.value()->address());
        all.push_back(std::move(role.value()));
      }
    };
    start(MakeParameterServerRole, &peers.parameter_servers);
    start(MakeEmbeddingWorkerRole, &peers.embedding_workers);
    start(MakeNnWorkerRole, &peers.nn_workers);
    // NN workers wait for each other.
    std::vector<std::thread> threads;
    std::vector<Status> connected(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      threads.emplace_back([&, i] { connected[i] = all[i]->Connect(peers); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Status& status : connected) REQUIRE_MESSAGE(status.ok(), status.message());
    auto made = MakeClusterDriver(config, {net, {}, 0, 1}, peers);
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    trainer = std::move(made.value().trainer);
  }
  ~Roles() {
    trainer.reset();
    while (!all.empty()) all.pop_back();
  }

  ClusterPeers peers;
  std::vector<std::unique_ptr<ClusterRole>> all;
  std::shared_ptr<ModelTrainer> trainer;
};

}  // namespace

TEST_CASE("two processes of each role over tcp and shared memory train like one process") {
  const TrainerConfig config = RolesConfig(TrainerMode::kSync);
  TrainerConfig one = config;
  one.nn_workers = 1;
  const auto alone = Make(one);
  Train(*alone, 1, 30);
  REQUIRE(DrainAndWait(*alone).ok());
  for (const TransportChoice transport : {TransportChoice::kShm, TransportChoice::kTcp}) {
    const auto possible = MakeProcessTransport({{}, transport, ""});
    if (!possible.ok()) {
      std::printf("skipped: a cluster over %s: %s\n", TransportChoiceName(transport),
                  possible.status().message().c_str());
      continue;
    }
    Roles roles(config, transport);
    Train(*roles.trainer, 1, 30);
    REQUIRE(DrainAndWait(*roles.trainer).ok());
    CHECK(FarthestRows(*alone, *roles.trainer) < 1e-5);
    std::vector<float> expected, predicted;
    REQUIRE(alone->Predict(*MakeBatch(99), &expected).ok());
    REQUIRE(roles.trainer->Predict(*MakeBatch(99), &predicted).ok());
    for (size_t i = 0; i < expected.size(); ++i) CHECK(predicted[i] == doctest::Approx(expected[i]).epsilon(1e-5));
    uint64_t rows = 0, steps = 0;
    for (const auto& role : roles.all) {
      const RoleCounters counters = role->counters();
      CHECK(counters.requests > 0);
      CHECK(counters.bytes_received > 0);
      CHECK(counters.bytes_sent > 0);
      CHECK(counters.batches == 0);
      CHECK(role->state() == RoleState::kRunning);
      rows += counters.rows;
      steps += counters.steps;
    }
    CHECK(rows == alone->store().RowCount(0).value() + alone->store().RowCount(1).value());
    CHECK(steps == 60);
  }
}

TEST_CASE("a role ends once: with Ok when it is closed, and an NN worker with its error when it fails") {
  Roles roles(RolesConfig(TrainerMode::kHybrid), TransportChoice::kShm);
  std::vector<std::promise<Status>> ends(roles.all.size());
  for (size_t i = 0; i < ends.size(); ++i) {
    roles.all[i]->OnEnd([&ends, i](const Status& status) { ends[i].set_value(status); });
  }
  Train(*roles.trainer, 1, 5);
  roles.all[3]->Close();  // embedding worker 1
  CHECK(ends[3].get_future().get().ok());
  CHECK(roles.all[3]->state() == RoleState::kStopped);
  for (uint64_t step = 6; step <= 20; ++step) roles.trainer->Push(MakeBatch(step), [](Status) {});
  const Status status = DrainAndWait(*roles.trainer);
  CHECK(status.code() == ErrorCode::kPeerLost);
  CHECK(status.message().find("embedding worker 1") != std::string::npos);
  roles.trainer->Close();
  for (const auto& role : roles.all) role->Close();
  for (const size_t i : {0, 1, 2}) CHECK(ends[i].get_future().get().ok());
}

}  // namespace persia
