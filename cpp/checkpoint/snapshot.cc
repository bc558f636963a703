#include "checkpoint/snapshot.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace persia {
namespace {

constexpr char kMagic[8] = {'P', 'E', 'R', 'S', 'I', 'A', 'S', '1'};
constexpr uint32_t kVersion = 1;
constexpr size_t kBlockBytes = size_t{1} << 20;
constexpr uint32_t kMostBlockBytes = 16u << 20;

struct BlockHead {
  uint32_t bytes;
  uint32_t index;
};
static_assert(sizeof(BlockHead) == 8);

struct FileHead {
  char magic[8];
  uint32_t kind;
  uint32_t version;
};
static_assert(sizeof(FileHead) == 16);

uint64_t BlockChecksum(const BlockHead& head, const uint8_t* payload) {
  Xxh64Stream stream;
  stream.Update(&head, sizeof(head));
  stream.Update(payload, head.bytes);
  return stream.Digest();
}

Status IoError(const std::string& what, const std::string& path) {
  return Status(ErrorCode::kIo, what + " " + path + ": " + std::strerror(errno)).With("file", path);
}

}  // namespace

SnapshotWriter::SnapshotWriter(const std::string& directory, std::string name, SnapshotKind kind)
    : path_(directory + "/" + name) {
  file_.name = std::move(name);
  block_.reserve(kBlockBytes);
  fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    status_ = IoError("cannot create", path_);
    return;
  }
  FileHead head{};
  std::memcpy(head.magic, kMagic, sizeof(kMagic));
  head.kind = static_cast<uint32_t>(kind);
  head.version = kVersion;
  const uint64_t checksum = Xxh64(&head, sizeof(head));
  WriteAll(&head, sizeof(head));
  WriteAll(&checksum, sizeof(checksum));
}

SnapshotWriter::~SnapshotWriter() {
  if (fd_ >= 0) close(fd_);
}

void SnapshotWriter::Bytes(const void* data, size_t bytes) {
  const auto* next = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const size_t part = std::min(bytes, kBlockBytes - block_.size());
    block_.insert(block_.end(), next, next + part);
    if (block_.size() == kBlockBytes) FlushBlock();
    next += part;
    bytes -= part;
  }
}

void SnapshotWriter::Text(const std::string& text) {
  Value(static_cast<uint32_t>(text.size()));
  Bytes(text.data(), text.size());
}

void SnapshotWriter::FlushBlock() {
  const BlockHead head{static_cast<uint32_t>(block_.size()), blocks_++};
  const uint64_t checksum = BlockChecksum(head, block_.data());
  WriteAll(&head, sizeof(head));
  WriteAll(block_.data(), block_.size());
  WriteAll(&checksum, sizeof(checksum));
  block_.clear();
}

Result<SnapshotFile> SnapshotWriter::Finish() {
  if (!block_.empty()) FlushBlock();
  const BlockHead end{0, blocks_};
  const uint64_t checksum = Xxh64(&end, sizeof(end));
  WriteAll(&end, sizeof(end));
  WriteAll(&checksum, sizeof(checksum));
  if (status_.ok() && fsync(fd_) != 0) status_ = IoError("cannot sync", path_);
  if (fd_ >= 0 && close(std::exchange(fd_, -1)) != 0 && status_.ok()) status_ = IoError("cannot close", path_);
  if (!status_.ok()) return status_;
  file_.checksum = whole_.Digest();
  return file_;
}

void SnapshotWriter::WriteAll(const void* data, size_t bytes) {
  if (!status_.ok()) return;
  whole_.Update(data, bytes);
  file_.bytes += bytes;
  const auto* next = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      status_ = IoError("cannot write", path_);
      return;
    }
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

SnapshotReader::SnapshotReader(std::string path, int fd) : path_(std::move(path)), fd_(fd) {
  struct stat info;
  if (fstat(fd_, &info) == 0) file_bytes_ = static_cast<uint64_t>(info.st_size);
}

SnapshotReader::SnapshotReader(SnapshotReader&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      file_bytes_(other.file_bytes_),
      block_(std::move(other.block_)),
      used_(other.used_),
      blocks_(other.blocks_),
      ended_(other.ended_) {}

SnapshotReader::~SnapshotReader() {
  if (fd_ >= 0) close(fd_);
}

Result<SnapshotReader> SnapshotReader::Open(const std::string& path, SnapshotKind kind) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {
    return Status(ErrorCode::kCheckpointDamaged, path + " is missing").With("file", path);
  }
  if (fd < 0) return IoError("cannot open", path);
  SnapshotReader reader(path, fd);
  PERSIA_RETURN_IF_ERROR(reader.ReadHeader(kind));
  return reader;
}

