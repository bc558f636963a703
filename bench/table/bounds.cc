// The physical bounds: what random access to rows of this size gives on this machine, huge pages on, prefetched `depth`
// rows ahead.
//
//   one-line   row = rows[h·n]                         reads: summed up in registers, nothing else is touched
//   two-line   line = index[h·n/4.25] -> row number    as a table must: which row it is, is known only once the index
//              row = rows[row number]                  line is there; reads are copied out as a gather does
//
// 4.25 rows an index line are 15 bytes a row, what an index of 8-byte signs and 32-bit slots can do. A read takes the
// lines of the embedding, a read-modify-write all lines of the row: it adds 1 to each float.
#include <array>
#include <cstddef>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "base/status.h"
#include "side.h"

namespace persia::bench {
namespace {

constexpr uint32_t kLineFloats = 16;
constexpr uint32_t kMostDepth = 64;

// A number in [0, n) from a hash; n < 2^32.
uint64_t Scale(uint64_t hash, uint64_t n) { return (hash >> 32) * n >> 32; }

// Rows of an embedding and its Adagrad state, in whole lines, and what is done with one.
class Rows {
 public:
  explicit Rows(const SideOptions& options)
      : count_(options.rows), read_lines_(LinesOf(options.dim)), lines_(LinesOf(2 * options.dim)),
        dim_(options.dim), values_(count_ * lines_ * kLineFloats) {
    values_.Fill(1.0f);
  }

  uint64_t count() const { return count_; }

  void PrefetchEmbedding(uint64_t row) const { Prefetch(row, read_lines_); }
  void PrefetchRow(uint64_t row) const { Prefetch(row, lines_); }

  void AddTo(float* sums, uint64_t row) const {
    const float* in = At(row);
    for (uint32_t i = 0; i < read_lines_ * kLineFloats; i += kLineFloats) {
      for (uint32_t j = 0; j < kLineFloats; ++j) sums[j] += in[i + j];
    }
  }
  void CopyTo(float* out, uint64_t row) const {
    const float* in = At(row);
    if (dim_ % kLineFloats == 0) {
      for (uint32_t i = 0; i < dim_; i += kLineFloats) __builtin_memcpy(out + i, in + i, kLineFloats * sizeof(float));
    } else {
      for (uint32_t i = 0; i < dim_; ++i) out[i] = in[i];
    }
  }
  void Modify(uint64_t row) {
    float* values = At(row);
    for (uint32_t i = 0; i < lines_ * kLineFloats; ++i) values[i] += 1.0f;
  }

 private:
  static uint32_t LinesOf(uint32_t floats) { return (floats + kLineFloats - 1) / kLineFloats; }
  const float* At(uint64_t row) const { return &values_[row * lines_ * kLineFloats]; }
  float* At(uint64_t row) { return &values_[row * lines_ * kLineFloats]; }
  void Prefetch(uint64_t row, uint32_t lines) const {
    for (uint32_t i = 0; i < lines; ++i) __builtin_prefetch(At(row) + i * kLineFloats);
  }

  uint64_t count_;
  uint32_t read_lines_, lines_, dim_;
  AlignedBuffer<float> values_;
};

class Bound : public Side {
 public:
  explicit Bound(const SideOptions& options) : rows_(options), dim_(options.dim), depth_(options.depth) {
    PERSIA_CHECK(depth_ > 0 && depth_ <= kMostDepth);
  }
  void Erase(std::span<const uint64_t>) override { PERSIA_CHECK(false); }
  uint64_t size() const override { return rows_.count(); }
  bool is_bound() const override { return true; }

 protected:
  Rows rows_;
  uint32_t dim_;
  uint32_t depth_;
};

class OneLine final : public Bound {
 public:
  using Bound::Bound;

  void Gather(std::span<const uint64_t> signs, LookupMode, float* out) override {
    std::array<float, kLineFloats> sums{};
    Pipeline(
        signs, [&](uint64_t row) { rows_.PrefetchEmbedding(row); },
        [&](uint64_t row) { rows_.AddTo(sums.data(), row); });
    for (uint32_t i = 0; i < dim_ && i < kLineFloats; ++i) out[i] = sums[i];
  }

  void GatherApply(std::span<const uint64_t> signs, const float*, float*) override {
    Pipeline(
        signs, [&](uint64_t row) { rows_.PrefetchRow(row); }, [&](uint64_t row) { rows_.Modify(row); });
  }

 private:
  template <typename Prefetch, typename Use>
  void Pipeline(std::span<const uint64_t> signs, Prefetch prefetch, Use use) {
    for (size_t i = 0; i < signs.size() + depth_; ++i) {
      if (i < signs.size()) prefetch(Scale(signs[i], rows_.count()));
      if (i >= depth_) use(Scale(signs[i - depth_], rows_.count()));
    }
  }
};

class TwoLine final : public Bound {
 public:
  static uint64_t LinesOf(uint64_t rows) { return rows * 4 / 17 + 1; }

  explicit TwoLine(const SideOptions& options)
      : Bound(options), lines_(LinesOf(options.rows)), index_(lines_ * kLineFloats) {
    Rng rng(5);
    for (uint32_t& row : index_.span()) row = static_cast<uint32_t>(Scale(rng.Next(), rows_.count()));
  }

  void Gather(std::span<const uint64_t> signs, LookupMode, float* out) override {
    Pipeline(
        signs, [&](uint64_t row) { rows_.PrefetchEmbedding(row); },
        [&](size_t i, uint64_t row) { rows_.CopyTo(out + i * dim_, row); });
  }

  void GatherApply(std::span<const uint64_t> signs, const float*, float*) override {
    Pipeline(
        signs, [&](uint64_t row) { rows_.PrefetchRow(row); }, [&](size_t, uint64_t row) { rows_.Modify(row); });
  }

 private:
  const uint32_t* EntryOf(uint64_t sign) const {
    return &index_[Scale(sign, lines_) * kLineFloats + sign % kLineFloats];
  }

  // Three stages, `depth` signs apart: the index line is asked for; it has come and its row is asked for; the row is
  // used.
  template <typename Prefetch, typename Use>
  void Pipeline(std::span<const uint64_t> signs, Prefetch prefetch, Use use) {
    std::array<uint32_t, kMostDepth> found;
    for (size_t i = 0, at = 0; i < signs.size() + 2 * depth_; ++i, at = at + 1 == depth_ ? 0 : at + 1) {
      if (i < signs.size()) __builtin_prefetch(EntryOf(signs[i]));
      if (i >= 2 * depth_) use(i - 2 * depth_, found[at]);  // stored `depth` steps ago, in the entry that comes free
      if (i >= depth_ && i - depth_ < signs.size()) {
        found[at] = *EntryOf(signs[i - depth_]);
        prefetch(found[at]);
      }
    }
  }

  uint64_t lines_;
  AlignedBuffer<uint32_t> index_;
};

uint64_t RowBytes(const SideOptions& options) { return (2 * options.dim * sizeof(float) + 63) / 64 * 64; }

}  // namespace

SideKind OneLineBound() {
  return {"one-line", [](const SideOptions& options) { return options.rows * RowBytes(options); },
          [](const SideOptions& options) { return std::make_unique<OneLine>(options); }};
}

SideKind TwoLineBound() {
  return {"two-line",
          [](const SideOptions& options) {
            return options.rows * RowBytes(options) + TwoLine::LinesOf(options.rows) * 64;
          },
          [](const SideOptions& options) { return std::make_unique<TwoLine>(options); }};
}

}  // namespace persia::bench
