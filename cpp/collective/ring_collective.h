// The collective of NN workers in several processes: a ring over a Transport.
//
//   rank 0 ──► rank 1 ──► … ──► rank n-1 ──► rank 0        each rank sends to the next one only
//
// A bucket is cut into blocks of at most n · kRingShareBytes, and each block into n shares. A block goes round by itself, so
// that one is added up while others are on their way:
//
//   reduce-scatter, steps 0 … n-2      rank r sends share r - s, and adds the share r - s - 1 that comes to its own
//   all-gather,     steps n-1 … 2n-3   share r + 1 is complete at rank r and goes round
//
// Share c is added up in the order of ranks c, c + 1, …, c - 1 (modulo n), at one rank after the other, and the sum is handed
// on as it is: all ranks get the same bits, whatever the timing. (For two ranks these are the bits of local_collective.h; for
// more the order of additions differs from its.)
//
// All of this happens on the transport's progress thread, while the ranks' own threads compute; give the ring a transport
// of its own. Start only hands over the bucket's memory, which is sent from and added to in place; complete shares come right
// into it.
//
// Failure goes round in the direction of data and behind it: a bucket that is complete on one rank becomes complete on all. A
// rank that waits past the deadline asks round who has not started the bucket; whoever has not is named.
//
// Bounds: a rank has at most kMostRingBuckets buckets and RingOptions::most_bytes of them under way, started and not waited
// for; one that starts more fails the ring with kUsage. So what a neighbour sends of buckets that are not started here,
// which is kept, has a bound as well: at most the shares of reduce-scatter, once each. One that sends anything else is no
// rank of ours and fails the ring with kProtocol.
//
// Thread-safety: as Collective says. Orders: one mutex guards what callers and progress thread share; the events counter is
// changed under it and spun on without (relaxed, the rest is looked at under the lock).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collective/collective.h"
#include "net/transport.h"

namespace persia {

constexpr size_t kRingShareBytes = 256 * 1024;
constexpr uint64_t kMostRingBuckets = 4096;

struct RingOptions {
  uint64_t deadline_ms = CollectiveOptions().deadline_ms;  // as there
  uint64_t most_bytes = 1u << 30;                          // of values under way; the same for all ranks
};

// A place in a ring that is to be: listens, so that its address can be told to the others.
class RingMember {
 public:
  virtual ~RingMember() = default;

  virtual const std::string& address() const = 0;

  // Joins the ring whose ranks listen at `addresses`, this one among them, and waits until both neighbours are there.
  // kDeadline: they did not come within join_ms (one with another secret never does). Once.
  virtual Result<std::unique_ptr<Collective>> Join(uint32_t rank, const std::vector<std::string>& addresses, uint64_t join_ms,
                                                   const RingOptions& options) = 0;
};

// `secret` is the same for all members, and nobody else's. The transport outlives the collective by its shared pointer.
Result<std::unique_ptr<RingMember>> MakeRingMember(std::shared_ptr<Transport> transport, const std::string& address,
                                                   const std::string& secret);

}  // namespace persia
