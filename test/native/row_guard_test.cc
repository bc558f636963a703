// The protocol by which rows are written and read (table/row_guard.h), as a model of its steps under every schedule: a
// row of two words, whose writers each add one to both. How the steps are ordered in memory is for the reader and for
// ThreadSanitizer to see in the table's own tests.
//
// A read must be whole, not older than what had been written or read before it began, and not wait: it may look again
// only if another thread got on in the middle of it.
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "sanitizers.h"
#include "schedule.h"

namespace persia {
namespace {

// How a writer ends, and what may be missing.
enum class Protocol {
  kRight,              // raise the version, withdraw the record, unlock the lane
  kUnlockFirst,        // raise the version, unlock, withdraw: a later writer's reader may meet the old record
  kWithdrawFirst,      // withdraw, raise the version, unlock
  kNoVersion,          // withdraw, unlock
  kNoRecord,           // nothing published
  kNoNumber,           // records aren't numbered
  kNoSecondLook,       // a reader of a locked row doesn't look for a record after its copy
  kNoWordAfter,        // a reader doesn't look at the word after its copy
  kVersionBeforeWord,  // a reader looks at the version first and at the word then, after its copy
};

using Row = std::array<uint32_t, 2>;

class Model {
 public:
  static constexpr size_t kWriters = 3;

  explicit Model(Protocol protocol) : protocol_(protocol) {}

  void Write(size_t writer) {
    ++begun_;
    Record& record = records_[writer];
    for (bool unlocked = false; !word_.compare_exchange_strong(unlocked, true); unlocked = false) ScheduledEnv::Pause();
    const uint32_t value = row_[0].load() + 1;
    for (auto& word : record.data) word.store(value);
    if (protocol_ != Protocol::kNoNumber) record.number.store(record.number.load() + 1);
    if (protocol_ != Protocol::kNoRecord) record.of_row.store(true);
    for (auto& word : row_) word.store(value);
    if (protocol_ == Protocol::kWithdrawFirst) record.of_row.store(false);
    if (protocol_ != Protocol::kNoVersion) version_.fetch_add(1);
    if (protocol_ == Protocol::kUnlockFirst) word_.store(false);
    record.of_row.store(false);
    if (protocol_ != Protocol::kUnlockFirst) word_.store(false);
    newest_ = std::max(newest_, value);
  }

  // `interruptions`: how often another thread can run in the middle of this.
  void Read(uint32_t interruptions) {
    const uint32_t oldest = newest_;
    Row row;
    uint32_t tries = 1;
    while (!TryRead(&row)) ++tries;
    if (tries > interruptions + 1) throw std::runtime_error("a reader waited");
    if (row[0] != row[1]) throw std::runtime_error("a row was torn");
    if (row[0] < oldest || row[0] > begun_) throw std::runtime_error("a row was of another time");
    newest_ = std::max(newest_, row[0]);
  }

  std::string Check() const {
    const bool right = row_[0].load() == begun_ && row_[1].load() == begun_ && !word_.load();
    return right ? "" : "a write was lost";
  }

 private:
  struct Record {
    ScheduledEnv::Atomic<bool> of_row;
    ScheduledEnv::Atomic<uint32_t> number;
    std::array<ScheduledEnv::Atomic<uint32_t>, 2> data;
  };
  enum class RecordRead { kNone, kCopied, kChanged };

  RecordRead CopyFromRecord(Row* row) {
    for (Record& record : records_) {
      if (!record.of_row.load()) continue;
      const uint32_t number = record.number.load();
      for (size_t i = 0; i < 2; ++i) (*row)[i] = record.data[i].load();
      return record.of_row.load() && record.number.load() == number ? RecordRead::kCopied : RecordRead::kChanged;
    }
    return RecordRead::kNone;
  }

  bool TryRead(Row* row) {
    const uint32_t version = version_.load();
    const bool locked = word_.load();
    if (locked) {
      const RecordRead read = CopyFromRecord(row);
      if (read != RecordRead::kNone) return read == RecordRead::kCopied;
    }
    for (size_t i = 0; i < 2; ++i) (*row)[i] = row_[i].load();
    if (locked && protocol_ != Protocol::kNoSecondLook) {
      for (Record& record : records_) {
        if (record.of_row.load()) return false;
      }
    }
    if (protocol_ == Protocol::kVersionBeforeWord) return version_.load() == version && word_.load() == locked;
    if (protocol_ != Protocol::kNoWordAfter && word_.load() != locked) return false;
    return version_.load() == version;
  }