Status SnapshotReader::ReadHeader(SnapshotKind kind) {
  FileHead head;
  uint64_t checksum;
  PERSIA_RETURN_IF_ERROR(ReadAll(&head, sizeof(head)));
  PERSIA_RETURN_IF_ERROR(ReadAll(&checksum, sizeof(checksum)));
  if (std::memcmp(head.magic, kMagic, sizeof(kMagic)) != 0) return Damaged("it is no snapshot file");
  if (checksum != Xxh64(&head, sizeof(head))) return Damaged("the header's checksum is wrong");
  if (head.version != kVersion) {
    return Damaged("it has version " + std::to_string(head.version) + ", this release reads " +
                   std::to_string(kVersion));
  }
  if (head.kind != static_cast<uint32_t>(kind)) return Damaged("it holds another kind of data");
  return Status::Ok();
}

Status SnapshotReader::NextBlock() {
  if (ended_) return Damaged("it ends too early");
  BlockHead head;
  uint64_t checksum;
  PERSIA_RETURN_IF_ERROR(ReadAll(&head, sizeof(head)));
  if (head.bytes > kMostBlockBytes) return Damaged("block " + std::to_string(blocks_) + " has an impossible length");
  block_.resize(head.bytes);
  used_ = 0;
  PERSIA_RETURN_IF_ERROR(ReadAll(block_.data(), head.bytes));
  PERSIA_RETURN_IF_ERROR(ReadAll(&checksum, sizeof(checksum)));
  if (head.index != blocks_ || checksum != BlockChecksum(head, block_.data())) {
    return Damaged("the checksum of block " + std::to_string(blocks_) + " is wrong");
  }
  if (head.bytes == 0) {
    ended_ = true;
  } else {
    ++blocks_;
  }
  return Status::Ok();
}

Status SnapshotReader::Bytes(void* data, size_t bytes) {
  auto* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    if (used_ == block_.size()) {
      PERSIA_RETURN_IF_ERROR(NextBlock());
      continue;
    }
    const size_t part = std::min(bytes, block_.size() - used_);
    std::memcpy(next, block_.data() + used_, part);
    used_ += part;
    next += part;
    bytes -= part;
  }
  return Status::Ok();
}

Status SnapshotReader::Text(std::string* text, uint32_t most_bytes) {
  uint32_t bytes;
  PERSIA_RETURN_IF_ERROR(Value(&bytes));
  if (bytes > most_bytes) return Damaged("a name in it has an impossible length");
  text->resize(bytes);
  return Bytes(text->data(), bytes);
}

Result<bool> SnapshotReader::AtEnd() {
  if (used_ == block_.size() && !ended_) PERSIA_RETURN_IF_ERROR(NextBlock());
  return ended_;
}

Status SnapshotReader::ExpectEnd() {
  Result<bool> end = AtEnd();
  if (!end.ok()) return end.status();
  if (!*end) return Damaged("it holds more than expected");
  uint8_t extra;
  ssize_t got;
  do {
    got = read(fd_, &extra, 1);
  } while (got < 0 && errno == EINTR);
  return got == 0 ? Status::Ok() : Damaged("something follows its end");
}

Status SnapshotReader::ReadAll(void* data, size_t bytes) {
  auto* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = read(fd_, next, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("cannot read", path_);
    if (got == 0) return Damaged("it is cut short");
    next += got;
    bytes -= static_cast<size_t>(got);
  }
  return Status::Ok();
}

Status SnapshotReader::Damaged(const std::string& what) const {
  return Status(ErrorCode::kCheckpointDamaged, path_ + " is damaged: " + what).With("file", path_);
}

Status SnapshotReader::Verify(const std::string& directory, const SnapshotFile& file) {
  const std::string path = directory + "/" + file.name;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return Status(ErrorCode::kCheckpointDamaged, path + " cannot be opened: " + std::strerror(errno))
        .With("file", path);
  }
  SnapshotReader reader(path, fd);
  Xxh64Stream whole;
  std::vector<uint8_t> buffer(kBlockBytes);
  uint64_t total = 0;
  for (;;) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("cannot read", path);
    if (got == 0) break;
    whole.Update(buffer.data(), static_cast<size_t>(got));
    total += static_cast<uint64_t>(got);
  }
  if (total != file.bytes) {
    return reader.Damaged("it has " + std::to_string(total) + " bytes, " + std::to_string(file.bytes) +
                          " were written");
  }
  if (whole.Digest() != file.checksum) return reader.Damaged("its checksum is not the one that was written");
  return Status::Ok();
}

}  // namespace persia
