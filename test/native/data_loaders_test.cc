// Several data loaders: the hand-over of batches inside of one, and clusters whose batches come from all of them.
#pragma GCC diagnostic ignored "-Wrestrict"  // g++ 12 takes `"f" + string` for an overlap (its bug 105651)
#include "trainer/loader_queue.h"

#include <atomic>
#include <thread>

#include "cluster_fixtures.h"

namespace persia {
namespace {

// What a completion of an Ask or a NextPass was called with.
template <typename T>
struct Answer {
  std::promise<Result<T>> promise;
  std::future<Result<T>> future = promise.get_future();
  std::function<void(Result<T>)> done() {
    return [this](Result<T> result) { promise.set_value(std::move(result)); };
  }
  Result<T> Wait() { return future.get(); }
  bool is_there() const { return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
};
using Asked = Answer<std::optional<uint32_t>>;

Status DeliverAndWait(LoaderQueue& queue, const BatchPlace& place, std::shared_ptr<const Batch> batch) {
  Waiter waiter;
  queue.Deliver(place, std::move(batch), waiter.completion());
  return waiter.Wait();
}

// Reads the share of a loader in each pass, as ts/roles does: passes of so many batches, of which number b is
// SizedBatch(b + 1).
class Reader {
 public:
  Reader(LoaderQueue& queue, uint32_t rank, uint32_t loaders, uint64_t batches)
      : thread_([=, &queue] {
          for (uint64_t pass = 0;;) {
            Answer<LoaderQueue::Pass> next;
            queue.NextPass(pass, next.done());
            const Result<LoaderQueue::Pass> opened = next.Wait();
            if (!opened.ok()) return;
            pass = opened.value().number;
            Status status;
            const uint64_t first = std::stoull(opened.value().text);
            for (uint64_t batch = first; batch < batches && status.ok(); ++batch) {
              if (batch % loaders == rank) status = DeliverAndWait(queue, {pass, batch}, SizedBatch(batch + 1));
            }
            if (status.ok()) (void)queue.Finish(pass);
          }
        }) {}
  ~Reader() { thread_.join(); }  // after the queue was closed

