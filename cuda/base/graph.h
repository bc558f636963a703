// A CUDA graph: work captured from a stream once, started as one.
//
// Thread-safety: externally synchronised.
#pragma once

#include <utility>

#include "cuda/base/cuda_status.h"

namespace persia {

class GraphExec {
 public:
  GraphExec() = default;
  GraphExec(GraphExec&& other) noexcept { std::swap(exec_, other.exec_); }
  GraphExec& operator=(GraphExec&& other) noexcept {
    std::swap(exec_, other.exec_);
    return *this;
  }
  ~GraphExec() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }

  // Takes what `enqueue` puts on the stream, and on others that it forks from there and joins again, instead of running
  // it. Once.
  template <typename Enqueue>
  Status Capture(cudaStream_t stream, Enqueue enqueue) {
    PERSIA_RETURN_IF_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture a graph");
    const Status enqueued = enqueue();
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    const bool complete = enqueued.ok() && ended == cudaSuccess;
    const cudaError_t instantiated = complete ? cudaGraphInstantiate(&exec_, graph, 0) : ended;
    if (graph != nullptr) cudaGraphDestroy(graph);
    return enqueued.ok() ? CudaStatus(instantiated, "make a graph") : enqueued;
  }

  Status Launch(cudaStream_t stream) const { return CudaStatus(cudaGraphLaunch(exec_, stream), "start a graph"); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace persia
