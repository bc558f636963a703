#include "base/cpu.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace persia {

#if defined(__x86_64__) && defined(__linux__)
namespace {

// Leaf 7 of CPUID: what each subleaf says of bf16.
constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // subleaf 0, edx
constexpr unsigned kAvx512Bf16 = 1u << 5;                     // subleaf 1, eax

// The kernel saves the 8 KiB of tile registers only for processes that asked (arch_prctl(2), Linux 5.16).
bool AskForTiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool HasAvx512Bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  static const bool has = BestSimd() == SimdLevel::kAvx512 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
                          (eax & kAvx512Bf16) != 0;
  return has;
}

bool HasAmxBf16() {
  constexpr unsigned kBoth = kAmxBf16 | kAmxTile;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  static const bool has = HasAvx512Bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
                          (edx & kBoth) == kBoth && AskForTiles();
  return has;
}

#else

bool HasAvx512Bf16() { return false; }
bool HasAmxBf16() { return false; }

#endif

}  // namespace persia
