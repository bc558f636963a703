// NcclGroup: one rank's part in sums over several GPUs by NCCL.
//
// Sums are enqueued on a stream, and may be captured in a graph. Every rank enqueues the same ones, of the same sizes, in
// the same order; all get the same bits.
//
// Failure: a rank that leaves, aborts, or does not come until the deadline fails the group for good. NCCL tells of lost
// peers asynchronously: whoever waits for a sum does so in Await, which looks for that, and gives the kernels up
// (ncclCommAbort) so that nothing hangs.
//
// Thread-safety: one thread at a time, except Abort, which any thread may call.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>

#include "cuda/base/nccl_library.h"
#include "dense/cuda_backend.h"

namespace persia {

class NcclGroup {
 public:
  // Begins to join from the device that is current; returns at once. kDevice: no NCCL.
  static Result<std::unique_ptr<NcclGroup>> Join(const CudaGroup& group);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  // Returns when all ranks have joined. kPeerLost: not until the deadline.
  Status AwaitPeers();

  // values (count) = their sums over all ranks.
  Status Sum(float* values, size_t count, cudaStream_t stream);
  // sums (count) = those of values (count).
  Status Sum(const double* values, double* sums, size_t count, cudaStream_t stream);

  // Returns when the event, behind sums of all ranks, has happened. kPeerLost: a peer is gone, or the deadline is over.
  Status Await(cudaEvent_t event);

  // Fails the group for `reason`.
  void Abort(const Status& reason);

 private:
  NcclGroup(const NcclLibrary& nccl, const CudaGroup& group) : nccl_(nccl), group_(group) {}
  Status Sum(const void* values, void* sums, size_t count, ncclDataType_t type, cudaStream_t stream);
  Status Settle(const char* what);
  template <typename Done>
  Status PollUntil(Done done, const char* what);
  Status Poll();

  const NcclLibrary& nccl_;
  const CudaGroup group_;
  bool joined_ = false;
  std::mutex mutex_;  // guards what follows
  ncclComm_t comm_ = nullptr;
  Status failure_;
};

// Names a new group.
Result<CudaGroupId> MakeNcclId();

}  // namespace persia
