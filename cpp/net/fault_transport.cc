#include "net/fault_transport.h"

#include <utility>

#include "base/rng.h"

namespace persia {

FaultTransport::FaultTransport(std::unique_ptr<Transport> inner, const FaultOptions& options)
    : ForwardingTransport(std::move(inner)), options_(options) {}

FaultCounts FaultTransport::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

void FaultTransport::Heal() {
  std::lock_guard lock(mutex_);
  healed_ = true;
}

// Called under the lock.
FaultTransport::Fate FaultTransport::Draw() {
  Rng rng(RandomKey(options_.seed, counts_.sent++));
  Fate fate;
  if (healed_) return fate;
  fate.drop = rng.Uniform() < options_.drop;
  fate.duplicate = rng.Uniform() < options_.duplicate;
  if (rng.Uniform() < options_.delay) fate.delay_us = 1 + rng.Next() % options_.most_delay_us;
  const bool cut = rng.Uniform() < options_.cut && counts_.cut < options_.most_cuts;
  fate.cut_before = cut && rng.Uniform() < 0.5;
  fate.cut_after = cut && !fate.cut_before;
  counts_.dropped += fate.drop;
  counts_.duplicated += fate.duplicate;
  counts_.delayed += fate.delay_us > 0;
  counts_.cut += cut;
  return fate;
}

Status FaultTransport::Send(PeerId peer, const MessageHeader& header, Payload payload) {
  Fate fate;
  SteadyClock::time_point at;
  bool late = false;
  {
    std::lock_guard lock(mutex_);
    fate = Draw();
    const auto now = SteadyClock::now();
    auto held = held_until_.find(peer);
    at = now + std::chrono::microseconds(fate.delay_us);
    if (held != held_until_.end() && held->second < now) {
      held_until_.erase(held);
      held = held_until_.end();
    }
    if (held != held_until_.end()) at = std::max(at, held->second);
    late = fate.delay_us > 0 || held != held_until_.end();
    if (late) held_until_[peer] = at;
  }
  if (fate.cut_before) inner_->Disconnect(peer);
  if (fate.drop || fate.cut_before) return Status::Ok();
  const auto send = [this, peer, header, fate](Payload what) {
    if (fate.duplicate) static_cast<void>(inner_->Send(peer, header, what).ok());
    Status sent = inner_->Send(peer, header, std::move(what));
    if (fate.cut_after) inner_->Disconnect(peer);
    return sent;
  };
  if (!late) return send(std::move(payload));
  // A timer of the progress thread: equal times keep their order.
  inner_->PostAt(at, [send, payload = std::move(payload)] { static_cast<void>(send(payload).ok()); });
  return Status::Ok();
}

}  // namespace persia
