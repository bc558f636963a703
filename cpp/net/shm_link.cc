#include "net/shm_link.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "base/copy.h"
#include "net/rpc_session.h"

namespace persia {

struct ShmLink::Ring {
  alignas(64) std::atomic<uint64_t> written;  // by the producer
  alignas(64) std::atomic<uint64_t> read;     // by the consumer
  alignas(64) std::atomic<uint32_t> reader_sleeps;
  std::atomic<uint32_t> writer_sleeps;  // until there is room
  alignas(64) std::byte bytes[kShmRingBytes];
};

namespace {

constexpr size_t kPartBytes = 64 * 1024;

static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

Status Failed(const std::string& what) { return Status(ErrorCode::kTransport, "shm: " + what + ": " + std::strerror(errno)); }

bool GoodName(const std::string& name) {
  return name.size() == 24 && name.starts_with("/persia-") &&
         name.find_first_not_of("0123456789abcdef", 8) == std::string::npos;
}

}  // namespace

ShmLink::ShmLink(std::string name, void* memory, bool created)
    : name_(std::move(name)), memory_(memory), out_(static_cast<Ring*>(memory) + (created ? 0 : 1)),
      in_(static_cast<Ring*>(memory) + (created ? 1 : 0)), linked_(created) {}

ShmLink::~ShmLink() {
  Unlink();
  munmap(memory_, 2 * sizeof(Ring));
}

void ShmLink::Unlink() {
  if (std::exchange(linked_, false)) shm_unlink(name_.c_str());
}

Result<std::unique_ptr<ShmLink>> ShmLink::Create() {
  char name[32];
  std::snprintf(name, sizeof(name), "/persia-%016llx", static_cast<unsigned long long>(RandomNumber()));
  const int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (file < 0) return Failed("cannot make a file in /dev/shm");
  // Takes the memory now: later there may be none, and using it would end the process.
  const int error = posix_fallocate(file, 0, 2 * sizeof(Ring));
  void* const memory = error != 0 ? MAP_FAILED : mmap(nullptr, 2 * sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (error != 0) errno = error;
  if (memory == MAP_FAILED) {
    const Status failed = Failed("/dev/shm has no room for a connection");
    close(file);
    shm_unlink(name);
    return failed;
  }
  close(file);
  return std::unique_ptr<ShmLink>(new ShmLink(name, memory, true));
}

Result<std::unique_ptr<ShmLink>> ShmLink::Open(const std::string& name) {
  if (!GoodName(name)) return Status(ErrorCode::kProtocol, "shm: a name that is none of ours");
  const int file = shm_open(name.c_str(), O_RDWR, 0);
  if (file < 0) return Failed("cannot open the other side's file");
  struct stat info{};
  const bool whole = fstat(file, &info) == 0 && info.st_size == static_cast<off_t>(2 * sizeof(Ring));
  void* const memory = !whole ? MAP_FAILED : mmap(nullptr, 2 * sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return Failed("cannot map the other side's file");
  return std::unique_ptr<ShmLink>(new ShmLink(name, memory, false));
}

// Bytes on their way.
size_t ShmLink::Count(uint64_t written, uint64_t read) const {
  if (written - read <= kShmRingBytes) return written - read;
  sound_ = false;
  return 0;
}

// Up to which number bytes may be written.
uint64_t ShmLink::EndOfRoom(uint64_t written) const {
  const uint64_t read = out_->read.load(std::memory_order_acquire);
  Count(written, read);
  return sound_ ? read + kShmRingBytes : written;
}

size_t ShmLink::Write(std::span<const Bytes> pieces) {
  const uint64_t begin = out_->written.load(std::memory_order_relaxed);  // only this side writes it
  uint64_t at = begin, told = begin, end = EndOfRoom(begin);
  const auto tell = [&] {
    if (told != at) out_->written.store(told = at, std::memory_order_seq_cst);
  };
  for (Bytes piece : pieces) {
    while (!piece.empty()) {
      if (at == end && (end = EndOfRoom(at)) == at) {
        tell();
        return at - begin;
      }
      const size_t count = std::min({piece.size(), size_t{end - at}, size_t{told + kPartBytes - at}});
      CopyIn(at, piece.first(count));
      at += count;
      piece = piece.subspan(count);
      // In parts, so that the other side takes one while the next is copied.
      if (at - told == kPartBytes) tell();
    }
  }
  tell();
  return at - begin;
}

void ShmLink::CopyIn(uint64_t number, Bytes bytes) {
  const size_t at = number % kShmRingBytes, first = std::min(bytes.size(), kShmRingBytes - at);
  CopyBytes(out_->bytes + at, bytes.data(), first);
  CopyBytes(out_->bytes, bytes.data() + first, bytes.size() - first);
}

size_t ShmLink::Read(std::span<std::byte> out) {
  const uint64_t read = in_->read.load(std::memory_order_relaxed);  // only this side writes it
  const size_t count = std::min(Count(in_->written.load(std::memory_order_acquire), read), out.size());
  if (count == 0) return 0;
  const size_t at = read % kShmRingBytes, first = std::min(count, kShmRingBytes - at);
  CopyBytes(out.data(), in_->bytes + at, first);
  CopyBytes(out.data() + first, in_->bytes, count - first);
  in_->read.store(read + count, std::memory_order_seq_cst);
  return count;
}

Status ShmLink::status() const {
  return sound_ ? Status::Ok() : Status(ErrorCode::kProtocol, "the shared memory is damaged");
}

bool ShmLink::readable() const {
  return Count(in_->written.load(std::memory_order_seq_cst), in_->read.load(std::memory_order_relaxed)) > 0;
}

bool ShmLink::MustWake() {
  bool wake = false;
  if (out_->reader_sleeps.load(std::memory_order_seq_cst) != 0) wake = out_->reader_sleeps.exchange(0) != 0;
  if (in_->writer_sleeps.load(std::memory_order_seq_cst) != 0) wake = in_->writer_sleeps.exchange(0) != 0 || wake;
  return wake;
}

bool ShmLink::Sleep(bool for_room) {
  in_->reader_sleeps.store(1, std::memory_order_seq_cst);
  if (for_room) out_->writer_sleeps.store(1, std::memory_order_seq_cst);
  const uint64_t written = out_->written.load(std::memory_order_relaxed);
  const bool room = for_room && Count(written, out_->read.load(std::memory_order_seq_cst)) < kShmRingBytes;
  return !readable() && !room && sound_;
}

}  // namespace persia
