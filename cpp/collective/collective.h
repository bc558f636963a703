// Collective: sums over all NN workers (ranks), behind one interface for threads of one process (local_collective.h), a
// ring over a network and NCCL.
//
// A gradient is summed in buckets while backward still computes the rest of it:
//
//   for each bucket, as it becomes final:  last = collective.Start(bucket)    returns at once
//   when backward is done:                 collective.Wait(last)              every bucket holds the sum
//
// Every rank starts the same buckets, of the same sizes, in the same order. All ranks get the same bits: the order in
// which ranks are added depends on nothing but their numbers.
//
// Failure: a rank that leaves, aborts, or stays away until the deadline fails the whole group, for good: every call
// that waits returns the reason, on every rank, and nothing hangs. What a started bucket holds is then undefined.
//
// Thread-safety: one thread at a time a rank, except Abort and status, which any thread may call.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"

namespace persia {

struct CollectiveOptions {
  // The longest that a rank waits for another one. Far above the time of a step: peers may evaluate or write a
  // checkpoint.
  uint64_t deadline_ms = 60'000;
};

class Collective {
 public:
  virtual ~Collective() = default;  // leaves: ranks that still wait for this one get an error at once

  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // Starts replacing `values` by their sum over all ranks and returns the bucket's number: 0, 1, 2, …. The memory
  // belongs to the collective until Wait. An error shows there.
  virtual uint64_t Start(std::span<float> values) = 0;

  // Returns when the buckets up to this number, which was started, are summed. kPeerLost: a rank left, or did not
  // start its bucket within the deadline. kConfigInvalid: sizes of a bucket differ between ranks. Else what a rank
  // aborted for. After an error nobody touches the buckets any more.
  virtual Status Wait(uint64_t bucket) = 0;

  // Start and Wait in one.
  Status AllReduce(std::span<float> values) { return Wait(Start(values)); }

  // The same for a few numbers such as the loss and the rows of a step; counts are exact up to 2^53. A bucket as well:
  // the order of Start and Sum is the same on every rank.
  virtual Status Sum(std::span<double> values) = 0;

  // Fails the group for `reason`, which all ranks then get: for a rank whose step failed. Buckets are free afterwards.
  virtual void Abort(const Status& reason) = 0;

  // The group's failure, without waiting.
  virtual Status status() const = 0;
};

}  // namespace persia
