#include "data/prepared_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/copy.h"

namespace persia {
namespace {

constexpr uint32_t kCountedRows = 65'536;  // a window of sampling without shuffling
constexpr uint64_t kShardStream = 0, kWindowStream = 1;

Status Damaged(const std::string& path, const std::string& what) {
  return Status(ErrorCode::kDataUnreadable, path + " cannot be read: " + what + "; prepare the data again")
      .With("file", path);
}

// log1p of the integers that most counts are, as ChunkDecoder gives it.
class Log1pTable {
 public:
  static const Log1pTable& Get() {
    static const Log1pTable table;
    return table;
  }

  float operator()(float raw) const {
    if (raw >= kLeast && raw < kLeast + static_cast<int>(kSize)) {
      const auto whole = static_cast<int>(raw);
      if (static_cast<float>(whole) == raw) return values_[static_cast<size_t>(whole - kLeast)];
    }
    return Compute(raw);
  }

 private:
  static constexpr int kLeast = -16;
  static constexpr size_t kSize = 1 << 14;

  static float Compute(double raw) {
    return static_cast<float>(ApplyTransform({"", Transform::kLog1p, 0, 1, std::nullopt}, raw));
  }

  Log1pTable() {
    for (size_t i = 0; i < kSize; ++i) values_[i] = Compute(static_cast<int>(i) + kLeast);
  }

  std::array<float, kSize> values_;
};

// Calls `put(i, value)` for `count` values, transformed.
template <typename Put>
void Transformed(const float* raw, uint32_t count, const DenseColumnOptions& options, float when_missing, Put put) {
  if (options.transform == Transform::kNone) {
    for (uint32_t i = 0; i < count; ++i) put(i, std::isnan(raw[i]) ? when_missing : raw[i]);
  } else if (options.transform == Transform::kLog1p) {
    const Log1pTable& log1p = Log1pTable::Get();
    for (uint32_t i = 0; i < count; ++i) put(i, std::isnan(raw[i]) ? when_missing : log1p(raw[i]));
  } else {
    for (uint32_t i = 0; i < count; ++i) {
      put(i, std::isnan(raw[i]) ? when_missing : static_cast<float>(ApplyTransform(options, raw[i])));
    }
  }
}

// Appends the ids of rows [first, first + count) that are there, and for each row where its ids end.
// `ids` has room for all, `offsets` for one a row. Returns the number of ids so far.
uint32_t AppendPresent(const ArrowColumn& column, uint32_t first, uint32_t count, uint32_t total, uint64_t* ids,
                       uint32_t* offsets) {
  const auto* values = column.values_as<uint64_t>() + first;
  for (uint32_t row = 0; row < count; ++row) {
    ids[total] = values[row];  // written over by the next one if it isn't there
    total += !column.is_null(first + row);
    offsets[row] = total;
  }
  return total;
}

}  // namespace

// What a batch owns: one piece of memory that its columns are put into one behind the other.
struct PreparedData::Storage {
  Batch batch;
  std::shared_ptr<const Shards> shards;  // what it views
  AlignedBuffer<uint64_t> memory;
  size_t used = 0;

  // Room for `count` values; Reserve has made enough.
  template <typename T>
  T* Take(size_t count) {
    T* taken = reinterpret_cast<T*>(memory.data() + used);
    used += (count * sizeof(T) + sizeof(uint64_t) - 1) / sizeof(uint64_t);
    PERSIA_CHECK(used <= memory.size());
    return taken;
  }
};

// Memory of batches that are gone, for those to come: large pieces are slow to get and to touch for the first time.
class PreparedData::StoragePool {
 public:
  // Without the batch that it held, with at least so much memory.
  std::unique_ptr<Storage> Get(size_t bytes) {
    std::unique_ptr<Storage> storage;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) storage = std::move(free_.back());
      if (storage) free_.pop_back();
    }
    if (!storage) storage = std::make_unique<Storage>();
    const size_t words = bytes / sizeof(uint64_t) + 1;
    if (storage->memory.size() < words) storage->memory = AlignedBuffer<uint64_t>(words);
    return storage;
  }

  void Return(std::unique_ptr<Storage> storage) {
    constexpr size_t kMostFree = 32;
    storage->batch = {};
    storage->shards = nullptr;
    storage->used = 0;
    const std::lock_guard lock(mutex_);
    if (free_.size() < kMostFree) free_.push_back(std::move(storage));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Storage>> free_;  // guarded by mutex_
};

PreparedData::PreparedData(PreparedOptions options)
    : options_(std::move(options)), pool_(std::make_shared<StoragePool>()) {}

