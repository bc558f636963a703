// Batcher: cuts a stream of chunks into batches of equal size.
//
//   chunks (2048 rows, sometimes fewer)   |----|----|--|----|
//   batches (batch_size rows)             |---|---|---|---|--|   the last one, from Finish, may be short
//
// A row is taken whole or not at all. With negative sampling most negatives are left out: which ones follows from a key
// and the row's number alone, so that reruns and resumed runs leave out the same. Batches own their buffers and live as
// long as anybody holds them.
//
// Thread-safety: externally synchronised; any thread may call, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch/batch.h"
#include "batch/chunk_decoder.h"

namespace persia {

// Keeps all rows whose label number `label` is 0.5 or more, and a share `keep` of the others.
struct NegativeSampling {
  uint32_t label = 0;
  double keep = 1.0;
  uint64_t key = 0;  // of the random draws: another key keeps others
};

// Every row is in the test data with this probability, by its number.
struct ShareSplit {
  double test_share = 0;
  uint64_t key = 0;
};

// The rows that are taken come in another order, drawn anew for every `window_rows` of them.
struct WindowShuffle {
  uint32_t window_rows = 0;  // above 1
  uint64_t key = 0;
};

struct BatcherOptions {
  DecoderOptions columns;
  std::optional<ShareSplit> share;  // rows count from 0, bad ones included
  bool wants_test = false;          // which side of `share` or of `columns.split` is taken
  uint32_t batch_size = 0;       // > 0
  std::optional<NegativeSampling> sampling;
  std::optional<WindowShuffle> shuffle;
  uint64_t skip_rows = 0;        // the first rows that would be taken are left out: a resumed run has trained on them
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

  // The batches of the rows left over; the last one may be shorter.
  std::vector<std::shared_ptr<const Batch>> Finish();

  // Of the dense columns' values before transforms, missing ones left out, over all good rows so far, those that were
  // left out too. Counts are 0 without collect_moments.
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  struct Storage;

  using Batches = std::vector<std::shared_ptr<const Batch>>;

  bool IsWanted(uint32_t row) const;
  void Take(uint32_t first, uint32_t last, Batches* full);
  void TakeSampled(const NegativeSampling& sampling, uint32_t first, uint32_t last, Batches* full);
  void Fill(uint32_t first, uint32_t last, Batches* full);
  void Append(uint32_t first, uint32_t last, Storage* to) const;
  void EmitWindow(Batches* full);
  void AddMoments(uint32_t first, uint32_t last);
  std::shared_ptr<const Batch> Emit();

  const BatcherOptions options_;
  ChunkDecoder decoder_;
  std::shared_ptr<Storage> open_;  // the batch being filled; null between batches
  std::shared_ptr<Storage> window_;  // with shuffling: the rows that are shuffled next
  uint64_t windows_ = 0;             // before it
  uint64_t rows_to_skip_;
  uint64_t rows_ = 0;              // before the chunk that is being taken
  uint64_t good_rows_ = 0;         // before the run of rows that is being taken
  std::vector<Moments> moments_;
  bool stopped_ = false;
};

}  // namespace persia
