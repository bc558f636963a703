// PyTorch as a peer: bench/peers/embedding_cpu.py in a process of its own, which takes a sample when it is asked to and
// sleeps in between, so that its samples alternate with ours.
//
// Thread-safety: externally synchronised.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ids.h"
#include "sampling.h"

namespace persia::bench {

class TorchPeer {
 public:
  // Starts it with rows (rows, dim) and the ids of each stream's first thread, and waits until it is ready. When it
  // can't start, why_not() says why and Sample gives nothing.
  TorchPeer(const Settings& settings, uint32_t dim, uint64_t rows, std::span<const IdStreams> streams);
  ~TorchPeer();
  TorchPeer(const TorchPeer&) = delete;
  TorchPeer& operator=(const TorchPeer&) = delete;

  const std::string& why_not() const { return why_not_; }
  const std::string& version() const { return version_; }
  // Rows/s of kGatherRead (its forward pass alone) or kGatherApply (forward, backward, step).
  std::optional<double> Sample(Op op, IdDistribution ids, uint32_t threads, double seconds);

  // What it takes of memory: weights, Adagrad's sums, and the interpreter.
  static uint64_t Bytes(uint32_t dim, uint64_t rows) { return rows * dim * 8 + (uint64_t{1} << 29); }

 private:
  std::string WriteIds(const IdStreams& streams);  // the file's path
  void Start(const std::string& command);
  std::string ReadLine();  // empty at the end

  std::vector<std::string> id_files_;
  std::string why_not_, version_;
  pid_t process_ = -1;
  int to_ = -1, from_ = -1;
};

}  // namespace persia::bench
