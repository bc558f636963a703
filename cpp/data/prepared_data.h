// PreparedData: reads the shards of `persia data prepare`, mapped into memory, as batches of any size.
//
//   shards in order, or shuffled ─► blocks of rows ─► windows, rows of each shuffled ─► batches
//
// Nothing is parsed: dense columns are gathered into rows and transformed, ids of columns without gaps are views on the
// mapping, others are copied. Every row has a place in the order of a pass, a pure function of the key, so a batch is
// made without those before it.
//
// Shards are not trusted: their structure is checked when they are opened, and the checksum of a block before its first
// row is read.
//
// Thread-safety: Read may be called from several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/permutation.h"
#include "batch/batcher.h"
#include "data/arrow_file.h"
#include "data/indexed_source.h"
#include "data/shard_writer.h"

namespace persia {

// The order of shards is drawn anew, and the order of the rows in every `window_rows` of them.
struct ShuffleOptions {
  bool files = true;
  uint32_t window_rows = 0;  // 0, 1: rows keep their order
  uint64_t key = 0;          // of the pass
};

struct PreparedOptions {
  struct Shard {
    std::string path;
    ShardFile file;
  };
  std::vector<Shard> shards;
  ShardColumns columns;  // that the shards have

  // The columns of batches, by their places in `columns`.
  std::vector<uint32_t> ids;
  std::vector<uint32_t> dense;
  std::vector<DenseColumnOptions> transforms;  // of `dense`
  std::vector<uint32_t> labels;

  uint32_t batch_size = 0;
  std::optional<NegativeSampling> sampling;  // its label is a place in `labels`; rows count in the order of the shards
  std::optional<ShuffleOptions> shuffle;
};

class PreparedData : public IndexedSource {
 public:
  // kDataNotFound; kDataUnreadable for a shard that is damaged or has other columns.
  static Result<std::unique_ptr<PreparedData>> Open(PreparedOptions options);

  uint64_t rows() const override { return rows_; }
  uint64_t batches() const override { return (rows_ + options_.batch_size - 1) / options_.batch_size; }
  Result<std::shared_ptr<const Batch>> Read(uint64_t batch) const override;

 private:
  // A block at its place in the order of the pass.
  struct PlacedBlock {
    uint32_t shard = 0;
    uint32_t block = 0;
    uint64_t first_row = 0;
  };
  struct Shard {
    explicit Shard(ArrowFile opened) : file(std::move(opened)), verified(file.blocks().size()) {}
    ArrowFile file;
    std::vector<std::atomic<bool>> verified;  // by block; relaxed: whoever reads an old value verifies again
  };
  // Rows that lie together in one block.
  struct Run {
    const ArrowBlock* block;
    uint32_t first;
    uint32_t count;
  };
  using Shards = std::vector<std::unique_ptr<Shard>>;
  struct Storage;
  class StoragePool;

  explicit PreparedData(PreparedOptions options);

  Status OpenShard(const PreparedOptions::Shard& shard);
  Status CheckColumns(const ArrowFile& file, const std::string& path) const;
  void PlaceBlocks();
  void CountKept();
  bool IsKept(uint64_t row) const;
  float LabelOf(uint64_t row) const;
  const PlacedBlock& BlockOf(uint64_t row) const;
  Status Verify(uint32_t shard, uint32_t block) const;

  uint64_t RowAt(uint64_t place) const;
  Status Collect(uint64_t row, const PlacedBlock** last, std::vector<Run>* runs) const;
  Status CollectRuns(uint64_t batch, std::vector<Run>* runs) const;
  Status CollectKept(uint64_t first, uint64_t last, std::vector<Run>* runs) const;
  uint64_t MostIds(const std::vector<Run>& runs, uint32_t column) const;
  size_t MostBytes(const std::vector<Run>& runs, uint32_t rows) const;
  void FillIds(const std::vector<Run>& runs, uint32_t column, Storage* storage) const;
  void FillDense(const std::vector<Run>& runs, Storage* storage) const;
  void FillLabels(const std::vector<Run>& runs, Storage* storage) const;

  const PreparedOptions options_;
  std::shared_ptr<Shards> shards_ = std::make_shared<Shards>();
  std::shared_ptr<StoragePool> pool_;
  std::vector<PlacedBlock> blocks_;
  uint64_t all_rows_ = 0;
  uint64_t rows_ = 0;                // without those that sampling leaves out
  uint32_t window_rows_ = 0;         // rows that are shuffled, or counted, together
  std::vector<uint64_t> kept_before_;  // with sampling: (windows + 1) rows kept before each window
  std::vector<float> when_missing_;  // by dense column
};

}  // namespace persia
