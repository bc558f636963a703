#include "batch/batcher.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/permutation.h"
#include "base/rng.h"
#include "base/status.h"

namespace persia {

// The buffers of one batch.
struct Batcher::Storage {
  Storage(const DecoderOptions& columns, uint32_t batch_size) : ids(columns.ids.size()) {
    for (ChunkDecoder::Ids& column : ids) {
      column.ids.reserve(batch_size);
      column.offsets.reserve(batch_size + 1);
      column.offsets.push_back(0);
    }
    dense.reserve(batch_size * columns.dense.size());
    labels.reserve(batch_size * columns.labels.size());
  }

  uint32_t rows = 0;
  std::vector<ChunkDecoder::Ids> ids;
  std::vector<float> dense;
  std::vector<float> labels;
};

namespace {

// Copies rows [first, last) of a row-major matrix with `width` columns to the end of another.
void AppendRows(const std::vector<float>& from, size_t width, uint32_t first, uint32_t last, std::vector<float>* to) {
  to->insert(to->end(), from.begin() + static_cast<ptrdiff_t>(first * width),
             from.begin() + static_cast<ptrdiff_t>(last * width));
}

void AppendIds(const ChunkDecoder::Ids& from, uint32_t first, uint32_t last, ChunkDecoder::Ids* to) {
  const uint32_t begin = from.offsets[first];
  const uint32_t shift = static_cast<uint32_t>(to->ids.size()) - begin;  // modulo 2^32, so it may point backwards
  to->ids.insert(to->ids.end(), from.ids.begin() + begin, from.ids.begin() + from.offsets[last]);
  PERSIA_CHECK(to->ids.size() <= UINT32_MAX);
  for (uint32_t row = first; row < last; ++row) to->offsets.push_back(from.offsets[row + 1] + shift);
}

bool OneIdEach(const std::vector<uint32_t>& offsets) {
  for (uint32_t row = 0; row < offsets.size(); ++row) {
    if (offsets[row] != row) return false;
  }
  return true;
}

}  // namespace

Batcher::Batcher(BatcherOptions options)
    : options_(std::move(options)),
      decoder_(options_.columns),
      rows_to_skip_(options_.skip_rows),
      moments_(options_.columns.dense.size()) {
  PERSIA_CHECK(options_.batch_size > 0 && options_.most_reports > 0);
  PERSIA_CHECK(!options_.shuffle || options_.shuffle->window_rows > 1);
  PERSIA_CHECK(!options_.sampling || options_.sampling->label < options_.columns.labels.size());
}

Batcher::Output Batcher::Push(const ChunkView& chunk) {
  PERSIA_CHECK(!stopped_);
  decoder_.Decode(chunk);
  Output output;
  output.bad_count = decoder_.bad_count();
  if (output.bad_count > 0) output.bad = decoder_.DescribeBadRows(options_.most_reports);
  stopped_ = options_.stop_at_bad_row && output.bad_count > 0;

  const uint32_t end = stopped_ ? output.bad.front().row : chunk.rows;
  const auto& is_bad = decoder_.is_bad();
  for (uint32_t first = 0; first < end;) {
    uint32_t last = first;
    while (last < end && !is_bad[last] && IsWanted(last)) ++last;
    Take(first, last, &output.batches);
    first = last + 1;
  }
  rows_ += chunk.rows;
  return output;
}

// Whether a row is on the side of the split that is read.
bool Batcher::IsWanted(uint32_t row) const {
  if (options_.share) {
    return IsTest(options_.share->key, rows_ + row, options_.share->test_share) == options_.wants_test;
  }
  return !options_.columns.split || (decoder_.is_test()[row] != 0) == options_.wants_test;
}

// Takes of the good rows [first, last) those that are not left out.
void Batcher::Take(uint32_t first, uint32_t last, Batches* full) {
  if (options_.collect_moments) AddMoments(first, last);
  if (options_.sampling) {
    TakeSampled(*options_.sampling, first, last, full);
  } else {
    Fill(first, last, full);
  }
  good_rows_ += last - first;
}

void Batcher::TakeSampled(const NegativeSampling& sampling, uint32_t first, uint32_t last, Batches* full) {
  const size_t width = options_.columns.labels.size();
  const auto is_kept = [&](uint32_t row) {
    if (decoder_.labels()[row * width + sampling.label] >= 0.5f) return true;
    return Rng(RandomKey(sampling.key, good_rows_ + (row - first))).Uniform() < sampling.keep;
  };
  for (uint32_t begin = first; begin < last;) {
    uint32_t end = begin;
    while (end < last && is_kept(end)) ++end;
    Fill(begin, end, full);
    begin = end + 1;
  }
}

// Fills batches with the rows, or the window that is shuffled.
void Batcher::Fill(uint32_t first, uint32_t last, Batches* full) {
  if (options_.shuffle) {
    while (first < last) {
      const uint32_t room = options_.shuffle->window_rows;
      if (!window_) window_ = std::make_shared<Storage>(options_.columns, room);
      const uint32_t taken = std::min(last - first, room - window_->rows);
      Append(first, first + taken, window_.get());
      first += taken;
      if (window_->rows == room) EmitWindow(full);
    }
    return;
  }
  const uint64_t skipped = std::min<uint64_t>(rows_to_skip_, last - first);
  rows_to_skip_ -= skipped;
  first += static_cast<uint32_t>(skipped);
  while (first < last) {
    if (!open_) open_ = std::make_shared<Storage>(options_.columns, options_.batch_size);
    const uint32_t taken = std::min(last - first, options_.batch_size - open_->rows);
    Append(first, first + taken, open_.get());
    first += taken;
    if (open_->rows == options_.batch_size) full->push_back(Emit());
  }
}

// Rows of the decoded chunk.
void Batcher::Append(uint32_t first, uint32_t last, Storage* to) const {
  for (size_t i = 0; i < to->ids.size(); ++i) AppendIds(decoder_.ids()[i], first, last, &to->ids[i]);
  AppendRows(decoder_.dense(), options_.columns.dense.size(), first, last, &to->dense);
  AppendRows(decoder_.labels(), options_.columns.labels.size(), first, last, &to->labels);
  to->rows += last - first;
}

// The rows of the window in their new order, without those still to skip.
void Batcher::EmitWindow(Batches* full) {
  const std::shared_ptr<Storage> window = std::exchange(window_, nullptr);
  const Permutation order(RandomKey(options_.shuffle->key, windows_++), window->rows);
  const auto skipped = static_cast<uint32_t>(std::min<uint64_t>(rows_to_skip_, window->rows));
  rows_to_skip_ -= skipped;
  for (uint32_t place = skipped; place < window->rows; ++place) {
    const auto row = static_cast<uint32_t>(order.At(place));
    if (!open_) open_ = std::make_shared<Storage>(options_.columns, options_.batch_size);
    for (size_t i = 0; i < window->ids.size(); ++i) AppendIds(window->ids[i], row, row + 1, &open_->ids[i]);
    AppendRows(window->dense, options_.columns.dense.size(), row, row + 1, &open_->dense);
    AppendRows(window->labels, options_.columns.labels.size(), row, row + 1, &open_->labels);
    if (++open_->rows == options_.batch_size) full->push_back(Emit());
  }
}

void Batcher::AddMoments(uint32_t first, uint32_t last) {
  const size_t width = moments_.size();
  for (uint32_t row = first; row < last; ++row) {
    for (size_t i = 0; i < width; ++i) {
      const double x = decoder_.dense_raw()[row * width + i];
      if (!std::isnan(x)) moments_[i].Add(x);
    }
  }
}

std::vector<std::shared_ptr<const Batch>> Batcher::Finish() {
  Batches last;
  if (window_) EmitWindow(&last);
  if (open_) last.push_back(Emit());
  return last;
}

std::shared_ptr<const Batch> Batcher::Emit() {
  const std::shared_ptr<Storage> storage = std::exchange(open_, nullptr);
  auto batch = std::make_shared<Batch>();
  batch->rows = storage->rows;
  batch->dense_count = static_cast<uint32_t>(options_.columns.dense.size());
  batch->label_count = static_cast<uint32_t>(options_.columns.labels.size());
  for (const ChunkDecoder::Ids& column : storage->ids) {
    IdColumn view{{}, column.ids};
    if (!OneIdEach(column.offsets)) view.offsets = column.offsets;
    batch->id_columns.push_back(view);
  }
  batch->dense = storage->dense;
  batch->labels = storage->labels;
  batch->owner = storage;
  return batch;
}

}  // namespace persia
