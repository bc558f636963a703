// All ranks see one memory, so a bucket is summed where it lies:
//
//   rank 0   [ share 0 | share 1 | share 2 ]     a share is as large a part of a bucket as one rank's part of the work.
//   rank 1   [ share 0 | share 1 | share 2 ]     Whoever claims it adds that part of all ranks, in the order of ranks,
//   rank 2   [ share 0 | share 1 | share 2 ]     and writes the sum to all of them: no copy, no second barrier.
//
// A share can be claimed once all ranks have started the bucket. Start takes at most one of each bucket, so that sums
// proceed while backward computes and the work is spread; Wait takes what is left, so that nobody waits for a rank that
// is computing. Who adds a share has no influence on its bits.
//
// One mutex guards the state, a few steps a bucket; additions run without it. A rank that finds nothing to do spins for
// kSpinSeconds, then blocks: waking a blocked thread costs 50-100 us.
#include "collective/local_collective.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/cpu.h"

namespace persia {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kSpinSeconds = 20e-6;
constexpr size_t kLineBytes = 64;

enum class ValueType { kF32, kF64 };

size_t ValueBytes(ValueType type) { return type == ValueType::kF32 ? sizeof(float) : sizeof(double); }

// What one rank gives to a bucket.
struct Contribution {
  void* values;
  size_t count;
  ValueType type;
};

// Adds up `ranks` arrays in the order of ranks and writes the sums to all of them, over [begin, end).
template <typename T>
PERSIA_ALWAYS_INLINE void ReduceBody(void* const* parts, uint32_t ranks, size_t begin, size_t end) {
  constexpr size_t kBlock = 256;  // sums stay in the first-level cache; memory is read and written once a rank
  T sums[kBlock];
  for (size_t at = begin; at < end; at += kBlock) {
    const size_t count = std::min(kBlock, end - at);
    const T* first = static_cast<const T*>(parts[0]) + at;
    for (size_t i = 0; i < count; ++i) sums[i] = first[i];
    for (uint32_t rank = 1; rank < ranks; ++rank) {
      const T* __restrict values = static_cast<const T*>(parts[rank]) + at;
      for (size_t i = 0; i < count; ++i) sums[i] += values[i];
    }
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      T* __restrict values = static_cast<T*>(parts[rank]) + at;
      for (size_t i = 0; i < count; ++i) values[i] = sums[i];
    }
  }
}

PERSIA_TARGET_AVX2 void ReduceF32Avx2(void* const* parts, uint32_t ranks, size_t begin, size_t end) {
  ReduceBody<float>(parts, ranks, begin, end);
}

void Reduce(ValueType type, void* const* parts, uint32_t ranks, size_t begin, size_t end) {
  if (ranks == 1) return;
  if (type == ValueType::kF64) return ReduceBody<double>(parts, ranks, begin, end);
  if (HasAvx2()) return ReduceF32Avx2(parts, ranks, begin, end);
  ReduceBody<float>(parts, ranks, begin, end);
}

// What the ranks share. Internally synchronised.
class LocalGroup {
 public:
  LocalGroup(uint32_t ranks, const CollectiveOptions& options)
      : size_(ranks), deadline_ms_(options.deadline_ms), ranks_(ranks) {}

  uint32_t size() const { return size_; }
  uint64_t Start(uint32_t rank, const Contribution& contribution);
  Status Wait(uint32_t rank, uint64_t number);
  void Leave(uint32_t rank);
  void Abort(uint32_t rank, const Status& reason);
  Status status() const;

 private:
  using Lock = std::unique_lock<std::mutex>;

  struct Bucket {
    std::vector<void*> parts;  // by rank; the pointers are written before `started` reaches the number of ranks
    size_t count = 0;
    ValueType type = ValueType::kF32;
    uint32_t started = 0;            // ranks
    uint32_t claimed = 0, summed = 0;  // shares
  };
  struct Rank {
    uint64_t started = 0;   // buckets 0 … started - 1
    uint64_t finished = 0;  // of these, waited for
    bool left = false;
  };

  // All of these are called under the lock.
  Bucket& at(uint64_t number) { return window_[number % window_.size()]; }
  void Open(uint64_t number);
  void CheckSame(uint64_t number, uint32_t rank, const Contribution& contribution);
  bool SumShare(Lock& lock, uint64_t number);
  Status Finish(Lock& lock, uint64_t number, SteadyClock::time_point deadline);
  bool WaitForEvent(Lock& lock, SteadyClock::time_point deadline);
  void FailOnMissing(uint64_t number, bool late);
  void Fail(Status reason);
  void WaitForSums(Lock& lock);
  void Announce();

