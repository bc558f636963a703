// A transport that breaks another one on purpose, for tests: of the messages sent through it, some are lost, some come
// twice, some come late (with all later ones of their peer), and at some the connection is cut, before or after it. What
// happens to the n-th message follows from the seed.
//
// A real transport loses and doubles nothing while a connection lasts; what stands above shall hold all the same.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "net/forwarding_transport.h"

namespace persia {

// Probabilities, of each message.
struct FaultOptions {
  uint64_t seed = 1;
  double drop = 0;
  double duplicate = 0;
  double delay = 0;
  uint64_t most_delay_us = 1000;
  double cut = 0;
  uint64_t most_cuts = ~uint64_t{0};
};

struct FaultCounts {
  uint64_t sent = 0, dropped = 0, duplicated = 0, delayed = 0, cut = 0;
};

class FaultTransport final : public ForwardingTransport {
 public:
  FaultTransport(std::unique_ptr<Transport> inner, const FaultOptions& options);
  ~FaultTransport() override { Close(); }

  FaultCounts counts() const;
  // From now on nothing is broken any more.
  void Heal();

  Status Send(PeerId peer, const MessageHeader& header, Payload payload) override;
  std::string Describe(PeerId peer) const override { return inner_->Describe(peer) + " with faults"; }

 private:
  struct Fate {
    bool drop = false, duplicate = false, cut_before = false, cut_after = false;
    uint64_t delay_us = 0;
  };

  Fate Draw();

  const FaultOptions options_;
  mutable std::mutex mutex_;  // guards what follows
  FaultCounts counts_;
  bool healed_ = false;
  std::map<PeerId, SteadyClock::time_point> held_until_;  // of peers whose messages are late
};

}  // namespace persia
