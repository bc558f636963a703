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

}  // namespace

void StdEnvironment::Retire(std::function<void()> free) { Epoch::Retire(std::move(free)); }

void* StdEnvironment::MapZeroed(size_t bytes) {
  const size_t rounded = Rounded(bytes);
  // Room to move up to a huge page's boundary; what is beside is given back.
  const size_t slack = rounded >= kHugePage ? kHugePage - kPage : 0;
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, rounded + slack, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  PERSIA_CHECK(mapped != MAP_FAILED);
  if (slack == 0) return mapped;
  const auto begin = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (begin + slack) / kHugePage * kHugePage;
  if (aligned > begin) munmap(mapped, aligned - begin);
  if (aligned < begin + slack) munmap(reinterpret_cast<void*>(aligned + rounded), begin + slack - aligned);
  auto* data = reinterpret_cast<void*>(aligned);
  madvise(data, rounded, MADV_HUGEPAGE);
  return data;
}

void StdEnvironment::Unmap(void* data, size_t bytes) {
  if (bytes >= kHugePage) CancelPretouch(data, bytes);
  munmap(data, Rounded(bytes));
}

void StdEnvironment::Unload(void* data, size_t bytes) {
  PERSIA_CHECK(madvise(data, Rounded(bytes), MADV_DONTNEED) == 0);  // private anonymous pages come back as zeros
}

void StdEnvironment::TouchSoon(void* data, size_t bytes) {
  if (bytes >= kHugePage) PretouchSoon(data, bytes);
}

}  // namespace persia