Result<std::unique_ptr<PreparedData>> PreparedData::Open(PreparedOptions options) {
  PERSIA_CHECK(options.batch_size > 0 && options.dense.size() == options.transforms.size());
  std::unique_ptr<PreparedData> data(new PreparedData(std::move(options)));
  for (const PreparedOptions::Shard& shard : data->options_.shards) PERSIA_RETURN_IF_ERROR(data->OpenShard(shard));
  for (const DenseColumnOptions& column : data->options_.transforms) {
    data->when_missing_.push_back(column.missing ? static_cast<float>(ApplyTransform(column, *column.missing)) : 0);
  }
  data->PlaceBlocks();
  if (data->options_.sampling) data->CountKept();
  return data;
}

Status PreparedData::OpenShard(const PreparedOptions::Shard& shard) {
  auto file = ArrowFile::Open(shard.path);
  if (!file.ok()) return file.status();
  const ShardFile& expected = shard.file;
  if (file->bytes().size() != expected.bytes || file->rows() != expected.rows ||
      file->blocks().size() != expected.block_checksums.size()) {
    return Damaged(shard.path, "it has not the size that the manifest says");
  }
  Xxh64Stream frame;
  const uint8_t* next = file->bytes().data();
  for (const ArrowBlock& block : file->blocks()) {
    if (block.codec != ArrowCodec::kNone) return Damaged(shard.path, "its buffers are compressed");
    if (block.body.data() < next) return Damaged(shard.path, "its record batches are in disorder");
    frame.Update(next, static_cast<size_t>(block.body.data() - next));
    next = block.body.data() + block.body.size();
  }
  frame.Update(next, static_cast<size_t>(file->bytes().data() + file->bytes().size() - next));
  if (frame.Digest() != expected.frame_checksum) return Damaged(shard.path, "its metadata is damaged");
  PERSIA_RETURN_IF_ERROR(CheckColumns(*file, shard.path));
  shards_->push_back(std::make_unique<Shard>(std::move(*file)));
  return Status::Ok();
}

Status PreparedData::CheckColumns(const ArrowFile& file, const std::string& path) const {
  const ShardColumns& columns = options_.columns;
  const size_t count = columns.ids.size() + columns.dense.size() + columns.labels.size();
  bool fits = file.fields().size() == count;
  for (size_t i = 0; fits && i < count; ++i) {
    const ArrowField& field = file.fields()[i];
    if (i >= columns.ids.size()) {
      fits = field.is_plain(ArrowTypeId::kFloat, 32, false);
    } else if (columns.ids[i].is_list) {
      fits = field.type == ArrowTypeId::kList && !field.has_dictionary &&
             field.children[0].is_plain(ArrowTypeId::kInt, 64, false);
    } else {
      fits = field.is_plain(ArrowTypeId::kInt, 64, false);
    }
  }
  return fits ? Status::Ok() : Damaged(path, "it has not the columns that the manifest says");
}

// The order of blocks in this pass.
void PreparedData::PlaceBlocks() {
  const bool shuffles = options_.shuffle && options_.shuffle->files;
  const uint64_t key = options_.shuffle ? RandomKey(options_.shuffle->key, kShardStream) : 0;
  const Permutation order(key, shards_->size());
  for (uint32_t i = 0; i < shards_->size(); ++i) {
    const auto shard = static_cast<uint32_t>(shuffles ? order.At(i) : i);
    const auto& blocks = (*shards_)[shard]->file.blocks();
    for (uint32_t block = 0; block < blocks.size(); ++block) {
      if (blocks[block].rows == 0) continue;
      blocks_.push_back({shard, block, all_rows_});
      all_rows_ += blocks[block].rows;
    }
  }
  rows_ = all_rows_;
  window_rows_ = options_.shuffle ? options_.shuffle->window_rows : 0;
}

// Counts the rows that sampling keeps, window by window.
void PreparedData::CountKept() {
  if (window_rows_ <= 1) window_rows_ = kCountedRows;
  kept_before_.push_back(0);
  uint64_t kept = 0;
  for (uint64_t row = 0; row < all_rows_; ++row) {
    kept += IsKept(row);
    if ((row + 1) % window_rows_ == 0 || row + 1 == all_rows_) kept_before_.push_back(kept);
  }
  rows_ = kept;
}

bool PreparedData::IsKept(uint64_t row) const {
  const NegativeSampling& sampling = *options_.sampling;
  return LabelOf(row) >= 0.5f || Rng(RandomKey(sampling.key, row)).Uniform() < sampling.keep;
}

float PreparedData::LabelOf(uint64_t row) const {
  const PlacedBlock& placed = BlockOf(row);
  const size_t column = options_.columns.ids.size() + options_.columns.dense.size() +
                        options_.labels[options_.sampling->label];
  const ArrowBlock& block = (*shards_)[placed.shard]->file.blocks()[placed.block];
  return block.columns[column].values_as<float>()[row - placed.first_row];
}

