#include "cuda/collective/nccl_group.h"

#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "cuda/base/cuda_status.h"

namespace persia {
namespace {

using Clock = std::chrono::steady_clock;

// A step takes a fraction of a millisecond or more: polled densely for so long, then every kRest.
constexpr auto kDense = std::chrono::milliseconds(5);
constexpr auto kRest = std::chrono::microseconds(50);

Status ToStatus(const NcclLibrary& nccl, ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return Status::Ok();
  const bool peer = result == ncclRemoteError || result == ncclSystemError;
  return Status(peer ? ErrorCode::kPeerLost : ErrorCode::kDevice,
                std::string("cannot ") + what + ": NCCL says " + nccl.ncclGetErrorString(result));
}

}  // namespace

Result<CudaGroupId> MakeNcclId() {
  static_assert(sizeof(CudaGroupId) == sizeof(ncclUniqueId));
  const auto nccl = LoadNccl();
  if (!nccl.ok()) return nccl.status();
  ncclUniqueId id;
  PERSIA_RETURN_IF_ERROR(ToStatus(*nccl.value(), nccl.value()->ncclGetUniqueId(&id), "found a group of GPUs"));
  CudaGroupId bytes;
  std::memcpy(bytes.data(), &id, sizeof(id));
  return bytes;
}

Result<std::unique_ptr<NcclGroup>> NcclGroup::Join(const CudaGroup& group) {
  PERSIA_CHECK(group.rank < group.size);
  const auto nccl = LoadNccl();
  if (!nccl.ok()) return nccl.status();
  std::unique_ptr<NcclGroup> joined(new NcclGroup(*nccl.value(), group));
  ncclUniqueId id;
  std::memcpy(&id, group.id.data(), sizeof(id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result =
      joined->nccl_.ncclCommInitRankConfig(&joined->comm_, static_cast<int>(group.size), id,
                                           static_cast<int>(group.rank), &config);
  PERSIA_RETURN_IF_ERROR(ToStatus(joined->nccl_, result, "join a group of GPUs"));
  return joined;
}

// What a graph still holds of the communicator is never launched again.
NcclGroup::~NcclGroup() { Abort(Status(ErrorCode::kAborted, "this rank has left the group")); }

Status NcclGroup::AwaitPeers() {
  if (joined_) return Status::Ok();
  PERSIA_RETURN_IF_ERROR(Settle("join a group of GPUs"));
  joined_ = true;
  return Status::Ok();
}

Status NcclGroup::Sum(float* values, size_t count, cudaStream_t stream) {
  return Sum(values, values, count, ncclFloat, stream);
}

Status NcclGroup::Sum(const double* values, double* sums, size_t count, cudaStream_t stream) {
  return Sum(values, sums, count, ncclDouble, stream);
}

Status NcclGroup::Sum(const void* values, void* sums, size_t count, ncclDataType_t type, cudaStream_t stream) {
  {
    std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return failure_;
    PERSIA_RETURN_IF_ERROR(ToStatus(
        nccl_, nccl_.ncclAllReduce(values, sums, count, type, ncclSum, comm_, stream), "sum over GPUs"));
  }
  return Settle("sum over GPUs");
}

// A call of NCCL may go on after it has returned; until it is done no other may be made.
Status NcclGroup::Settle(const char* what) {
  return PollUntil(
      [this] {
        std::lock_guard lock(mutex_);
        ncclResult_t state = ncclSuccess;
        return comm_ == nullptr || (nccl_.ncclCommGetAsyncError(comm_, &state) == ncclSuccess && state == ncclSuccess);
      },
      what);
}

Status NcclGroup::Await(cudaEvent_t event) {
  cudaError_t error = cudaSuccess;
  PERSIA_RETURN_IF_ERROR(PollUntil(
      [&] {
        error = cudaEventQuery(event);
        return error != cudaErrorNotReady;
      },
      "sum over GPUs"));
  return CudaStatus(error, "train a step");
}

// Polls for `done` and for errors of the group until the deadline.
template <typename Done>
Status NcclGroup::PollUntil(Done done, const char* what) {
  const auto begin = Clock::now();
  while (!done()) {
    PERSIA_RETURN_IF_ERROR(Poll());
    const auto waited = Clock::now() - begin;
    if (waited > std::chrono::milliseconds(group_.deadline_ms)) {
      const Status late(ErrorCode::kPeerLost, std::string("cannot ") + what + ": a rank did not come within " +
                                                  std::to_string(group_.deadline_ms) + " ms");
      Abort(late);
      return late;
    }
    if (waited > kDense) std::this_thread::sleep_for(kRest);
  }
  std::lock_guard lock(mutex_);
  return failure_;
}

Status NcclGroup::Poll() {
  Status lost;
  {
    std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return failure_;
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = nccl_.ncclCommGetAsyncError(comm_, &state);
    lost = ToStatus(nccl_, asked == ncclSuccess ? state : asked, "sum over GPUs");
  }
  if (!lost.ok()) Abort(lost);
  return lost;
}

void NcclGroup::Abort(const Status& reason) {
  std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return;
  failure_ = reason;
  nccl_.ncclCommAbort(std::exchange(comm_, nullptr));
}

}  // namespace persia
