#include "base/environment.h"

#include <utility>

#include <sys/mman.h>

#include "base/epoch.h"
#include "base/pretouch.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

size_t Rounded(size_t bytes) {
  const size_t page = bytes >= kHugePage ? kHugePage : kPage;
  return (bytes + page - 1) / page * page;
}

// Pages in front of and behind what is in huge pages, never touched: without them the kernel would join neighbours to
// one area, and whoever maps or unmaps a part of that would wait for all page faults in it.
size_t GuardOf(size_t rounded) { return rounded >= kHugePage ? kPage : 0; }

// Maps (rounded) bytes, with a huge page's boundary `head` behind their beginning if they are as large as one.
uintptr_t Map(size_t rounded, size_t head) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  // Room to move up to that boundary; what is beside is given back.
  const size_t guard = GuardOf(rounded), all = rounded + 2 * guard;
  const size_t slack = guard > 0 ? kHugePage - kPage : 0;
  void* mapped = mmap(nullptr, all + slack, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  PERSIA_CHECK(mapped != MAP_FAILED);
  const auto begin = reinterpret_cast<uintptr_t>(mapped);
  if (slack == 0) return begin;
  const uintptr_t kept = (begin + guard + head + slack) / kHugePage * kHugePage - head - guard;
  if (kept > begin) munmap(mapped, kept - begin);
  if (kept < begin + slack) munmap(reinterpret_cast<void*>(kept + all), begin + slack - kept);
  return kept + guard;
}

}  // namespace

void StdEnvironment::Retire(std::function<void()> free) { Epoch::Retire(std::move(free)); }

void* StdEnvironment::MapZeroed(size_t bytes) {
  const size_t rounded = Rounded(bytes);
  auto* data = reinterpret_cast<void*>(Map(rounded, 0));
  if (rounded >= kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
  return data;
}

std::byte* StdEnvironment::NewSlab(size_t bytes, size_t head) {
  PERSIA_CHECK(head % kPage == 0);
  const uintptr_t data = Map(Rounded(bytes), head);
  const size_t huge = bytes < head ? 0 : (bytes - head) / kHugePage * kHugePage;
  if (huge > 0) {
    madvise(reinterpret_cast<void*>(data), Rounded(bytes), MADV_NOHUGEPAGE);
    madvise(reinterpret_cast<void*>(data + head), huge, MADV_HUGEPAGE);
  }
  return reinterpret_cast<std::byte*>(data);
}

void StdEnvironment::Unmap(void* data, size_t bytes) {
  if (bytes >= kHugePage) CancelPretouch(data, bytes);
  const size_t rounded = Rounded(bytes), guard = GuardOf(rounded);
  munmap(static_cast<std::byte*>(data) - guard, rounded + 2 * guard);
}

void StdEnvironment::Unload(void* data, size_t bytes) {
  PERSIA_CHECK(madvise(data, Rounded(bytes), MADV_DONTNEED) == 0);  // private anonymous pages come back as zeros
}

void StdEnvironment::TouchSoon(void* data, size_t bytes) {
  if (bytes >= kHugePage) PretouchSoon(data, bytes);
}

}  // namespace persia