const PreparedData::PlacedBlock& PreparedData::BlockOf(uint64_t row) const {
  const auto behind = std::upper_bound(blocks_.begin(), blocks_.end(), row,
                                       [](uint64_t r, const PlacedBlock& block) { return r < block.first_row; });
  return *(behind - 1);
}

Status PreparedData::Verify(uint32_t shard, uint32_t block) const {
  Shard& at = *(*shards_)[shard];
  if (at.verified[block].load(std::memory_order_relaxed)) return Status::Ok();
  const PreparedOptions::Shard& expected = options_.shards[shard];
  const ArrowBlock& found = at.file.blocks()[block];
  if (Xxh64(found.body.data(), found.body.size()) != expected.file.block_checksums[block]) {
    return Damaged(expected.path, "record batch " + std::to_string(block) + " is damaged");
  }
  for (size_t i = 0; i < found.columns.size(); ++i) {
    if (!CheckOffsets(at.file.fields()[i], found.columns[i])) {
      return Damaged(expected.path, "column " + at.file.fields()[i].name + " has lists outside of its values");
    }
  }
  at.verified[block].store(true, std::memory_order_relaxed);
  return Status::Ok();
}

// The row at a place of the pass, in the order of blocks_.
uint64_t PreparedData::RowAt(uint64_t place) const {
  if (!options_.shuffle || options_.shuffle->window_rows <= 1) return place;
  const uint64_t window = place / window_rows_, first = window * window_rows_;
  const uint64_t key = RandomKey(RandomKey(options_.shuffle->key, kWindowStream), window);
  return first + Permutation(key, std::min<uint64_t>(window_rows_, all_rows_ - first)).At(place - first);
}

// Adds a row to the runs. `last` is the block of the row before, or null.
Status PreparedData::Collect(uint64_t row, const PlacedBlock** last, std::vector<Run>* runs) const {
  const auto rows_of = [&](const PlacedBlock& b) { return (*shards_)[b.shard]->file.blocks()[b.block].rows; };
  if (*last == nullptr || row < (*last)->first_row || row - (*last)->first_row >= rows_of(**last)) {
    *last = &BlockOf(row);
    PERSIA_RETURN_IF_ERROR(Verify((*last)->shard, (*last)->block));
  }
  const ArrowBlock* block = &(*shards_)[(*last)->shard]->file.blocks()[(*last)->block];
  const auto in_block = static_cast<uint32_t>(row - (*last)->first_row);
  if (!runs->empty() && runs->back().block == block && runs->back().first + runs->back().count == in_block) {
    ++runs->back().count;
  } else {
    runs->push_back({block, in_block, 1});
  }
  return Status::Ok();
}

Status PreparedData::CollectRuns(uint64_t batch, std::vector<Run>* runs) const {
  const uint64_t first = batch * options_.batch_size, last = std::min(first + options_.batch_size, rows_);
  if (options_.sampling) return CollectKept(first, last, runs);
  const bool in_order = !options_.shuffle || options_.shuffle->window_rows <= 1;
  const PlacedBlock* block = nullptr;
  for (uint64_t place = first; place < last;) {
    PERSIA_RETURN_IF_ERROR(Collect(RowAt(place), &block, runs));
    ++place;
    if (!in_order) continue;
    // The rest of the block follows as it is.
    const uint64_t end = block->first_row + (*shards_)[block->shard]->file.blocks()[block->block].rows;
    const uint64_t more = std::min(end, last) - place;
    runs->back().count += static_cast<uint32_t>(more);
    place += more;
  }
  return Status::Ok();
}

// The rows that are kept number first … last - 1.
Status PreparedData::CollectKept(uint64_t first, uint64_t last, std::vector<Run>* runs) const {
  const auto behind = std::upper_bound(kept_before_.begin(), kept_before_.end(), first);
  const auto window = static_cast<uint64_t>(behind - kept_before_.begin()) - 1;
  uint64_t number = kept_before_[window];
  const PlacedBlock* block = nullptr;
  for (uint64_t place = window * window_rows_; number < last; ++place) {
    const uint64_t row = RowAt(place);
    if (!IsKept(row)) continue;
    if (number++ >= first) PERSIA_RETURN_IF_ERROR(Collect(row, &block, runs));
  }
  return Status::Ok();
}