 private:
  std::thread thread_;
};

std::vector<std::unique_ptr<Reader>> ReadersOf(TestCluster& cluster, uint64_t batches) {
  std::vector<std::unique_ptr<Reader>> readers;
  const auto loaders = static_cast<uint32_t>(cluster.queues.size());
  for (uint32_t rank = 1; rank < loaders; ++rank) {
    readers.push_back(std::make_unique<Reader>(*cluster.queues[rank], rank, loaders, batches));
  }
  return readers;
}

Result<std::shared_ptr<const Batch>> AskFor(TestCluster& cluster, const BatchPlace& place) {
  Answer<std::shared_ptr<const Batch>> answer;
  cluster.loaders->Ask(place, answer.done());
  return answer.Wait();
}

// Trains a pass from batch `first` on, up to batch `end` or the end of the data; returns the number of batches.
uint64_t TrainPass(TestCluster& cluster, uint64_t pass, uint64_t first, uint64_t end, uint64_t own_end) {
  REQUIRE(cluster.loaders->Open({pass, std::to_string(first)}).ok());
  for (uint64_t number = first; number < end; ++number) {
    const BatchPlace place{pass, number};
    if (!cluster.loaders->Has(place) && number >= own_end) return number - first;
    std::shared_ptr<const Batch> batch = SizedBatch(number + 1);
    if (cluster.loaders->Has(place)) {
      const auto asked = AskFor(cluster, place);
      REQUIRE_MESSAGE(asked.ok(), asked.status().message());
      if (asked.value() == nullptr) return number - first;
      CHECK(asked.value()->rows == batch->rows);
      batch = asked.value();
    }
    const Status status = PushAndWait(*cluster.trainer, batch);
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  return end - first;
}

constexpr uint64_t kEndless = 1'000'000;

}  // namespace

TEST_CASE("a loader queue holds so many batches, hands them out by number, and says when a pass has no more") {
  LoaderQueue queue;
  Answer<LoaderQueue::Pass> first_pass, second_pass;
  queue.NextPass(0, first_pass.done());
  CHECK(!first_pass.is_there());
  REQUIRE(queue.Open({1, "from here"}).ok());
  CHECK(first_pass.Wait().value().text == "from here");
  queue.NextPass(1, second_pass.done());

  Asked early, later, never;
  queue.Ask({1, 0}, early.done());
  CHECK(!early.is_there());
  for (uint64_t number = 0; number + 1 < LoaderQueue::kMostReady; ++number) {
    CHECK(DeliverAndWait(queue, {1, number}, MakeBatch(number, 50, static_cast<uint32_t>(number) + 7)).ok());
  }
  CHECK(early.Wait().value() == 7u);
  Waiter full;
  queue.Deliver({1, 3}, MakeBatch(3), full.completion());
  CHECK(full.future.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  CHECK(queue.ready() == LoaderQueue::kMostReady);
  CHECK(queue.Take({1, 0}).value()->rows == 7);
  CHECK(full.Wait().ok());
  CHECK(queue.Take({1, 0}).status().code() == ErrorCode::kUsage);

  queue.Ask({1, 4}, never.done());
  CHECK(!never.is_there());
  REQUIRE(queue.Finish(1).ok());
  CHECK(!never.Wait().value().has_value());
  queue.Ask({1, 2}, later.done());
  CHECK(later.Wait().value() == 9u);
  CHECK(!second_pass.is_there());
  queue.Close();
  CHECK(second_pass.Wait().status().code() == ErrorCode::kClosed);
}

TEST_CASE("a new pass ends the one before in a loader queue: whoever is still with that is told") {
  LoaderQueue queue;
  REQUIRE(queue.Open({3, ""}).ok());
  for (uint64_t number = 0; number + 1 < LoaderQueue::kMostReady; ++number) {
    REQUIRE(DeliverAndWait(queue, {3, number}, MakeBatch(number)).ok());
  }
  Waiter full;
  Asked waiting;
  queue.Deliver({3, 3}, MakeBatch(3), full.completion());
  queue.Ask({3, 9}, waiting.done());
  REQUIRE(queue.Open({4, ""}).ok());
  CHECK(full.Wait().code() == ErrorCode::kAborted);
  CHECK(waiting.Wait().status().code() == ErrorCode::kAborted);
  CHECK(queue.ready() == 0);
  CHECK(queue.Take({3, 0}).status().code() == ErrorCode::kAborted);
  CHECK(queue.Finish(3).code() == ErrorCode::kAborted);
  CHECK(DeliverAndWait(queue, {3, 4}, MakeBatch(4)).code() == ErrorCode::kAborted);
  Asked old;
  queue.Ask({3, 0}, old.done());
  CHECK(old.Wait().status().code() == ErrorCode::kAborted);
  CHECK(queue.Open({4, ""}).code() == ErrorCode::kUsage);
  CHECK(DeliverAndWait(queue, {4, 0}, MakeBatch(0)).ok());
  queue.Close();
  queue.Close();
  CHECK(queue.Open({5, ""}).code() == ErrorCode::kClosed);
  CHECK(DeliverAndWait(queue, {4, 1}, MakeBatch(1)).code() == ErrorCode::kClosed);
}

TEST_CASE("batches go through a loader queue in order while both sides hurry and passes change") {
  LoaderQueue queue;
  Reader reader(queue, 0, 1, 100);
  for (uint64_t pass = 1; pass <= 20; ++pass) {
    REQUIRE(queue.Open({pass, "0"}).ok());
    const uint64_t stop = pass % 3 == 0 ? 100 : pass;
    for (uint64_t number = 0; number < stop; ++number) {
      Asked asked;
      queue.Ask({pass, number}, asked.done());
      CHECK(asked.Wait().value() == SizedBatch(number + 1)->rows);
      CHECK(queue.Take({pass, number}).value()->rows == SizedBatch(number + 1)->rows);
    }
    Asked end;
    if (stop == 100) queue.Ask({pass, 100}, end.done());
    if (stop == 100) CHECK(!end.Wait().value().has_value());
  }
  queue.Close();
}

TEST_CASE("a cluster with several data loaders trains like one process, and every pass has every batch once") {
  constexpr uint64_t kBatches = 23;  // shares of unequal length
  for (const uint32_t data_loaders : {2u, 3u}) {
    CAPTURE(data_loaders);
    const TrainerConfig config = ClusterConfig(TrainerMode::kSync, 2);
    TrainerConfig one = config;
    one.nn_workers = 1;
    const auto alone = Make(one);
    TestCluster cluster(config, {.data_loaders = data_loaders});
    const auto readers = ReadersOf(cluster, kBatches);
    for (uint64_t pass = 1; pass <= 2; ++pass) {
      TrainSizes(*alone, 1, kBatches);
      CHECK(TrainPass(cluster, pass, 0, kEndless, kBatches) == kBatches);
    }
    Rest(*alone);
    Rest(*cluster.trainer);
    CHECK(FarthestRows(*alone, *cluster.trainer) < 1e-5);
    CHECK(Farthest(DenseOf(alone->dense_model(0)), DenseOf(cluster.nn[1]->dense_model())) < 1e-5);
    CHECK(cluster.trainer->progress().samples == alone->progress().samples);
    for (const auto& embedding_worker : cluster.ew) CHECK(embedding_worker->held() == 0);
    for (const auto& loader : cluster.dl) CHECK(loader->ready() == 0);
    cluster.trainer.reset();
    cluster.dl.clear();
  }
}

TEST_CASE("with several data loaders one NN worker is deterministic bit for bit, and a pass goes on at any batch") {
  TrainerConfig config = ClusterConfig(TrainerMode::kHybrid, 1);
  config.deterministic = true;
  const auto alone = TrainedAlone(config, 24);
  TestCluster cluster(config, {.data_loaders = 3});
  const auto readers = ReadersOf(cluster, 24);
  CHECK(TrainPass(cluster, 1, 0, 7, kEndless) == 7);  // ends early: what was read ahead is dropped
  CHECK(TrainPass(cluster, 2, 7, kEndless, 24) == 17);
  Rest(*cluster.trainer);
  CHECK(FarthestRows(*alone, *cluster.trainer) == 0);
  CHECK(DenseOf(alone->dense_model(0)) == DenseOf(cluster.nn[0]->dense_model()));
  cluster.trainer.reset();
  cluster.dl.clear();
}

TEST_CASE("pauses and modes work with batches that other data loaders send") {
  for (const TrainerMode mode : {TrainerMode::kHybrid, TrainerMode::kAsync}) {
    TestCluster cluster(ClusterConfig(mode, 2), {.data_loaders = 2});
    const auto readers = ReadersOf(cluster, kEndless);
    uint64_t done = 0;
    for (uint64_t pass = 1; pass <= 10; ++pass) {
      done += TrainPass(cluster, pass, 0, 12, kEndless);
      Waiter paused;
      cluster.trainer->Pause(std::nullopt, paused.completion());
      REQUIRE(paused.Wait().ok());
      CHECK(cluster.trainer->progress().steps == done);
      cluster.trainer->Resume();
    }
    cluster.trainer.reset();
    cluster.dl.clear();
  }
}

TEST_CASE("a data loader that is lost ends training with its name, and a batch that nobody has is refused") {
  for (const TrainerMode mode : {TrainerMode::kSync, TrainerMode::kHybrid}) {
    TestCluster cluster(ClusterConfig(mode, 2), {.data_loaders = 2, .deadline_ms = 1'000});
    const auto readers = ReadersOf(cluster, kEndless);
    CHECK(TrainPass(cluster, 1, 0, 9, kEndless) == 9);
    auto nobody = CopyOf(MakeBatch(1));
    nobody->place = BatchPlace{1, 4};
    CHECK(PushAndWait(*cluster.trainer, nobody).code() == ErrorCode::kBatchInvalid);
    const auto held = AskFor(cluster, {1, 9});
    REQUIRE(held.ok());
    cluster.Kill("dl-1");
    Answer<std::shared_ptr<const Batch>> asked;
    cluster.loaders->Ask({1, 11}, asked.done());
    REQUIRE(PushAndWait(*cluster.trainer, held.value()).ok());  // the order to send it is given, nothing more
    const Status status = DrainAndWait(*cluster.trainer);
    CHECK(status.code() == ErrorCode::kPeerLost);
    CHECK(Mentions(status, "data loader 1"));
    CHECK(Mentions(asked.Wait().status(), "data loader 1"));
    CHECK(PushAndWait(*cluster.trainer, MakeBatch(1)).code() == ErrorCode::kPeerLost);
    cluster.trainer.reset();
    cluster.dl.clear();
  }
}

TEST_CASE("an invalid batch of another data loader ends training with what is wrong with it") {
  TestCluster cluster(ClusterConfig(TrainerMode::kHybrid, 2), {.data_loaders = 2});
  REQUIRE(cluster.loaders->Open({1, ""}).ok());
  auto batch = CopyOf(MakeBatch(1));
  const std::vector<float> labels(kRows, 2.0f);
  batch->labels = labels;
  REQUIRE(DeliverAndWait(*cluster.queues[1], {1, 1}, batch).ok());
  const auto asked = AskFor(cluster, {1, 1});
  REQUIRE(asked.ok());
  REQUIRE(PushAndWait(*cluster.trainer, asked.value()).ok());
  const Status status = DrainAndWait(*cluster.trainer);
  CHECK(status.code() == ErrorCode::kBatchInvalid);
  CHECK(Mentions(status, "click"));
}

}  // namespace persia
