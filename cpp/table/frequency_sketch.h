// FrequencySketch: about how often each sign was counted of late, in one word for each expected sign. It says when a
// sign has been looked up often enough to get a row (admission), and which of a few rows is looked up least
// (eviction).
//
// A count-min sketch (Cormode, Muthukrishnan 2005) with conservative update (Estan, Varghese 2002) that ages as TinyLFU
// does (Einziger, Friedman, Manes 2017). All counters of a sign lie in one 64-bit word, so that counting it is one
// cache line and one compare-and-swap, and exact when threads meet:
//
//   word   63          48          32          16           0
//          [ c15 … c12 | c11 … c8  | c7  …  c4 | c3  …  c0 ]      4 bits each; a sign has one of each quarter
//
// The estimate of a sign is the least of its four counters. Counting raises only those that are at the least, by one;
// at kMost they stop. Wider counters would tell apart what is certain to stay (or to be admitted) anyway, and leave
// fewer of them: with 8 bits in the same memory, 1.5 to 5 times as many new signs are taken for known ones.
//
// Error. An estimate is never too low (but for aging), and too high only when other signs of its word raised all four
// counters. Measured on Zipf(1.05) ids of 5 M: when 10 × expected signs have been counted for the first time (2.3
// distinct ones a word), 9 % of signs never counted have an estimate above 0, 5 % of those counted once one above 1.
// After many windows, what is left of older ones adds to that: 37 % above 0, 8 % above 1.
//
// Aging. So that old popularity fades, counters are halved, each once in kWindow · (expected signs) increments. Words
// are in pages of 512 (4 KiB), each of which counts the increments that raised something in it; in its first window
// nothing ages, then each 64th of a window halves the next line (8 words) of the page. The increment that makes it due
// does it: at most 8 words of work, no pass over everything, no counter that all threads share. Increments of signs at
// kMost change nothing and don't count, as in TinyLFU.
//
// Memory orders: all relaxed. A word is changed as a whole by compare-and-swap, and carries no data but its counters:
// the modification order of each word alone makes that no count is lost, whoever raises or halves it. The
// increments of a page are numbered by fetch_add, which gives each number to one thread; that one ages the line.
//
// State. Of the increments of pages and of the words only what is not 0 is saved, in runs, so that the state of a table
// with few rows is small whatever its capacity:
//
//   pages + 2^63 | stride | runs of increments | runs of words      runs := (first << 32 | length, value …)… 0
//
// The first states had no mark and no runs, but every value; they are still read.
//
// Thread-safety: internally synchronised, lock-free. Used by one thread it is deterministic. Restore is externally
// synchronised; Save and Clear beside increments see or leave some of them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/environment.h"

namespace persia {

class FrequencySketch {
 public:
  static constexpr uint32_t kMost = 15;    // of a count
  static constexpr uint64_t kMostSigns = uint64_t{1} << 32;  // that a sketch can be made for
  static constexpr uint64_t kBytesPerSign = 8;
  static constexpr uint64_t kWindow = 10;  // increments for each expected sign until a counter is halved

  // `expected_signs`: that are to be told apart at a time, the table's capacity say. Takes 8 bytes for each, at
  // least 4 KiB; memory is touched when it is first used.
  explicit FrequencySketch(uint64_t expected_signs);
  ~FrequencySketch();
  FrequencySketch(const FrequencySketch&) = delete;
  FrequencySketch& operator=(const FrequencySketch&) = delete;

  // `hash` is Mix64(sign), of which the top bits may be the same for all signs of a sketch.

  // Counts one; returns the new estimate.
  uint32_t Increment(uint64_t hash);
  uint32_t Estimate(uint64_t hash) const;
  void Prefetch(uint64_t hash) const { __builtin_prefetch(&words_[WordOf(hash)], 1); }

  void Clear();  // gives the words' memory back
  size_t bytes() const { return word_count() * sizeof(uint64_t) + pages_ * sizeof(uint32_t); }

  // Appends the whole state, progress of aging included, to `words`.
  void Save(std::vector<uint64_t>& words) const;
  // Takes what Save wrote. False, with nothing changed: it is of another size, or not a state.
  bool Restore(std::span<const uint64_t> words);

 private:
  static constexpr uint32_t kDepth = 4;      // counters of a sign
  static constexpr size_t kLineWords = 8;    // aged together
  static constexpr size_t kPageWords = 512;  // with increments numbered together
  static constexpr size_t kPageLines = kPageWords / kLineWords;
  static constexpr size_t kHeadWords = 2;

  using Choice = std::array<uint8_t, kDepth>;  // the places of its counters in the word, in bits

  uint64_t word_count() const { return pages_ * kPageWords; }
  uint64_t window() const { return uint64_t{stride_} * kPageLines; }
  // The product's top bits depend on all bits of the hash.
  uint64_t WordOf(uint64_t hash) const { return (hash * 0x9e3779b97f4a7c15ULL >> 32) * word_count() >> 32; }
  static Choice ChoiceOf(uint64_t hash);
  static uint32_t CounterAt(uint64_t word, uint8_t place) { return word >> place & kMost; }
  static uint32_t Least(uint64_t word, const Choice& choice);

  void CountRaise(uint64_t page);
  void AgeLine(uint64_t first_word);

  template <typename TakeRaises, typename TakeWord>
  bool Read(std::span<const uint64_t> words, TakeRaises take_raises, TakeWord take_word) const;

  const uint64_t pages_;
  const uint32_t stride_;  // raising increments of a page from one aging to the next
  std::atomic<uint64_t>* const words_;  // (pages_, kPageWords), owned
  // (pages_) raising increments of each page; nothing in it ages up to window().
  const std::unique_ptr<std::atomic<uint32_t>[]> raises_;
};

}  // namespace persia