  const uint32_t size_;
  const uint64_t deadline_ms_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  // Counts announcements. Written under the lock; a spinning rank reads it without, and looks at the rest under the
  // lock.
  std::atomic<uint64_t> events_{0};
  std::vector<Rank> ranks_;
  std::vector<Bucket> window_;  // ring of the buckets that some rank has not finished; grows to the most at a time
  uint64_t opened_ = 0;
  uint32_t summing_ = 0;  // threads that add up a share right now
  Status failure_;
};

uint64_t LocalGroup::Start(uint32_t rank, const Contribution& contribution) {
  Lock lock(mutex_);
  const uint64_t number = ranks_[rank].started++;
  if (!failure_.ok()) return number;
  if (number == opened_) Open(number);
  CheckSame(number, rank, contribution);
  Bucket& bucket = at(number);
  bucket.parts[rank] = contribution.values;
  if (++bucket.started == size_) Announce();
  for (uint64_t open = ranks_[rank].finished; open <= number; ++open) SumShare(lock, open);
  return number;
}

// Makes the next bucket, in the place of one that every rank has finished.
void LocalGroup::Open(uint64_t number) {
  uint64_t oldest = number;
  for (const Rank& rank : ranks_) oldest = std::min(oldest, rank.finished);
  if (number - oldest >= window_.size()) {
    std::vector<Bucket> larger(std::max<size_t>(2 * window_.size(), 16));
    for (Bucket& bucket : larger) bucket.parts.resize(size_);
    for (uint64_t open = oldest; open < number; ++open) larger[open % larger.size()] = std::move(at(open));
    window_ = std::move(larger);
  }
  Bucket& bucket = at(number);
  bucket.started = bucket.claimed = bucket.summed = 0;
  ++opened_;
}

void LocalGroup::CheckSame(uint64_t number, uint32_t rank, const Contribution& contribution) {
  Bucket& bucket = at(number);
  if (bucket.started == 0) {
    bucket.count = contribution.count;
    bucket.type = contribution.type;
    return;
  }
  if (bucket.count == contribution.count && bucket.type == contribution.type) return;
  const auto text = [](size_t count, ValueType type) {
    return std::to_string(count) + (type == ValueType::kF32 ? " f32" : " f64");
  };
  const std::string rank_text = std::to_string(rank), bucket_text = std::to_string(number);
  Fail(Status(ErrorCode::kConfigInvalid, "NN worker " + rank_text + " sums " +
                                             text(contribution.count, contribution.type) + " values in bucket " +
                                             bucket_text + ", the others " + text(bucket.count, bucket.type) +
                                             "; all NN workers need the same model")
           .With("rank", rank_text)
           .With("bucket", bucket_text));
}

// Claims a share of the bucket and adds it up without the lock. False when there is none to claim.
bool LocalGroup::SumShare(Lock& lock, uint64_t number) {
  if (!failure_.ok() || at(number).started != size_ || at(number).claimed == size_) return false;
  Bucket& bucket = at(number);
  const size_t line = kLineBytes / ValueBytes(bucket.type);
  const size_t share = (bucket.count / size_ + line) / line * line;  // whole lines, at least one more than count / size
  const size_t begin = std::min(bucket.count, bucket.claimed++ * share);
  const size_t end = std::min(bucket.count, begin + share);
  void* const* parts = bucket.parts.data();  // stays when the window grows meanwhile
  const ValueType type = bucket.type;
  ++summing_;
  lock.unlock();
  Reduce(type, parts, size_, begin, end);
  lock.lock();
  --summing_;
  if (++at(number).summed == size_ || (!failure_.ok() && summing_ == 0)) Announce();
  return true;
}

Status LocalGroup::Wait(uint32_t rank, uint64_t number) {
  const auto deadline = SteadyClock::now() + std::chrono::milliseconds(deadline_ms_);
  Lock lock(mutex_);
  PERSIA_CHECK(number < ranks_[rank].started);
  uint64_t& finished = ranks_[rank].finished;
  while (finished <= number) {
    PERSIA_RETURN_IF_ERROR(Finish(lock, finished, deadline));
    ++finished;
  }
  return Status::Ok();
}

