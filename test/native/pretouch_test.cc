// Touching ahead: what is asked for becomes resident with its contents, and nothing is touched after it was cancelled.
#include "base/pretouch.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <sys/mman.h>

#include "base/environment.h"

namespace persia {
namespace {

constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;

size_t ResidentPages(std::byte* data, size_t bytes) {
  std::vector<unsigned char> resident(bytes / kPage);
  REQUIRE(mincore(data, bytes, resident.data()) == 0);
  size_t count = 0;
  for (const unsigned char page : resident) count += page & 1;
  return count;
}

// Asks again and again: a request may be dropped.
void TouchAll(std::byte* data, size_t bytes) {
  for (int tries = 0; tries < 10'000 && ResidentPages(data, bytes) < bytes / kPage; ++tries) {
    PretouchSoon(data, bytes);
    PaceUse(kPage);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  REQUIRE(ResidentPages(data, bytes) == bytes / kPage);
}

TEST_CASE("touching ahead: memory becomes resident and keeps its contents") {
  for (const size_t bytes : {kHugePage, 5 * kHugePage}) {
    auto* data = StdEnvironment::NewZeroed<std::byte>(bytes);
    data[12345] = std::byte{7};
    TouchAll(data, bytes);
    CHECK(data[12345] == std::byte{7});
    CHECK(data[bytes - 1] == std::byte{0});
    StdEnvironment::Delete(data, bytes);
  }
}

TEST_CASE("touching ahead: memory that others write loses nothing") {
  constexpr size_t kBytes = 4 * kHugePage;
  auto* data = StdEnvironment::NewZeroed<std::atomic<uint8_t>>(kBytes);
  PretouchSoon(data, kBytes);
  for (int round = 1; round <= 3; ++round) {
    for (size_t at = 0; at < kBytes; at += kPage) data[at].fetch_add(1, std::memory_order_relaxed);
    PretouchSoon(data, kBytes);
  }
  CancelPretouch(data, kBytes);
  size_t wrong = 0;
  for (size_t at = 0; at < kBytes; at += kPage) wrong += data[at].load(std::memory_order_relaxed) != 3;
  CHECK(wrong == 0);
  StdEnvironment::Delete(data, kBytes);
}

// A touch of what was unmapped would end the process.
TEST_CASE("touching ahead: memory can be unmapped whatever was asked for") {
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 30; ++i) {
        const size_t bytes = kHugePage * static_cast<size_t>(1 + (i + t) % 4);
        auto* data = StdEnvironment::NewZeroed<std::byte>(bytes);
        PretouchSoon(data, kHugePage);
        PretouchSoon(data, bytes);
        if (i % 3 == 0) std::this_thread::yield();
        StdEnvironment::Delete(data, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace persia
