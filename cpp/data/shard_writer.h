// ShardWriter: writes prepared samples as one shard, an Arrow IPC file that other tools read too.
//
//   columns   ids      uint64, null: no id; or list<uint64>, for features that may have several
//             dense    float32 before any transform; a missing value is null, and NaN to those who look past that
//             labels   float32
//   blocks    record batches of kBlockRows rows, the last one shorter; buffers start at multiples of 64 bytes
//
// The same rows give the same bytes. A shard appears under its name only when it is complete and on disk.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "batch/chunk_decoder.h"
#include "data/flat_buffer.h"

namespace persia {

struct ShardColumns {
  struct Id {
    std::string name;
    bool is_list = false;
  };
  std::vector<Id> ids;
  std::vector<std::string> dense;
  std::vector<std::string> labels;
};

// What must be known of a shard to find every flipped bit in it.
struct ShardFile {
  uint64_t rows = 0;  // 0: there is no file
  uint64_t bytes = 0;
  uint64_t frame_checksum = 0;            // XXH64 of everything but the bodies of the blocks, in the order of the file
  std::vector<uint64_t> block_checksums;  // XXH64 of each body
};

class ShardWriter {
 public:
  static constexpr uint32_t kBlockRows = 65'536;

  // Nothing is touched before the first block is full, or Finish.
  ShardWriter(std::string path, ShardColumns columns);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  // Rows [first, last) of a decoded chunk. A row of an id column that is no list has at most one id.
  Status Append(const ChunkDecoder& rows, uint32_t first, uint32_t last);

  // Writes the rest and gives the file its name. Without rows there is no file.
  Result<ShardFile> Finish();

 private:
  struct IdBuffers {
    std::vector<uint64_t> ids;      // one a row, 0 where there is none; of lists all ids
    std::vector<int32_t> offsets;   // of lists: (rows + 1)
    std::vector<uint8_t> validity;  // of others: (rows) bits
    uint64_t null_count = 0;
  };
  struct NumberBuffers {
    std::vector<float> values;
    std::vector<uint8_t> validity;
    uint64_t null_count = 0;
  };
  struct Block {  // as the footer lists it
    int64_t offset;
    int32_t metadata_bytes;
    int64_t body_bytes;
  };

  void AppendIds(const ChunkDecoder::Ids& from, uint32_t first, uint32_t last, size_t column);
  void AppendNumbers(const ChunkDecoder& rows, uint32_t first, uint32_t last);
  void Clear();
  Status FlushBlock();
  std::vector<uint8_t> BlockMetadata(int64_t body_bytes) const;
  Status Begin();
  Status End();
  Status Close();
  Status WriteMessage(const std::vector<uint8_t>& metadata);
  Status WriteFrame(const void* data, size_t bytes);
  Status WriteBody(const void* data, size_t bytes, Xxh64Stream* checksum);
  Status Write(const void* data, size_t bytes);
  Status Failed(const char* what) const;
  void PutSchema(FlatWriter* out, FlatWriter::Place from) const;

  // Calls `use(data, bytes)` for every buffer of the block, in the order of the format.
  template <typename Use>
  void EachBuffer(Use use) const;

  const std::string path_;
  const ShardColumns columns_;
  int fd_ = -1;
  uint32_t block_rows_ = 0;
  std::vector<IdBuffers> ids_;
  std::vector<NumberBuffers> numbers_;  // dense, then labels
  std::vector<Block> blocks_;
  Xxh64Stream frame_;
  ShardFile file_;
};

}  // namespace persia
