#include "table/frequency_sketch.h"

#include <algorithm>

#include "base/status.h"

namespace persia {
namespace {

constexpr uint64_t kFewestSigns = 64;  // with less a line would age after a handful of increments

constexpr uint64_t kRunsMark = uint64_t{1} << 63;  // of a state's first word

constexpr uint64_t Halved(uint64_t word) { return word >> 1 & 0x7777777777777777ULL; }

// Appends the runs of those of (count) values at(i) that are not 0.
template <typename At>
void AppendRuns(uint64_t count, At at, std::vector<uint64_t>& words) {
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t value = at(i);
    if (value == 0) continue;
    const uint64_t first = i;
    const size_t head = words.size();
    words.push_back(0);
    for (; value != 0 && i - first < UINT32_MAX; value = ++i < count ? at(i) : 0) words.push_back(value);
    words[head] = first << 32 | (i - first);
  }
  words.push_back(0);
}

// Takes the runs of (count) values, none above `most`, from the front of `words`: calls take(i, value) for each.
template <typename Take>
bool ReadRuns(uint64_t count, uint64_t most, std::span<const uint64_t>& words, Take take) {
  for (uint64_t end = 0; !words.empty();) {
    const uint64_t first = words[0] >> 32, length = words[0] & UINT32_MAX;
    words = words.subspan(1);
    if (first == 0 && length == 0) return true;
    if (first < end || length == 0 || length > words.size() || first + length > count) return false;
    end = first + length;
    for (uint64_t i = first; i < end; ++i) {
      if (words[i - first] > most) return false;
      take(i, words[i - first]);
    }
    words = words.subspan(length);
  }
  return false;
}

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
  StdEnvironment::Zero(words_, word_count());
  for (uint64_t i = 0; i < pages_; ++i) raises_[i].store(0, std::memory_order_relaxed);
}

// A page that has counted no increment has no counts: its memory needs no touch. (After 2^32 increments, when the
// number is 0 for a moment, its counts would be left out.)
void FrequencySketch::Save(std::vector<uint64_t>& words) const {
  words.push_back(pages_ | kRunsMark);
  words.push_back(stride_);
  const auto raises = [&](uint64_t page) { return raises_[page].load(std::memory_order_relaxed); };
  AppendRuns(pages_, raises, words);
  AppendRuns(word_count(), [&](uint64_t i) -> uint64_t {
    return raises(i / kPageWords) == 0 ? 0 : words_[i].load(std::memory_order_relaxed);
  }, words);
}

// Gives each value of a state to its taker; false as soon as it is found not to be one of this sketch.
template <typename TakeRaises, typename TakeWord>
bool FrequencySketch::Read(std::span<const uint64_t> words, TakeRaises take_raises, TakeWord take_word) const {
  if (words.size() < 2 || words[1] != stride_) return false;
  const uint64_t first = words[0];
  words = words.subspan(2);
  if (first == (pages_ | kRunsMark)) {
    return ReadRuns(pages_, UINT32_MAX, words, take_raises) &&
           ReadRuns(word_count(), UINT64_MAX, words, take_word) && words.empty();
  }
  if (first != pages_ || words.size() != pages_ + word_count()) return false;
  for (uint64_t i = 0; i < pages_; ++i) {
    if (words[i] > UINT32_MAX) return false;
    take_raises(i, words[i]);
  }
  for (uint64_t i = 0; i < word_count(); ++i) take_word(i, words[pages_ + i]);
  return true;
}

bool FrequencySketch::Restore(std::span<const uint64_t> words) {
  const auto look = [](uint64_t, uint64_t) {};
  if (!Read(words, look, look)) return false;
  Clear();
  return Read(
      words,
      [&](uint64_t page, uint64_t number) {
        raises_[page].store(static_cast<uint32_t>(number), std::memory_order_relaxed);
      },
      [&](uint64_t i, uint64_t word) {
        if (word != 0) words_[i].store(word, std::memory_order_relaxed);
      });
}

}  // namespace persia