Result<std::shared_ptr<const Batch>> PreparedData::Read(uint64_t batch) const {
  PERSIA_CHECK(batch < batches());
  std::vector<Run> runs;
  PERSIA_RETURN_IF_ERROR(CollectRuns(batch, &runs));
  uint32_t rows = 0;
  for (const Run& run : runs) rows += run.count;
  std::shared_ptr<Storage> storage(pool_->Get(MostBytes(runs, rows)).release(), [pool = pool_](Storage* used) {
    pool->Return(std::unique_ptr<Storage>(used));
  });
  storage->shards = shards_;
  Batch& made = storage->batch;
  made.rows = rows;
  made.dense_count = static_cast<uint32_t>(options_.dense.size());
  made.label_count = static_cast<uint32_t>(options_.labels.size());
  for (const uint32_t column : options_.ids) FillIds(runs, column, storage.get());
  FillDense(runs, storage.get());
  FillLabels(runs, storage.get());
  return std::shared_ptr<const Batch>(std::move(storage), &made);
}

// Ids of a column in some rows, at most.
uint64_t PreparedData::MostIds(const std::vector<Run>& runs, uint32_t column) const {
  uint64_t most = 0;
  for (const Run& run : runs) {
    const auto* ends = run.block->columns[column].offsets_as<int32_t>();
    const bool is_list = options_.columns.ids[column].is_list;
    most += is_list ? static_cast<uint64_t>(ends[run.first + run.count] - ends[run.first]) : run.count;
  }
  return most;
}

size_t PreparedData::MostBytes(const std::vector<Run>& runs, uint32_t rows) const {
  size_t words = rows * (options_.dense.size() + options_.labels.size()) / 2 + 2;
  for (const uint32_t column : options_.ids) words += MostIds(runs, column) + rows / 2 + 4;
  return words * sizeof(uint64_t);
}

void PreparedData::FillIds(const std::vector<Run>& runs, uint32_t column, Storage* storage) const {
  const bool is_list = options_.columns.ids[column].is_list;
  bool complete = !is_list;  // one id in each row
  for (const Run& run : runs) complete = complete && run.block->columns[column].null_count == 0;
  const uint64_t most = MostIds(runs, column);
  PERSIA_CHECK(most <= UINT32_MAX);
  const auto* only = runs.size() == 1 ? &runs[0].block->columns[column] : nullptr;
  if (complete && only) {
    storage->batch.id_columns.push_back({{}, {only->values_as<uint64_t>() + runs[0].first, runs[0].count}});
    return;
  }
  auto* ids = storage->Take<uint64_t>(most + 1);
  auto* offsets = complete ? nullptr : storage->Take<uint32_t>(storage->batch.rows + 1);
  if (offsets != nullptr) offsets[0] = 0;
  uint32_t total = 0, row = 0;
  for (const Run& run : runs) {
    const ArrowColumn& from = run.block->columns[column];
    if (is_list) {
      const auto* ends = from.offsets_as<int32_t>() + run.first;
      const auto count = static_cast<size_t>(ends[run.count] - ends[0]);
      CopyValues(ids + total, from.children[0].values_as<uint64_t>() + ends[0], count);
      for (uint32_t i = 1; i <= run.count; ++i) offsets[row + i] = total + static_cast<uint32_t>(ends[i] - ends[0]);
      total = offsets[row + run.count];
    } else if (complete) {
      CopyValues(ids + total, from.values_as<uint64_t>() + run.first, run.count);
      total += run.count;
    } else {
      total = AppendPresent(from, run.first, run.count, total, ids, offsets + row + 1);
    }
    row += run.count;
  }
  IdColumn made{{}, {ids, total}};
  if (offsets != nullptr) made.offsets = {offsets, size_t{row} + 1};
  storage->batch.id_columns.push_back(made);
}

void PreparedData::FillDense(const std::vector<Run>& runs, Storage* storage) const {
  const size_t width = options_.dense.size(), first_column = options_.columns.ids.size();
  if (width == 0) return;
  auto* out = storage->Take<float>(storage->batch.rows * width);
  storage->batch.dense = {out, storage->batch.rows * width};
  for (const Run& run : runs) {
    for (size_t i = 0; i < width; ++i) {
      const float* raw = run.block->columns[first_column + options_.dense[i]].values_as<float>() + run.first;
      Transformed(raw, run.count, options_.transforms[i], when_missing_[i],
                  [&](uint32_t row, float value) { out[row * width + i] = value; });
    }
    out += run.count * width;
  }
}

void PreparedData::FillLabels(const std::vector<Run>& runs, Storage* storage) const {
  const size_t width = options_.labels.size();
  if (width == 0) return;
  const size_t first_column = options_.columns.ids.size() + options_.columns.dense.size();
  auto* out = storage->Take<float>(storage->batch.rows * width);
  storage->batch.labels = {out, storage->batch.rows * width};
  for (const Run& run : runs) {
    for (size_t i = 0; i < width; ++i) {
      const float* values = run.block->columns[first_column + options_.labels[i]].values_as<float>() + run.first;
      for (uint32_t row = 0; row < run.count; ++row) out[row * width + i] = values[row];
    }
    out += run.count * width;
  }
}

}  // namespace persia
