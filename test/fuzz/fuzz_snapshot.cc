// Fuzz target of the snapshot format: whatever a file holds, SnapshotReader takes it whole or refuses it.
//
// An input is a file. Because every byte is under a checksum, plain mutations would all end at the first of them: the
// mutator repairs lengths, numbers and checksums of three inputs in four, so that the structure behind them is reached.
// For a file that is accepted, the same payload must come out in pieces of any size, and no flipped bit may stay
// unseen.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "checkpoint/snapshot.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t bytes, size_t most_bytes);

namespace persia {
namespace {

constexpr size_t kHeadBytes = 16, kBlockHeadBytes = 8, kChecksumBytes = 8;

// One file in memory that is filled anew for each input; readers open it by its path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)), name_(std::to_string(fd_)) { PERSIA_CHECK(fd_ >= 0); }

  void Fill(const std::vector<uint8_t>& data) {
    PERSIA_CHECK(ftruncate(fd_, 0) == 0);
    PERSIA_CHECK(pwrite(fd_, data.data(), data.size(), 0) == static_cast<ssize_t>(data.size()));
  }
  std::string path() const { return std::string(kFolder) + "/" + name_; }
  Status Verify(uint64_t bytes, uint64_t checksum) const {
    return SnapshotReader::Verify(kFolder, {name_, bytes, checksum});
  }

 private:
  static constexpr char kFolder[] = "/proc/self/fd";
  const int fd_;
  const std::string name_;
};

MemoryFile& File() {
  static MemoryFile file;
  return file;
}

// The payload, read byte by byte, of a file that is right to its end.
std::optional<std::vector<uint8_t>> ReadWhole(SnapshotKind kind) {
  auto counting = SnapshotReader::Open(File().path(), kind);
  if (!counting.ok()) return std::nullopt;
  std::vector<uint8_t> payload;
  for (uint8_t byte; counting->Bytes(&byte, 1).ok();) payload.push_back(byte);

  auto whole = SnapshotReader::Open(File().path(), kind);
  PERSIA_CHECK(whole.ok());
  std::vector<uint8_t> again(payload.size());
  PERSIA_CHECK(whole->Bytes(again.data(), again.size()).ok());
  PERSIA_CHECK(again == payload);
  if (!whole->ExpectEnd().ok()) return std::nullopt;
  return payload;
}

// Reads the way that trainer_snapshot.cc does, until the file ends or is refused.
void ReadTyped(SnapshotKind kind) {
  auto reader = SnapshotReader::Open(File().path(), kind);
  if (!reader.ok()) return;
  constexpr uint32_t kMostTextBytes = 256;
  std::string text;
  uint32_t count;
  std::vector<float> floats(3);
  while (reader->Text(&text, kMostTextBytes).ok() && reader->Value(&count).ok() && reader->Floats(floats).ok()) {
    PERSIA_CHECK(text.size() <= kMostTextBytes);
  }
}

void CheckInput(std::vector<uint8_t> data) {
  File().Fill(data);
  const uint64_t checksum = Xxh64(data.data(), data.size());
  const uint64_t wrong = checksum % 2;  // Verify is slow: one question an input
  PERSIA_CHECK(File().Verify(data.size(), checksum ^ wrong).ok() == (wrong == 0));

  for (SnapshotKind kind : {SnapshotKind::kPipeline, SnapshotKind::kDense, SnapshotKind::kEmbedding}) {
    ReadTyped(kind);
    if (!ReadWhole(kind)) continue;
    const size_t bit = checksum % (data.size() * 8);
    data[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    File().Fill(data);
    PERSIA_CHECK(!ReadWhole(kind));
    return;  // a file is of one kind
  }
}

void PutChecksum(uint8_t* data, size_t bytes) {
  const uint64_t checksum = Xxh64(data, bytes);
  std::memcpy(data + bytes, &checksum, sizeof(checksum));
}

// Makes lengths fit, numbers blocks and writes checksums as far as the data goes.
void Repair(uint8_t* data, size_t bytes) {
  if (bytes < kHeadBytes + kChecksumBytes) return;
  PutChecksum(data, kHeadBytes);
  size_t at = kHeadBytes + kChecksumBytes;
  for (uint32_t index = 0; bytes - at >= kBlockHeadBytes + kChecksumBytes; ++index) {
    const auto most = static_cast<uint32_t>(bytes - at - kBlockHeadBytes - kChecksumBytes);
    uint32_t length;
    std::memcpy(&length, data + at, sizeof(length));
    if (length > most) length = most;
    std::memcpy(data + at, &length, sizeof(length));
    std::memcpy(data + at + sizeof(length), &index, sizeof(index));
    PutChecksum(data + at, kBlockHeadBytes + length);
    at += kBlockHeadBytes + length + kChecksumBytes;
  }
}

}  // namespace
}  // namespace persia

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most_bytes, unsigned int seed) {
  const size_t mutated = LLVMFuzzerMutate(data, bytes, most_bytes);
  if (seed % 4 != 0) persia::Repair(data, mutated);
  return mutated;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  persia::CheckInput({data, data + bytes});
  return 0;
}
