// Snapshot files: what a trainer knows, in little-endian files of checksummed blocks.
//
//   file   := header block* end
//   header := magic "PERSIAS1" | kind u32 | version u32 | xxh64 of the 16 bytes before, u64
//   block  := bytes u32 (1 … 16 Mi) | index u32 | payload | xxh64 of (bytes, index, payload), u64
//   end    := 0 u32 | number of blocks u32 | xxh64 of the 8 bytes before, u64
//
// Every byte is under a checksum and blocks are numbered, so a flipped bit, a lost, doubled or swapped block, a cut
// file and one of another kind are all found. Payloads are streams of values that may cross blocks. SnapshotFile adds a
// checksum over the whole file for the manifest, so that files can't be swapped between checkpoints.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/hash.h"
#include "base/status.h"

namespace persia {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "snapshot files are little-endian");

enum class SnapshotKind : uint32_t { kPipeline = 1, kDense = 2, kEmbedding = 3 };

// A written file as the manifest lists it.
struct SnapshotFile {
  std::string name;       // inside the checkpoint's directory
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH64 of the whole file
};

class SnapshotWriter {
 public:
  SnapshotWriter(const std::string& directory, std::string name, SnapshotKind kind);
  ~SnapshotWriter();
  SnapshotWriter(const SnapshotWriter&) = delete;
  SnapshotWriter& operator=(const SnapshotWriter&) = delete;

  // Errors are kept and reported by Finish.
  void Bytes(const void* data, size_t bytes);
  template <typename T>
  void Value(T value) {
    static_assert(std::is_arithmetic_v<T>);
    Bytes(&value, sizeof(T));
  }
  void Floats(std::span<const float> values) { Bytes(values.data(), values.size_bytes()); }
  void Text(const std::string& text);  // length u32, bytes

  // Writes the end, syncs and closes. kIo names the file and the system's reason.
  Result<SnapshotFile> Finish();

 private:
  void FlushBlock();
  void WriteAll(const void* data, size_t bytes);

  SnapshotFile file_;
  std::string path_;
  int fd_ = -1;
  Status status_;
  Xxh64Stream whole_;
  std::vector<uint8_t> block_;
  uint32_t blocks_ = 0;
};

class SnapshotReader {
 public:
  // Opens and checks the header.
  static Result<SnapshotReader> Open(const std::string& path, SnapshotKind kind);
  // Reads a file to its end without keeping anything: structure, checksums, and that it is the file of the manifest.
  static Status Verify(const std::string& directory, const SnapshotFile& file);

  SnapshotReader(SnapshotReader&& other) noexcept;
  SnapshotReader& operator=(SnapshotReader&&) = delete;
  ~SnapshotReader();

  // kCheckpointDamaged names the file and what is wrong.
  Status Bytes(void* data, size_t bytes);
  template <typename T>
  Status Value(T* value) {
    static_assert(std::is_arithmetic_v<T>);
    return Bytes(value, sizeof(T));
  }
  Status Floats(std::span<float> values) { return Bytes(values.data(), values.size_bytes()); }
  Status Text(std::string* text, uint32_t most_bytes);
  // Whether the payload is used up: what later releases append is not there in older files.
  Result<bool> AtEnd();
  // That the payload is used up and the end is right.
  Status ExpectEnd();

  // Size of the file: no count in it can stand for more than this.
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  SnapshotReader(std::string path, int fd);
  Status ReadHeader(SnapshotKind kind);
  Status NextBlock();
  Status ReadAll(void* data, size_t bytes);
  Status Damaged(const std::string& what) const;

  std::string path_;
  int fd_ = -1;
  uint64_t file_bytes_ = 0;
  std::vector<uint8_t> block_;
  size_t used_ = 0;
  uint32_t blocks_ = 0;
  bool ended_ = false;
};

}  // namespace persia
