#include "base/hyperloglog.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace persia {
namespace {

// Ertl's σ: the share of an estimate that registers at 0 stand for; x is their fraction.
double Sigma(double x) {
  if (x == 1.0) return std::numeric_limits<double>::infinity();
  double y = 1.0, z = x, before;
  do {
    x *= x;
    before = z;
    z += x * y;
    y += y;
  } while (z != before);
  return z;
}

// Ertl's τ: the same for registers at the largest rank; x is the fraction of the others.
double Tau(double x) {
  if (x == 0.0 || x == 1.0) return 0.0;
  double y = 1.0, z = 1.0 - x, before;
  do {
    x = std::sqrt(x);
    before = z;
    y *= 0.5;
    z -= (1.0 - x) * (1.0 - x) * y;
  } while (z != before);
  return z / 3.0;
}

}  // namespace

double HyperLogLog::Estimate() const {
  std::array<uint32_t, kMostRank + 1> registers_of{};  // by rank
  for (const auto& at : registers_) ++registers_of[at.load(std::memory_order_relaxed)];
  constexpr double kCount = kRegisters;
  double z = kCount * Tau(1.0 - registers_of[kMostRank] / kCount);
  for (uint32_t rank = kMostRank - 1; rank >= 1; --rank) z = 0.5 * (z + registers_of[rank]);
  z += kCount * Sigma(registers_of[0] / kCount);
  constexpr double kAlpha = 0.72134752044448170;  // 1 / (2 ln 2)
  return kAlpha * kCount * kCount / z;
}

void HyperLogLog::Merge(const HyperLogLog& other) {
  for (size_t i = 0; i < kRegisters; ++i) Raise(i, other.registers_[i].load(std::memory_order_relaxed));
}

void HyperLogLog::Clear() {
  for (auto& at : registers_) at.store(0, std::memory_order_relaxed);
}

std::vector<uint8_t> HyperLogLog::Save() const {
  std::vector<uint8_t> registers;
  registers.reserve(kRegisters);
  for (const auto& at : registers_) registers.push_back(at.load(std::memory_order_relaxed));
  return registers;
}

bool HyperLogLog::Restore(std::span<const uint8_t> registers) {
  const auto valid = [](uint8_t rank) { return rank <= kMostRank; };
  if (registers.size() != kRegisters || !std::all_of(registers.begin(), registers.end(), valid)) return false;
  for (size_t i = 0; i < kRegisters; ++i) registers_[i].store(registers[i], std::memory_order_relaxed);
  return true;
}

}  // namespace persia
