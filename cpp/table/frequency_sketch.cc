#include "table/frequency_sketch.h"

#include <algorithm>

#include "base/status.h"

namespace persia {
namespace {

constexpr uint64_t kFewestSigns = 64;  // with less a line would age after a handful of increments

constexpr uint64_t Halved(uint64_t word) { return word >> 1 & 0x7777777777777777ULL; }

}  // namespace

FrequencySketch::FrequencySketch(uint64_t expected_signs)
    : pages_(std::max<uint64_t>(1, expected_signs / kPageWords + (expected_signs % kPageWords != 0))),
      stride_(static_cast<uint32_t>(kWindow * std::max(expected_signs, kFewestSigns) / (pages_ * kPageLines))),
      words_((PERSIA_CHECK(word_count() <= uint64_t{1} << 32),
              StdEnvironment::NewZeroed<std::atomic<uint64_t>>(word_count()))),
      raises_(new std::atomic<uint32_t>[pages_]()) {}

FrequencySketch::~FrequencySketch() { StdEnvironment::Delete(words_, word_count()); }

FrequencySketch::Choice FrequencySketch::ChoiceOf(uint64_t hash) {
  Choice choice;
  for (uint32_t quarter = 0; quarter < kDepth; ++quarter) {
    choice[quarter] = static_cast<uint8_t>(16 * quarter + 4 * (hash >> 2 * quarter & 3));
  }
  return choice;
}

uint32_t FrequencySketch::Least(uint64_t word, const Choice& choice) {
  uint32_t least = kMost;
  for (const uint8_t place : choice) least = std::min(least, CounterAt(word, place));
  return least;
}

uint32_t FrequencySketch::Increment(uint64_t hash) {
  const uint64_t index = WordOf(hash);
  const Choice choice = ChoiceOf(hash);
  uint64_t word = words_[index].load(std::memory_order_relaxed);
  for (;;) {
    const uint32_t least = Least(word, choice);
    if (least == kMost) return kMost;
    uint64_t raised = word;
    for (const uint8_t place : choice) raised += uint64_t{CounterAt(word, place) == least} << place;
    if (words_[index].compare_exchange_weak(word, raised, std::memory_order_relaxed)) {
      CountRaise(index / kPageWords);
      return least + 1;
    }
  }
}

uint32_t FrequencySketch::Estimate(uint64_t hash) const {
  return Least(words_[WordOf(hash)].load(std::memory_order_relaxed), ChoiceOf(hash));
}

// The number wraps after 2^32 of one page: it then has one window more without aging, like a new one.
void FrequencySketch::CountRaise(uint64_t page) {
  const uint32_t number = raises_[page].fetch_add(1, std::memory_order_relaxed) + 1;
  if (number <= window() || number % stride_ != 0) return;
  AgeLine(page * kPageWords + number / stride_ % kPageLines * kLineWords);
}

void FrequencySketch::AgeLine(uint64_t first_word) {
  for (uint64_t i = first_word; i < first_word + kLineWords; ++i) {
    uint64_t word = words_[i].load(std::memory_order_relaxed);
    while (word != 0 && !words_[i].compare_exchange_weak(word, Halved(word), std::memory_order_relaxed)) {
    }
  }
}

void FrequencySketch::Clear() {
  for (uint64_t i = 0; i < word_count(); ++i) words_[i].store(0, std::memory_order_relaxed);
  for (uint64_t i = 0; i < pages_; ++i) raises_[i].store(0, std::memory_order_relaxed);
}

void FrequencySketch::Save(std::vector<uint64_t>& words) const {
  words.reserve(words.size() + state_words());
  words.push_back(pages_);
  words.push_back(stride_);
  for (uint64_t i = 0; i < pages_; ++i) words.push_back(raises_[i].load(std::memory_order_relaxed));
  for (uint64_t i = 0; i < word_count(); ++i) words.push_back(words_[i].load(std::memory_order_relaxed));
}

bool FrequencySketch::Restore(std::span<const uint64_t> words) {
  if (words.size() != state_words() || words[0] != pages_ || words[1] != stride_) return false;
  const std::span<const uint64_t> raises = words.subspan(kHeadWords, pages_);
  const auto valid = [](uint64_t number) { return number <= UINT32_MAX; };
  if (!std::all_of(raises.begin(), raises.end(), valid)) return false;
  for (uint64_t i = 0; i < pages_; ++i) raises_[i].store(static_cast<uint32_t>(raises[i]), std::memory_order_relaxed);
  const std::span<const uint64_t> counters = words.subspan(kHeadWords + pages_);
  for (uint64_t i = 0; i < word_count(); ++i) words_[i].store(counters[i], std::memory_order_relaxed);
  return true;
}

}  // namespace persia
