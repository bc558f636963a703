#include "collective/ring_collective.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "base/copy.h"
#include "base/cpu.h"
#include "base/spin.h"
#include "collective/ring_message.h"
#include "net/rpc_session.h"

namespace persia {
namespace {

constexpr std::chrono::microseconds kSpin{50};
constexpr std::chrono::milliseconds kGrace{1'000};     // for an answer that goes round, or a reason on its way
constexpr std::chrono::milliseconds kConnectAgain{20};
constexpr size_t kLineBytes = 64;

const char* const kSeeLog = "; see its own log for the reason, then resume from the last checkpoint";

template <typename T>
struct AddRun {
  static PERSIA_ALWAYS_INLINE void Run(const std::byte* partial, std::byte* own, size_t count) {
    const T* __restrict in = reinterpret_cast<const T*>(partial);
    T* __restrict out = reinterpret_cast<T*>(own);
    for (size_t i = 0; i < count; ++i) out[i] = in[i] + out[i];
  }
};

template <typename Body>
void RunAdd(const std::byte* partial, std::byte* own, size_t count) {
  RunBestSimd<Body>(partial, own, count);
}

// The bucket's values as bytes, and how they are cut.
struct Layout {
  uint32_t ranks = 1;
  bool f64 = false;
  size_t count = 0;

  size_t value_bytes() const { return f64 ? sizeof(double) : sizeof(float); }
  size_t block_values() const { return ranks * kRingShareBytes / value_bytes(); }
  uint32_t blocks() const { return static_cast<uint32_t>(std::max<size_t>(1, (count + block_values() - 1) / block_values())); }
  // Of all blocks the share is the same rule: whole cache lines, the last ones shorter or empty.
  std::pair<size_t, size_t> Share(uint32_t block, uint32_t share) const {
    const size_t begin = block * block_values(), size = std::min(count - begin, block_values());
    const size_t line = kLineBytes / value_bytes();
    const size_t most = ((size + ranks - 1) / ranks + line - 1) / line * line;
    const size_t from = std::min(size, share * most), to = std::min(size, from + most);
    return {begin + from, to - from};
  }
};

class RingCore final : public std::enable_shared_from_this<RingCore> {
 public:
  RingCore(Transport* transport, std::string secret) : transport_(transport), secret_(std::move(secret)) {}

  Result<std::string> Listen(const std::string& address);
  Status Join(uint32_t rank, const std::vector<std::string>& addresses, uint64_t join_ms, const RingOptions& options);
  void Leave();

  uint32_t rank() const { return rank_; }
  uint32_t ranks() const { return ranks_; }
  uint64_t Start(void* values, size_t count, bool f64);
  Status Wait(uint64_t bucket);
  void Abort(const Status& reason);
  Status status() const {
    std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  // A neighbour's connection: forwards what comes to the core. (The transport holds this one, and it the core.)
  class Neighbour final : public PeerHandler {
   public:
    Neighbour(std::shared_ptr<RingCore> core, bool next) : core_(std::move(core)), next_(next) {}
    Buffer Place(PeerId peer, const MessageHeader& header) override { return core_->Place(peer, next_, header); }
    void OnMessage(PeerId peer, const MessageHeader& header, Buffer payload) override {
      core_->OnMessage(peer, next_, header, std::move(payload));
    }
    void OnLost(PeerId peer, const Status& reason) override { core_->OnLost(peer, next_, reason); }

   private:
    const std::shared_ptr<RingCore> core_;
    const bool next_;
  };

  enum class Progress : uint8_t { kUnderWay, kSummed, kComplete };  // complete: summed, and its memory is not in use

  // A bucket from its start until it is waited for.
  struct Started {
    Progress progress;
    uint64_t bytes;
  };
  struct Early {
    MessageHeader header;
    Buffer payload;
  };
  // A bucket that is under way: the progress thread's.
  struct Bucket {
    Layout layout;
    std::byte* values = nullptr;
    uint32_t blocks_left = 0;
    std::shared_ptr<const void> lent;  // parts that are being sent hold it too; when the last lets go, it is complete
  };

  bool reducing(const RingStep& step) const { return step.step < ranks_ - 1; }
  uint32_t last_step() const { return 2 * ranks_ - 3; }
  // The share that comes to this rank in a step.
  uint32_t ShareIn(const RingStep& step) const {
    const uint32_t back = reducing(step) ? step.step + 1 : step.step - (ranks_ - 1);
    return (rank_ + 2 * ranks_ - back) % ranks_;
  }
  uint32_t next_rank() const { return (rank_ + 1) % ranks_; }
  uint32_t previous_rank() const { return (rank_ + ranks_ - 1) % ranks_; }
  Status LostRank(uint32_t rank, const std::string& what) const;

  // On the progress thread.
  void ConnectNext();
  Buffer Place(PeerId peer, bool next, const MessageHeader& header);
  void OnMessage(PeerId peer, bool next, const MessageHeader& header, Buffer payload);
  void OnLost(PeerId peer, bool next, const Status& reason);
  void OnJoin(PeerId peer, Bytes payload);
  void Begin(uint64_t number, Bucket bucket);
  void OnData(const MessageHeader& header, Buffer payload);
  void KeepEarly(const MessageHeader& header, Buffer payload);
  bool MayComeEarly(const RingStep& step, size_t bytes) const;
  std::span<std::byte> ShareOf(const RingStep& step, const Bucket& bucket) const;
  void TakeShare(const RingStep& step, Bucket* bucket, Buffer payload);
  void SendShare(const RingStep& step, const Bucket& bucket, uint32_t share);
  void SendNext(RingMessage message, uint64_t bucket, Buffer payload);
  void OnLeft(const RingLeft& left);
  void OnAsk(uint64_t bucket, RingAsk ask);
  void Ask(uint64_t bucket);
  void FailIfMissing();

  void Returned(uint64_t number);
  void Fail(const Status& reason);
  void Announce() {
    events_.fetch_add(1, std::memory_order_relaxed);
    changed_.notify_all();
  }
  bool WaitForEvent(std::unique_lock<std::mutex>& lock, SteadyClock::time_point until);

  // Its owners are RingMember and RingCollective: the last owner of this may be a task on the transport's own thread.
  Transport* const transport_;
  const std::string secret_;
  // Written by Join before anything is sent. Atomic because a peer may come and be lost before that, whose rank is then only
  // named; nothing else goes by them until the join, which the mutex orders.
  std::atomic<uint32_t> rank_{0}, ranks_{1};
  std::string next_address_;
  RingOptions options_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::atomic<uint64_t> events_{0};
  bool joining_ = false;
  bool next_joined_ = false, previous_joined_ = false;
  bool gone_ = false;  // left: nothing is connected again
  PeerId next_ = 0, previous_ = 0;
  uint64_t started_ = 0;    // buckets 0 … started_ - 1
  uint64_t finished_ = 0;   // of these, waited for
  std::deque<Started> under_way_;  // buckets from finished_ on
  uint64_t bytes_under_way_ = 0;
  uint64_t lent_ = 0;              // buckets whose memory is in use here
  Status failure_;
  std::map<uint32_t, uint64_t> left_;  // ranks that left, and the buckets that they had finished

  // The progress thread's.
  std::map<uint64_t, Bucket> buckets_;
  uint64_t begun_ = 0;  // buckets 0 … begun_ - 1
  std::map<uint64_t, std::vector<Early>> early_;  // of buckets from begun_ on
  uint64_t early_bytes_ = 0;
};

Status RingCore::LostRank(uint32_t rank, const std::string& what) const {
  return Status(ErrorCode::kPeerLost, "NN worker " + std::to_string(rank) + what + kSeeLog).With("rank", std::to_string(rank));
}

// ------------------------------------------------------------------------------------------------ joining and leaving

Result<std::string> RingCore::Listen(const std::string& address) {
  return transport_->Listen(address, [weak = weak_from_this()](PeerId, const std::string&) -> std::shared_ptr<PeerHandler> {
    const auto self = weak.lock();
    return self == nullptr ? nullptr : std::make_shared<Neighbour>(self, false);
  });
}

Status RingCore::Join(uint32_t rank, const std::vector<std::string>& addresses, uint64_t join_ms,
                      const RingOptions& options) {
  if (rank >= addresses.size() || addresses.size() > kMostRingRanks) {
    return Status(ErrorCode::kUsage, "a ring has 1 to " + std::to_string(kMostRingRanks) + " ranks, and this is one of them");
  }
  std::unique_lock lock(mutex_);
  rank_ = rank;
  ranks_ = static_cast<uint32_t>(addresses.size());
  options_ = options;
  if (ranks_ == 1) return Status::Ok();
  next_address_ = addresses[next_rank()];
  joining_ = true;
  transport_->Post([self = shared_from_this()] { self->ConnectNext(); });
  const auto joined = [&] { return (next_joined_ && previous_joined_) || !failure_.ok(); };
  if (changed_.wait_for(lock, std::chrono::milliseconds(join_ms), joined)) return failure_;
  const uint32_t missing = next_joined_ ? previous_rank() : next_rank();
  return Status(ErrorCode::kDeadline, "NN worker " + std::to_string(missing) + " did not join the ring within " +
                                          std::to_string(join_ms) + " ms")
      .With("rank", std::to_string(missing));
}

void RingCore::ConnectNext() {
  std::lock_guard lock(mutex_);
  if (gone_ || !failure_.ok()) return;
  const auto peer = transport_->Connect(next_address_, std::make_shared<Neighbour>(shared_from_this(), true));
  if (!peer.ok()) {
    failure_ = peer.status();
    return Announce();
  }
  next_ = peer.value();
  MessageHeader header;
  header.kind = MessageKind::kChunk;
  header.type = static_cast<uint16_t>(RingMessage::kJoin);
  static_cast<void>(transport_->Send(next_, header, Payload(EncodeJoin({rank_, ranks_, secret_}))).ok());  // else OnLost
}

void RingCore::OnJoin(PeerId peer, Bytes payload) {
  const Result<RingJoin> join = DecodeJoin(payload);
  {
    std::lock_guard lock(mutex_);
    // Who comes before this rank knows its own number tries again.
    const bool good = joining_ && !gone_ && join.ok() && SameSecret(join.value().secret, secret_) &&
                      join.value().ranks == ranks_ && join.value().rank == previous_rank();
    if (good) {
      transport_->Admit(peer);
      previous_ = peer;
      previous_joined_ = true;
      MessageHeader header;
      header.kind = MessageKind::kChunk;
      header.type = static_cast<uint16_t>(RingMessage::kJoined);
      static_cast<void>(transport_->Send(peer, header, {}).ok());  // else OnLost comes
      return Announce();
    }
  }
  transport_->Disconnect(peer);
}

void RingCore::Leave() {
  PeerId next, previous;
  bool unfinished;
  {
    std::lock_guard lock(mutex_);
    unfinished = finished_ != started_ && failure_.ok();
  }
  const std::string number = std::to_string(rank_), bucket = std::to_string(finished_);
  if (unfinished) {
    Fail(Status(ErrorCode::kPeerLost, "NN worker " + number + " left while bucket " + bucket + " was summed")
             .With("rank", number)
             .With("bucket", bucket));
  }
  {
    std::lock_guard lock(mutex_);
    gone_ = true;
    next = next_;
    previous = previous_;
  }
  if (next != 0) {
    SendNext(RingMessage::kLeft, 0, EncodeLeft({rank_, finished_}));
    transport_->Disconnect(next);
  }
  if (previous != 0) transport_->Disconnect(previous);
  {
    // Bounded by what a transport takes to let a disconnected peer go.
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return lent_ == 0; });
  }
  WaitForCallbacks(*transport_);
}

// ------------------------------------------------------------------------------------------------ callers

uint64_t RingCore::Start(void* values, size_t count, bool f64) {
  std::unique_lock lock(mutex_);
  const uint64_t number = started_++;
  PERSIA_CHECK(count <= ~uint32_t{0});
  Bucket bucket;
  bucket.layout = {ranks_, f64, count};
  const uint64_t bytes = count * bucket.layout.value_bytes();
  under_way_.push_back({ranks_ == 1 ? Progress::kComplete : Progress::kUnderWay, bytes});
  bytes_under_way_ += bytes;
  if (ranks_ == 1 || !failure_.ok()) return number;
  if (under_way_.size() > kMostRingBuckets || bytes_under_way_ > options_.most_bytes) {
    lock.unlock();
    Abort(Status(ErrorCode::kUsage, "more than " + std::to_string(kMostRingBuckets) + " buckets or " +
                                        std::to_string(options_.most_bytes) + " bytes of them were under way at once"));
    return number;
  }
  ++lent_;
  bucket.values = static_cast<std::byte*>(values);
  bucket.blocks_left = bucket.layout.blocks();
  // When nothing holds it any more, neither the sums nor a message on its way, the memory is the caller's again.
  bucket.lent = std::shared_ptr<const void>(nullptr, [self = shared_from_this(), number](const void*) { self->Returned(number); });
  lock.unlock();
  transport_->Post([self = shared_from_this(), number, bucket = std::move(bucket)] { self->Begin(number, bucket); });
  return number;
}

void RingCore::Returned(uint64_t number) {
  std::lock_guard lock(mutex_);
  --lent_;
  Progress& progress = under_way_[number - finished_].progress;
  if (progress == Progress::kSummed) progress = Progress::kComplete;
  Announce();
}

Status RingCore::Wait(uint64_t bucket) {
  auto deadline = SteadyClock::now() + std::chrono::milliseconds(options_.deadline_ms);
  bool asked = false;
  std::unique_lock lock(mutex_);
  PERSIA_CHECK(bucket < started_);
  while (finished_ <= bucket) {
    if (under_way_.front().progress == Progress::kComplete) {
      bytes_under_way_ -= under_way_.front().bytes;
      under_way_.pop_front();
      ++finished_;
      continue;
    }
    if (!failure_.ok()) {
      changed_.wait(lock, [&] { return lent_ == 0; });  // then nobody touches the buckets any more
      if (under_way_.front().progress == Progress::kComplete) continue;
      return failure_;
    }
    if (WaitForEvent(lock, deadline)) continue;
    const uint64_t late = finished_;
    deadline = SteadyClock::now() + kGrace;
    lock.unlock();
    if (std::exchange(asked, true)) {
      Fail(LostRank(previous_rank(), " did not send its part of bucket " + std::to_string(late) + " within " +
                                         std::to_string(options_.deadline_ms) + " ms"));
    } else {
      transport_->Post([self = shared_from_this(), late] { self->Ask(late); });
    }
    lock.lock();
  }
  return Status::Ok();
}

bool RingCore::WaitForEvent(std::unique_lock<std::mutex>& lock, SteadyClock::time_point until) {
  const uint64_t seen = events_.load(std::memory_order_relaxed);
  const auto happened = [&] { return events_.load(std::memory_order_relaxed) != seen; };
  lock.unlock();
  for (Spin spin(kSpin); !happened() && spin.Again();) {
  }
  lock.lock();
  return happened() || changed_.wait_until(lock, until, happened);
}

void RingCore::Abort(const Status& reason) {
  PERSIA_CHECK(!reason.ok());
  const std::string number = std::to_string(rank_);
  Fail(Status(reason.code(), "NN worker " + number + " stopped: " + reason.message()).With("rank", number));
}

// ------------------------------------------------------------------------------------------------ sums

void RingCore::Begin(uint64_t number, Bucket bucket) {
  if (!status().ok()) return;  // `bucket` goes, and its memory with it
  Bucket& begun = buckets_[number] = std::move(bucket);
  for (uint32_t block = 0; block < begun.layout.blocks(); ++block) {
    SendShare({number, block, 0, begun.layout.f64, static_cast<uint32_t>(begun.layout.count)}, begun, rank_);
  }
  FailIfMissing();
  begun_ = number + 1;
  const auto early = early_.extract(number);
  if (early.empty()) return;
  for (Early& message : early.mapped()) {
    early_bytes_ -= message.payload.size();
    OnData(message.header, std::move(message.payload));
  }
}

void RingCore::SendShare(const RingStep& step, const Bucket& bucket, uint32_t share) {
  const auto [begin, count] = bucket.layout.Share(step.block, share);
  const size_t bytes = bucket.layout.value_bytes();
  Payload payload;
  payload.Add({bucket.values + begin * bytes, count * bytes}, bucket.lent);
  static_cast<void>(transport_->Send(next_, step.ToHeader(), std::move(payload)).ok());  // else OnLost comes
}

// A share that is complete goes where it belongs at once; one that is to be added has to be whole before.
Buffer RingCore::Place(PeerId peer, bool next, const MessageHeader& header) {
  const auto any = [&] { return Buffer(header.payload_bytes); };
  if (next || header.kind != MessageKind::kChunk || RingMessage(header.type) != RingMessage::kData) return any();
  {
    std::lock_guard lock(mutex_);
    if (peer != previous_ || !failure_.ok()) return any();
  }
  const RingStep step = RingStep::FromHeader(header);
  const auto found = buckets_.find(step.bucket);
  if (found == buckets_.end()) return any();
  const Bucket& bucket = found->second;
  const bool right = step.count == bucket.layout.count && step.f64 == bucket.layout.f64 &&
                     step.block < bucket.layout.blocks() && step.step <= last_step() && !reducing(step);
  if (!right) return any();
  const std::span<std::byte> own = ShareOf(step, bucket);
  return own.size() == header.payload_bytes ? Buffer::Over(own, bucket.lent) : any();
}

// The memory of the share that comes in a step.
std::span<std::byte> RingCore::ShareOf(const RingStep& step, const Bucket& bucket) const {
  const auto [begin, count] = bucket.layout.Share(step.block, ShareIn(step));
  const size_t bytes = bucket.layout.value_bytes();
  return {bucket.values + begin * bytes, count * bytes};
}

void RingCore::OnData(const MessageHeader& header, Buffer payload) {
  const RingStep step = RingStep::FromHeader(header);
  if (!status().ok()) return;
  const auto found = buckets_.find(step.bucket);
  if (found == buckets_.end()) return KeepEarly(header, std::move(payload));
  Bucket& bucket = found->second;
  const Layout& layout = bucket.layout;
  if (step.count != layout.count || step.f64 != layout.f64) {
    const auto text = [](size_t count, bool f64) { return std::to_string(count) + (f64 ? " f64" : " f32"); };
    const std::string number = std::to_string(step.bucket);
    return Fail(Status(ErrorCode::kConfigInvalid, "NN worker " + std::to_string(rank_) + " sums " +
                                                      text(layout.count, layout.f64) + " values in bucket " + number +
                                                      ", others " + text(step.count, step.f64) +
                                                      "; all NN workers need the same model")
                    .With("rank", std::to_string(rank_))
                    .With("bucket", number));
  }
  if (step.block >= layout.blocks() || step.step > last_step()) {
    return Fail(Status(ErrorCode::kProtocol, "NN worker " + std::to_string(previous_rank()) + " sent a step that does not exist"));
  }
  TakeShare(step, &bucket, std::move(payload));
  if (bucket.blocks_left > 0) return;
  {
    std::lock_guard lock(mutex_);
    under_way_[step.bucket - finished_].progress = Progress::kSummed;
  }
  buckets_.erase(found);
}

// Keeps what comes of a bucket until that begins here.
void RingCore::KeepEarly(const MessageHeader& header, Buffer payload) {
  const RingStep step = RingStep::FromHeader(header);
  if (!MayComeEarly(step, payload.size())) {
    return Fail(Status(ErrorCode::kProtocol, "NN worker " + std::to_string(previous_rank()) +
                                                 " sent what cannot be a part of bucket " + std::to_string(step.bucket)));
  }
  early_bytes_ += payload.size();
  early_[step.bucket].push_back({header, std::move(payload)});
}

// A neighbour gets as far without this rank as shares that this one has no part in: those of reduce-scatter. Of all of
// its buckets these are fewer bytes than it may have under way.
bool RingCore::MayComeEarly(const RingStep& step, size_t bytes) const {
  const Layout layout{ranks_, step.f64, step.count};
  if (step.bucket - begun_ >= kMostRingBuckets || step.block >= layout.blocks() || !reducing(step)) return false;
  const size_t share_bytes = layout.Share(step.block, ShareIn(step)).second * layout.value_bytes();
  if (bytes != share_bytes || early_bytes_ + bytes > options_.most_bytes) return false;
  const auto kept = early_.find(step.bucket);
  return kept == early_.end() || kept->second.size() < size_t{layout.blocks()} * (ranks_ - 1);
}

// Adds a share that is on its way to be complete, or takes one that is; then hands it on.
void RingCore::TakeShare(const RingStep& step, Bucket* bucket, Buffer payload) {
  const std::span<std::byte> own = ShareOf(step, *bucket);
  if (payload.size() != own.size()) {
    return Fail(Status(ErrorCode::kProtocol, "NN worker " + std::to_string(previous_rank()) + " sent a share of a wrong size"));
  }
  const size_t count = own.size() / bucket->layout.value_bytes();
  if (!reducing(step)) {
    if (payload.data() != own.data()) CopyBytes(own.data(), payload.data(), payload.size());
  } else if (bucket->layout.f64) {
    RunAdd<AddRun<double>>(payload.data(), own.data(), count);
  } else {
    RunAdd<AddRun<float>>(payload.data(), own.data(), count);
  }
  RingStep onward = step;
  if (++onward.step <= last_step()) return SendShare(onward, *bucket, ShareIn(step));
  --bucket->blocks_left;
}

// ------------------------------------------------------------------------------------------------ failures

void RingCore::SendNext(RingMessage message, uint64_t bucket, Buffer payload) {
  MessageHeader header;
  header.kind = MessageKind::kChunk;
  header.type = static_cast<uint16_t>(message);
  header.request_id = bucket;
  PeerId next;
  {
    std::lock_guard lock(mutex_);
    next = next_;
  }
  if (next != 0) static_cast<void>(transport_->Send(next, header, Payload(std::move(payload))).ok());  // else OnLost comes
}

void RingCore::OnMessage(PeerId peer, bool next, const MessageHeader& header, Buffer payload) {
  const auto message = RingMessage(header.type);
  if (header.kind != MessageKind::kChunk) return transport_->Disconnect(peer);
  if (next) {
    if (message != RingMessage::kJoined) return transport_->Disconnect(peer);
    std::lock_guard lock(mutex_);
    next_joined_ = true;
    return Announce();
  }
  if (message == RingMessage::kJoin) return OnJoin(peer, payload.bytes());
  {
    std::lock_guard lock(mutex_);
    if (peer != previous_) return;
  }
  if (message == RingMessage::kData) return OnData(header, std::move(payload));
  if (message == RingMessage::kFailed) return Fail(DecodeStatus(payload.bytes()));
  if (message == RingMessage::kLeft) {
    const Result<RingLeft> left = DecodeLeft(payload.bytes());
    if (left.ok()) OnLeft(left.value());
  } else if (message == RingMessage::kAsk) {
    Result<RingAsk> ask = DecodeAsk(payload.bytes());
    if (ask.ok()) OnAsk(header.request_id, std::move(ask.value()));
  }
}

void RingCore::OnLost(PeerId peer, bool next, const Status& reason) {
  const uint32_t other = next ? next_rank() : previous_rank();
  {
    std::lock_guard lock(mutex_);
    if (peer != (next ? next_ : previous_)) return;
    (next ? next_ : previous_) = 0;
    if (gone_ || !failure_.ok()) return Announce();
    if (next && !next_joined_) {
      if (reason.code() == ErrorCode::kRefused) {
        failure_ = reason;
        return Announce();
      }
      transport_->PostAt(SteadyClock::now() + kConnectAgain, [self = shared_from_this()] { self->ConnectNext(); });
      return;
    }
    if (left_.contains(other)) return;
  }
  const Status lost = LostRank(other, " was lost: " + reason.message());
  if (!next) return Fail(lost);  // nothing comes from there any more
  // The reason for it, or that it left, may be on its way round.
  transport_->PostAt(SteadyClock::now() + kGrace, [self = shared_from_this(), other, lost] {
    {
      std::lock_guard lock(self->mutex_);
      if (self->gone_ || self->left_.contains(other)) return;
    }
    self->Fail(lost);
  });
}

void RingCore::OnLeft(const RingLeft& left) {
  {
    std::lock_guard lock(mutex_);
    if (left.rank == rank_ || !left_.try_emplace(left.rank, left.finished).second) return;
  }
  SendNext(RingMessage::kLeft, 0, EncodeLeft(left));
  FailIfMissing();
}

// Fails when a bucket that is under way needs a rank that has left.
void RingCore::FailIfMissing() {
  std::string missing;
  uint64_t bucket = 0;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [rank, finished] : left_) {
      if (started_ <= finished || under_way_.empty()) continue;
      bucket = std::max(finished, finished_);
      if (bucket >= started_ || under_way_[bucket - finished_].progress != Progress::kUnderWay) continue;
      missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  if (missing.empty()) return;
  Fail(Status(ErrorCode::kPeerLost, "NN worker " + missing + " left before bucket " + std::to_string(bucket) + kSeeLog)
           .With("rank", missing)
           .With("bucket", std::to_string(bucket)));
}

// Asks round which ranks have not started a bucket.
void RingCore::Ask(uint64_t bucket) { SendNext(RingMessage::kAsk, bucket, EncodeAsk({rank_, {}})); }

void RingCore::OnAsk(uint64_t bucket, RingAsk ask) {
  if (ask.asker != rank_) {
    bool started;
    {
      std::lock_guard lock(mutex_);
      started = bucket < started_;
    }
    if (!started && ask.missing.size() < kMostRingRanks) ask.missing.push_back(rank_);
    return SendNext(RingMessage::kAsk, bucket, EncodeAsk(ask));
  }
  if (ask.missing.empty()) return;  // all are at it: the sums come, or Wait ends after its grace
  std::sort(ask.missing.begin(), ask.missing.end());
  std::string missing;
  for (const uint32_t rank : ask.missing) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  Fail(Status(ErrorCode::kPeerLost, "NN worker " + missing + " did not start bucket " + std::to_string(bucket) + " within " +
                                        std::to_string(options_.deadline_ms) + " ms" + kSeeLog)
           .With("rank", missing)
           .With("bucket", std::to_string(bucket)));
}

// The first failure counts. It goes on behind all data that this rank has sent; then the connections end, and with them
// all use of the buckets' memory.
void RingCore::Fail(const Status& reason) {
  PeerId next, previous;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = reason;
    next = next_;
    previous = previous_;
    Announce();
  }
  SendNext(RingMessage::kFailed, 0, EncodeStatus(reason));
  if (next != 0) transport_->Disconnect(next);
  if (previous != 0) transport_->Disconnect(previous);
  transport_->Post([self = shared_from_this()] {
    self->buckets_.clear();
    self->early_.clear();
    self->early_bytes_ = 0;
  });
}

// ------------------------------------------------------------------------------------------------ the interface

class RingCollective final : public Collective {
 public:
  RingCollective(std::shared_ptr<Transport> transport, std::shared_ptr<RingCore> core)
      : transport_(std::move(transport)), core_(std::move(core)) {}
  ~RingCollective() override { core_->Leave(); }

