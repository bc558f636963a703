// ScanSessions: scans of a store that a peer reads piece by piece: each has a thread that goes over the rows and waits
// while two pieces are not yet taken.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/bounded_queue.h"
#include "net/buffer.h"
#include "store/parameter_store.h"

namespace persia {

class ScanSessions {
 public:
  static constexpr size_t kRowsOfPiece = 4096;

  // Both outlive this. At most so many scans at once: the oldest ends for a new one.
  ScanSessions(const ParameterStore& store, size_t most) : store_(store), most_(most) {}
  ~ScanSessions() { Close(); }

  // Starts a scan; its number.
  uint64_t Start(uint32_t row_class);
  // The next piece (EncodeWholeRows); one without signs is the last, and ends the scan. kUsage: no such scan.
  Result<Buffer> Next(uint64_t scan);
  void Close();

 private:
  struct Scan {
    BoundedQueue<Buffer> pieces{2};
    std::thread thread;

    ~Scan();
  };

  void Run(uint32_t row_class, Scan& scan) const;

  const ParameterStore& store_;
  const size_t most_;
  std::mutex mutex_;  // guards what follows
  uint64_t last_ = 0;
  std::map<uint64_t, std::shared_ptr<Scan>> scans_;
};

}  // namespace persia
