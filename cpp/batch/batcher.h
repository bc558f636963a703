// Batcher: cuts a stream of chunks into batches of equal size.
//
//   chunks (2048 rows, sometimes fewer)   |----|----|--|----|
//   batches (batch_size rows)             |---|---|---|---|--|   the last one, from Finish, may be short
//
// A row is taken whole or not at all. Batches own their buffers and live as long as anybody holds them.
//
// Thread-safety: externally synchronised; any thread may call, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "batch/batch.h"
#include "batch/chunk_decoder.h"

namespace persia {

struct BatcherOptions {
  DecoderOptions columns;
  uint32_t batch_size = 0;       // > 0
  uint64_t skip_rows = 0;        // the first good rows are left out: a resumed run has trained on them
  bool stop_at_bad_row = false;  // take nothing from the first bad row on
  uint32_t most_reports = 5;     // bad rows described per push, at least 1
  bool collect_moments = false;  // for the statistics of Transform::kStandardize
};

// Running mean and sum of squared deviations of one dense column over the rows taken (Welford 1962).
struct Moments {
  uint64_t count = 0;
  double mean = 0;
  double m2 = 0;

  void Add(double x) {
    ++count;
    const double delta = x - mean;
    mean += delta / static_cast<double>(count);
    m2 += delta * (x - mean);
  }
};

class Batcher {
 public:
  explicit Batcher(BatcherOptions options);

  struct Output {
    std::vector<std::shared_ptr<const Batch>> batches;  // the ones that became full
    uint32_t bad_count = 0;
    std::vector<BadRow> bad;  // the first ones, in order
  };

  // Takes the chunk's good rows. With stop_at_bad_row, a chunk with a bad row must be the last one.
  Output Push(const ChunkView& chunk);

  // The rows left over as a last, shorter batch; null when there are none.
  std::shared_ptr<const Batch> Finish();

  // Of the dense columns' values before transforms, missing ones left out, over all good rows so far, those of
  // skip_rows too. Counts are 0 without collect_moments.
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  struct Storage;

  void Take(uint32_t first, uint32_t last, std::vector<std::shared_ptr<const Batch>>* full);
  void Append(uint32_t first, uint32_t last);
  void AddMoments(uint32_t first, uint32_t last);
  std::shared_ptr<const Batch> Emit();

  const BatcherOptions options_;
  ChunkDecoder decoder_;
  std::shared_ptr<Storage> open_;  // the batch being filled; null between batches
  uint64_t rows_to_skip_;
  std::vector<Moments> moments_;
  bool stopped_ = false;
};

}  // namespace persia
