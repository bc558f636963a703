// SynthData: synthetic click data, made row by row from (seed, row number) alone, so that no file is needed, any batch
// comes at once, and any number of threads give the same rows.
//
//   row ─► a uniform number for each field ─► rank by the field's law ─► id = a bijection of (field, rank)
//                                              └► effects of ranks, crosses of fields, dense values ─► logit ─► label
//
// A hidden teacher decides clicks: its logit has the mean and deviation that the data set is known for, so the AUC that
// no model can exceed is known (Ceiling). Ids exist only when they are drawn: 10^12 of them cost no memory.
//
// Thread-safety: immutable once made.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch/chunk.h"
#include "batch/chunk_decoder.h"
#include "data/indexed_source.h"
#include "data/synth_spec.h"

namespace persia {

// The values of a distribution by their cumulative share, in steps of 1/kSteps: a draw is one look-up.
class QuantileTable {
 public:
  // How many of the most frequent values have a share together.
  static QuantileTable OfRanks(const SynthField& field);
  // Of a number with these quantiles.
  static QuantileTable OfNumbers(const SynthDense& column);

  // The value at a share u in [0, 1).
  double At(double u) const {
    const double place = u * kSteps;
    const auto step = static_cast<uint32_t>(place);
    return values_[step] + (values_[step + 1] - values_[step]) * (place - step);
  }

 private:
  static constexpr uint32_t kSteps = 2048;

  std::array<double, kSteps + 1> values_{};
};

// One row. `rank` < 0: the field is missing.
struct SynthRow {
  std::vector<int64_t> ranks;                  // (fields)
  std::vector<std::vector<int64_t>> histories;  // (fields), ranks of those that are histories
  std::vector<double> dense;                   // (dense columns); NaN: missing
  bool click = false;
};

class SynthGenerator {
 public:
  SynthGenerator(SynthSpec spec, uint64_t seed);

  const SynthSpec& spec() const { return spec_; }

  // Fills `row`, whose vectors are kept from call to call, and returns the true probability of a click.
  double Make(uint64_t number, SynthRow* row) const;

  // The id of a value of a field. Fields that share their values share ids.
  uint64_t IdOf(size_t field, int64_t rank) const;

  // What the best possible model reaches, estimated on a sample of rows.
  struct Ceiling {
    double auc = 0;
    double logloss = 0;
  };
  Ceiling FindCeiling() const;

 private:
  struct Cross {
    size_t a, b;
  };

  double RawLogit(const SynthRow& row) const;
  double EffectOf(size_t field, int64_t rank) const;
  void Calibrate();

  const SynthSpec spec_;
  const uint64_t key_;
  std::vector<QuantileTable> laws_;          // (fields)
  std::vector<QuantileTable> dense_laws_;    // (dense columns)
  std::vector<Cross> crosses_;
  double raw_mean_ = 0;    // of RawLogit
  double raw_scale_ = 1;   // of RawLogit to the deviation that the spec asks for
  double bias_ = 0;        // so that the click rate is right
};

struct SynthOptions {
  uint64_t rows = 0;
  uint64_t first_row = 0;
  // The columns of batches, by their places in the spec.
  std::vector<uint32_t> ids;
  std::vector<uint32_t> dense;
  std::vector<DenseColumnOptions> transforms;  // of `dense`
  bool has_labels = true;
  uint32_t batch_size = 0;
  uint32_t shuffle_window = 0;  // rows that are shuffled with each other; 0: none are
  uint64_t shuffle_key = 0;
};

class SynthData : public IndexedSource {
 public:
  SynthData(std::shared_ptr<const SynthGenerator> generator, SynthOptions options);

  uint64_t rows() const override { return options_.rows; }
  uint64_t batches() const override { return (options_.rows + options_.batch_size - 1) / options_.batch_size; }
  Result<std::shared_ptr<const Batch>> Read(uint64_t batch) const override;

 private:
  struct Storage;

  uint64_t RowAt(uint64_t place) const;

  const std::shared_ptr<const SynthGenerator> generator_;
  const SynthOptions options_;
  std::vector<float> when_missing_;  // by dense column
};

// Rows of a generator as a chunk of all its columns, for the writer of prepared data.
class SynthChunk {
 public:
  SynthChunk(const SynthGenerator& generator, uint64_t first_row, uint32_t rows);
  const ChunkView& view() const { return view_; }

 private:
  struct Ids {
    std::vector<uint64_t> values;
    std::vector<uint64_t> entries;   // histories
    std::vector<uint64_t> validity;  // others
  };
  std::vector<Ids> ids_;
  std::vector<std::vector<double>> dense_;
  std::vector<std::vector<uint64_t>> dense_validity_;
  std::vector<double> labels_;
  ChunkView view_;
};

// Rows [first_row, first_row + rows) as the lines of the owner's file, without the header.
void AppendSynthText(const SynthGenerator& generator, uint64_t first_row, uint32_t rows, std::string* text);

}  // namespace persia
