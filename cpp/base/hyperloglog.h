// HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007): how many distinct hashes were added, from 4 KiB, whatever the
// number.
//
// The top kPrecision bits of a hash choose a register; the register keeps the largest *rank* it was shown: the
// position of the first 1 among the bits that remain. The estimate is Ertl's improved one (2017, "New cardinality
// estimation algorithms for HyperLogLog sketches", arXiv 1702.01284, algorithm 6): one formula without bias and
// without thresholds, from 0 up to far beyond 2^50. Its standard error is 1.04 / sqrt(kRegisters) = 1.6 %; counts
// much below kRegisters are estimated better than that.
//
// Memory orders: all relaxed. A register carries no other data and only rises, by compare-and-swap, so the largest
// rank wins in any order; an estimate beside additions is one of a set between the one before and the one after.
//
// Thread-safety: internally synchronised, lock-free. A hash that changes nothing (nearly all of them, once a few times
// kRegisters were added) costs one load.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace persia {

class HyperLogLog {
 public:
  static constexpr uint32_t kPrecision = 12;
  static constexpr uint32_t kRegisters = 1u << kPrecision;
  static constexpr uint32_t kMostRank = 64 - kPrecision + 1;  // of a hash whose remaining bits are all 0

  HyperLogLog() = default;
  HyperLogLog(const HyperLogLog&) = delete;
  HyperLogLog& operator=(const HyperLogLog&) = delete;

  // `hash` is 64 well mixed bits (base/hash.h); equal things have equal hashes.
  void Add(uint64_t hash) {
    const uint64_t rest = hash << kPrecision | uint64_t{1} << (kPrecision - 1);  // the mark bounds the rank
    Raise(hash >> (64 - kPrecision), static_cast<uint8_t>(std::countl_zero(rest) + 1));
  }

  // About how many distinct hashes were added.
  double Estimate() const;

  // Adds everything that was added to `other`.
  void Merge(const HyperLogLog& other);
  void Clear();

  // The registers, (kRegisters) ranks: the whole state.
  std::vector<uint8_t> Save() const;
  // False, with nothing changed: not the registers of a HyperLogLog of this precision.
  bool Restore(std::span<const uint8_t> registers);

 private:
  void Raise(size_t index, uint8_t rank) {
    std::atomic<uint8_t>& at = registers_[index];
    uint8_t now = at.load(std::memory_order_relaxed);
    while (now < rank && !at.compare_exchange_weak(now, rank, std::memory_order_relaxed)) {
    }
  }

  alignas(64) std::array<std::atomic<uint8_t>, kRegisters> registers_{};
};

}  // namespace persia