Status LocalGroup::Finish(Lock& lock, uint64_t number, SteadyClock::time_point deadline) {
  for (;;) {
    // A sum that is complete counts, also after a failure: either every rank gets it or none.
    if (number < opened_ && at(number).summed == size_) return Status::Ok();
    if (!failure_.ok()) {
      WaitForSums(lock);
      return failure_;
    }
    if (SumShare(lock, number)) continue;
    FailOnMissing(number, false);
    if (!failure_.ok() || WaitForEvent(lock, deadline)) continue;
    FailOnMissing(number, true);
    // Nobody is missing: the last shares are being added, which ends by itself.
    if (failure_.ok()) WaitForEvent(lock, SteadyClock::now() + std::chrono::seconds(1));
  }
}

// Waits for an announcement; false at the deadline.
bool LocalGroup::WaitForEvent(Lock& lock, SteadyClock::time_point deadline) {
  const uint64_t seen = events_.load(std::memory_order_relaxed);
  const auto happened = [&] { return events_.load(std::memory_order_relaxed) != seen; };
  lock.unlock();
  for (const double end = NowSeconds() + kSpinSeconds; !happened() && NowSeconds() < end;) {
  }
  lock.lock();
  return happened() || changed_.wait_until(lock, deadline, happened);
}

// Fails the group when the bucket waits for ranks that have left or, when it is `late`, for any.
void LocalGroup::FailOnMissing(uint64_t number, bool late) {
  std::string missing;
  for (uint32_t rank = 0; rank < size_; ++rank) {
    if (ranks_[rank].started > number || !(late || ranks_[rank].left)) continue;
    missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  }
  if (missing.empty()) return;
  const std::string bucket = std::to_string(number);
  const std::string what = late ? " did not start bucket " + bucket + " within " + std::to_string(deadline_ms_) + " ms"
                                : " left before bucket " + bucket;
  Fail(Status(ErrorCode::kPeerLost, "NN worker " + missing + what +
                                            "; see its own log for the reason, then resume from the last checkpoint")
           .With("rank", missing)
           .With("bucket", bucket));
}

void LocalGroup::Fail(Status reason) {
  if (failure_.ok()) failure_ = std::move(reason);
  Announce();
}

// After a failure no share is claimed any more: returns when the last one is done.
void LocalGroup::WaitForSums(Lock& lock) {
  changed_.wait(lock, [&] { return summing_ == 0; });
}

void LocalGroup::Announce() {
  events_.fetch_add(1, std::memory_order_relaxed);  // published by the lock
  changed_.notify_all();
}

void LocalGroup::Leave(uint32_t rank) {
  Lock lock(mutex_);
  ranks_[rank].left = true;
  if (ranks_[rank].finished != ranks_[rank].started) {
    // Its memory goes with it.
    const std::string number = std::to_string(rank), bucket = std::to_string(ranks_[rank].finished);
    Fail(Status(ErrorCode::kPeerLost, "NN worker " + number + " left while bucket " + bucket + " was summed")
             .With("rank", number)
             .With("bucket", bucket));
    WaitForSums(lock);
  }
  Announce();
}

void LocalGroup::Abort(uint32_t rank, const Status& reason) {
  PERSIA_CHECK(!reason.ok());
  const std::string number = std::to_string(rank);
  Lock lock(mutex_);
  Fail(Status(reason.code(), "NN worker " + number + " stopped: " + reason.message()).With("rank", number));
  WaitForSums(lock);
}

Status LocalGroup::status() const {
  Lock lock(mutex_);
  return failure_;
}

class LocalCollective final : public Collective {
 public:
  LocalCollective(std::shared_ptr<LocalGroup> group, uint32_t rank) : group_(std::move(group)), rank_(rank) {}
  ~LocalCollective() override { group_->Leave(rank_); }

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return group_->size(); }
  uint64_t Start(std::span<float> values) override {
    return group_->Start(rank_, {values.data(), values.size(), ValueType::kF32});
  }
  Status Wait(uint64_t bucket) override { return group_->Wait(rank_, bucket); }
  Status Sum(std::span<double> values) override {
    return group_->Wait(rank_, group_->Start(rank_, {values.data(), values.size(), ValueType::kF64}));
  }
  void Abort(const Status& reason) override { group_->Abort(rank_, reason); }
  Status status() const override { return group_->status(); }

 private:
  const std::shared_ptr<LocalGroup> group_;
  const uint32_t rank_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> MakeLocalCollectives(uint32_t ranks, const CollectiveOptions& options) {
  PERSIA_CHECK(ranks >= 1);
  const auto group = std::make_shared<LocalGroup>(ranks, options);
  std::vector<std::unique_ptr<Collective>> collectives;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    collectives.push_back(std::make_unique<LocalCollective>(group, rank));
  }
  return collectives;
}

}  // namespace persia