  uint32_t rank() const override { return core_->rank(); }
  uint32_t size() const override { return core_->ranks(); }
  uint64_t Start(std::span<float> values) override { return core_->Start(values.data(), values.size(), false); }
  Status Wait(uint64_t bucket) override { return core_->Wait(bucket); }
  Status Sum(std::span<double> values) override { return core_->Wait(core_->Start(values.data(), values.size(), true)); }
  void Abort(const Status& reason) override { core_->Abort(reason); }
  Status status() const override { return core_->status(); }

 private:
  const std::shared_ptr<Transport> transport_;
  const std::shared_ptr<RingCore> core_;
};

class Member final : public RingMember {
 public:
  Member(std::shared_ptr<Transport> transport, std::shared_ptr<RingCore> core, std::string address)
      : transport_(std::move(transport)), core_(std::move(core)), address_(std::move(address)) {}
  ~Member() override {
    if (core_ != nullptr) core_->Leave();
  }

  const std::string& address() const override { return address_; }
  Result<std::unique_ptr<Collective>> Join(uint32_t rank, const std::vector<std::string>& addresses, uint64_t join_ms,
                                           const RingOptions& options) override {
    PERSIA_CHECK(core_ != nullptr);
    PERSIA_RETURN_IF_ERROR(core_->Join(rank, addresses, join_ms, options));
    return std::unique_ptr<Collective>(std::make_unique<RingCollective>(transport_, std::move(core_)));
  }

 private:
  const std::shared_ptr<Transport> transport_;
  std::shared_ptr<RingCore> core_;
  const std::string address_;
};

}  // namespace

Result<std::unique_ptr<RingMember>> MakeRingMember(std::shared_ptr<Transport> transport, const std::string& address,
                                                   const std::string& secret) {
  auto core = std::make_shared<RingCore>(transport.get(), secret);
  const Result<std::string> taken = core->Listen(address);
  if (!taken.ok()) return taken.status();
  return std::unique_ptr<RingMember>(std::make_unique<Member>(std::move(transport), std::move(core), taken.value()));
}

}  // namespace persia
