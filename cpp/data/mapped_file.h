// MappedFile: a whole file in memory, read-only, paged in as it is touched.
//
// A file that another process cuts off while it is mapped ends this process (SIGBUS), as with every reader that maps.
//
// Thread-safety: immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace persia {

class MappedFile {
 public:
  // kDataNotFound when it cannot be opened, kIo when it cannot be mapped.
  static Result<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  const std::span<const uint8_t> bytes_;
};

}  // namespace persia