  const Protocol protocol_;
  ScheduledEnv::Atomic<bool> word_;  // locked
  ScheduledEnv::Atomic<uint32_t> version_;
  std::array<ScheduledEnv::Atomic<uint32_t>, 2> row_;
  std::array<Record, kWriters> records_;
  uint32_t begun_ = 0;   // writes
  uint32_t newest_ = 0;  // of the values that were written or read when it was done
};

struct Threads {
  size_t writers = 1;  // each writes once, but the last
  int last_writes = 1;
  bool last_reads = false;  // after each of its writes
  int reads = 1;            // by a thread of their own
};

MakeScenario ScenarioOf(Protocol protocol, const Threads& threads, uint32_t preemptions) {
  return [=] {
    auto model = std::make_shared<Model>(protocol);
    Scenario scenario;
    for (size_t writer = 0; writer < threads.writers; ++writer) {
      const bool last = writer + 1 == threads.writers;
      scenario.threads.push_back([=] {
        for (int i = 0; i < (last ? threads.last_writes : 1); ++i) {
          model->Write(writer);
          if (last && threads.last_reads) model->Read(preemptions);
        }
      });
    }
    if (threads.reads > 0) {
      scenario.threads.push_back([=] {
        for (int i = 0; i < threads.reads; ++i) model->Read(preemptions);
      });
    }
    scenario.check = [model] { return model->Check(); };
    return scenario;
  };
}

ScheduleResult Explore(Protocol protocol, const Threads& threads, uint32_t preemptions) {
  return ExploreSchedules({.preemptions = preemptions, .prune = true}, ScenarioOf(protocol, threads, preemptions));
}

constexpr uint32_t kFewer = kSanitized ? 1 : 0;  // preemptions

const Threads kOneWriter{.writers = 1, .last_writes = 2, .reads = 2};
const Threads kTwoWriters{.writers = 2, .last_writes = 1, .reads = 1};
// The second writer looks for what it wrote while a third is at work.
const Threads kWriterReads{.writers = 3, .last_reads = true, .reads = 0};

void CheckRight(const Threads& threads, uint32_t preemptions) {
  const ScheduleResult result = Explore(Protocol::kRight, threads, preemptions - kFewer);
  CHECK(result.failure == "");
  CHECK(result.complete);
}

TEST_CASE("row protocol: reads are whole, fresh, and never wait") {
  CheckRight(kOneWriter, 4);
  CheckRight(kTwoWriters, 3);
  CheckRight(kWriterReads, 2);
  constexpr uint32_t kAny = 1000;  // interruptions
  const uint64_t schedules = kFewer == 0 ? 20'000 : 1000;
  CHECK(RandomSchedules(schedules, 1, ScenarioOf(Protocol::kRight, kWriterReads, kAny)).failure == "");
}

// Of the first failing schedule.
std::string FailureOf(Protocol protocol, const Threads& threads, uint32_t preemptions) {
  return Explore(protocol, threads, preemptions).failure;
}
bool Contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_CASE("row protocol: every part of it is needed") {
  CHECK(Contains(FailureOf(Protocol::kNoRecord, kOneWriter, 2), "torn"));
  CHECK(Contains(FailureOf(Protocol::kWithdrawFirst, kOneWriter, 3), "torn"));
  CHECK(Contains(FailureOf(Protocol::kNoVersion, kOneWriter, 3), "torn"));
  CHECK(Contains(FailureOf(Protocol::kNoNumber, kOneWriter, 4), "torn"));
  CHECK(Contains(FailureOf(Protocol::kNoSecondLook, kOneWriter, 3), "torn"));
  CHECK(Contains(FailureOf(Protocol::kNoWordAfter, kOneWriter, 2), "torn"));
  CHECK(Contains(FailureOf(Protocol::kVersionBeforeWord, kOneWriter, 3), "torn"));
  CHECK(Contains(FailureOf(Protocol::kUnlockFirst, kWriterReads, 3), "of another time"));
}

}  // namespace
}  // namespace persia
