#include "base/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <numeric>
#include <set>

#include <pthread.h>

namespace persia {
namespace {

TEST_CASE("ThreadPool runs every part exactly once for any team and part count") {
  for (uint32_t threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads, "test");
    CHECK(pool.threads() == threads);
    for (uint32_t parts : {0u, 1u, 2u, 7u, 64u}) {
      std::vector<uint32_t> calls(parts + 1, 0);  // not atomic: a part that runs twice at once is a race
      pool.ParallelFor(parts, [&](uint32_t part) { ++calls[part]; });
      for (uint32_t part = 0; part < parts; ++part) CHECK(calls[part] == 1);
      CHECK(calls[parts] == 0);
    }
  }
}

TEST_CASE("ThreadPool of 0 threads has one thread per core") {
  ThreadPool pool(0, "test");
  CHECK(pool.threads() == std::max(1u, std::thread::hardware_concurrency()));
}

TEST_CASE("ThreadPool loops see what the caller wrote and the caller sees what they wrote") {
  ThreadPool pool(4, "test");
  std::vector<uint64_t> values(64, 0);
  uint64_t addend = 0;
  for (uint64_t loop = 1; loop <= 20000; ++loop) {
    addend = loop;
    const uint32_t parts = 1 + static_cast<uint32_t>(loop % values.size());
    pool.ParallelFor(parts, [&](uint32_t part) { values[part] += addend; });
  }
  uint64_t expected = 0;
  for (uint64_t loop = 1; loop <= 20000; ++loop) expected += loop * (1 + loop % values.size());
  CHECK(std::accumulate(values.begin(), values.end(), uint64_t{0}) == expected);
}

TEST_CASE("ThreadPool wakes threads that went to sleep between loops") {
  ThreadPool pool(3, "test");
  for (int loop = 0; loop < 20; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    // Each part waits for the others, so the loop ends only if the whole team runs.
    std::atomic<uint32_t> arrived{0};
    pool.ParallelFor(3, [&](uint32_t) {
      ++arrived;
      while (arrived < 3) std::this_thread::yield();
    });
    CHECK(arrived == 3);
  }
}

TEST_CASE("ThreadPool waits for parts that take longer than it spins") {
  ThreadPool pool(2, "test");
  std::vector<int> finished(2, 0);
  pool.ParallelFor(2, [&](uint32_t part) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2 + 5 * static_cast<int>(part)));
    finished[part] = 1;
  });
  CHECK(finished[0] + finished[1] == 2);
}

TEST_CASE("ThreadPool names its threads") {
  ThreadPool pool(2, "named");
  std::set<std::string> names;
  std::mutex mutex;
  std::atomic<uint32_t> arrived{0};
  pool.ParallelFor(2, [&](uint32_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof(name));
    std::lock_guard lock(mutex);
    names.insert(name);
  });
  CHECK(names.count("named-1") == 1);
}

TEST_CASE("ThreadPool starts and stops without a loop") {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4, "test");
}

}  // namespace
}  // namespace persia
