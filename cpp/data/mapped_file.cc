#include "data/mapped_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace persia {

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  const auto failed = [&](ErrorCode code, const char* what) {
    return Status(code, std::string(what) + " " + path + ": " + std::strerror(errno)).With("file", path);
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed(ErrorCode::kDataNotFound, "cannot open");
  struct stat found {};
  void* memory = nullptr;
  const bool known = fstat(fd, &found) == 0;
  const auto bytes = static_cast<size_t>(found.st_size);
  if (known && bytes > 0) memory = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (!known || memory == MAP_FAILED) return failed(ErrorCode::kIo, "cannot map");
  return std::shared_ptr<const MappedFile>(new MappedFile({static_cast<const uint8_t*>(memory), bytes}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace persia
