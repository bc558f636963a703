#include "worker/embedding_worker.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/cpu.h"
#include "base/hash.h"
#include "store/clip_rows.h"

namespace persia {
namespace {

// One feature of a batch with everything a kernel needs.
struct FeatureView {
  uint32_t samples;
  uint32_t vectors;           // of a sample: 1, or the places of a sequence
  uint32_t dim;
  Pooling pooling;
  uint32_t rows_per_id;
  const uint32_t* offsets;    // (samples · vectors + 1)
  const uint32_t* positions;  // (offsets[samples · vectors])
};

// The factor on the sum of `rows` rows.
PERSIA_ALWAYS_INLINE float ScaleOf(const FeatureView& view, uint32_t rows) {
  if (view.pooling != Pooling::kMean && view.pooling != Pooling::kSqrt) return 1.0f;
  const auto ids = static_cast<float>(view.rows_per_id == 1 ? rows : rows / view.rows_per_id);
  return 1.0f / (view.pooling == Pooling::kMean ? ids : std::sqrt(ids));
}

struct Pool {
  // `rows` is (distinct, dim), the vectors of sample i go to pooled + i·stride, side by side.
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, float* __restrict pooled, size_t stride,
                                       const float* __restrict rows) {
    const uint32_t* offset = view.offsets;
    for (uint32_t i = 0; i < view.samples; ++i) {
      for (uint32_t v = 0; v < view.vectors; ++v, ++offset) {
        PoolOne(view, offset[0], offset[1], rows, pooled + i * stride + size_t{v} * view.dim);
      }
    }
  }

  static PERSIA_ALWAYS_INLINE void PoolOne(const FeatureView& view, uint32_t begin, uint32_t end,
                                           const float* __restrict rows, float* __restrict to) {
    const size_t dim = view.dim;
    if (begin == end) {
      for (size_t d = 0; d < dim; ++d) to[d] = 0.0f;
      return;
    }
    const float* first = rows + view.positions[begin] * dim;
    for (size_t d = 0; d < dim; ++d) to[d] = first[d];
    if (end - begin == 1) return;
    for (uint32_t k = begin + 1; k < end; ++k) {
      const float* row = rows + view.positions[k] * dim;
      for (size_t d = 0; d < dim; ++d) to[d] += row[d];
    }
    const float scale = ScaleOf(view, end - begin);
    for (size_t d = 0; d < dim; ++d) to[d] *= scale;
  }
};

struct Unpool {
  // The transpose: adds the gradients of each sample's vectors, from gradients + i·stride on, to their rows.
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, const float* __restrict gradients, size_t stride,
                                       float* __restrict rows) {
    const size_t dim = view.dim;
    const uint32_t* offset = view.offsets;
    for (uint32_t i = 0; i < view.samples; ++i) {
      for (uint32_t v = 0; v < view.vectors; ++v, ++offset) {
        const float* gradient = gradients + i * stride + v * dim;
        const float scale = ScaleOf(view, offset[1] - offset[0]);
        for (uint32_t k = offset[0]; k < offset[1]; ++k) {
          float* row = rows + view.positions[k] * dim;
          for (size_t d = 0; d < dim; ++d) row[d] += scale * gradient[d];
        }
      }
    }
  }
};

// Of pooling max: each float of a sample's vector is the largest of its ids' at that place, the first one's where several
// are as large. `chosen` is (samples, dim): where that id begins in the positions.
struct PoolMax {
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, uint32_t* __restrict chosen, float* __restrict pooled,
                                       size_t stride, const float* __restrict rows) {
    const size_t dim = view.dim;
    for (uint32_t i = 0; i < view.samples; ++i, chosen += dim, pooled += stride) {
      const uint32_t begin = view.offsets[i], end = view.offsets[i + 1];
      for (size_t d = 0; d < dim; ++d) {
        pooled[d] = begin == end ? 0.0f : ValueOf(view, begin, d, rows);
        chosen[d] = begin;
      }
      for (uint32_t k = begin + view.rows_per_id; k < end; k += view.rows_per_id) {
        for (size_t d = 0; d < dim; ++d) {
          const float value = ValueOf(view, k, d, rows);
          const bool larger = value > pooled[d];
          pooled[d] = larger ? value : pooled[d];
          chosen[d] = larger ? k : chosen[d];
        }
      }
    }
  }

  // One float of the vector of the id whose positions begin at k.
  static PERSIA_ALWAYS_INLINE float ValueOf(const FeatureView& view, uint32_t k, size_t d,
                                           const float* __restrict rows) {
    float value = rows[view.positions[k] * size_t{view.dim} + d];
    for (uint32_t r = 1; r < view.rows_per_id; ++r) value += rows[view.positions[k + r] * size_t{view.dim} + d];
    return value;
  }
};

struct UnpoolMax {
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, const uint32_t* __restrict chosen,
                                       const float* __restrict gradients, size_t stride, float* __restrict rows) {
    const size_t dim = view.dim;
    for (uint32_t i = 0; i < view.samples; ++i, chosen += dim, gradients += stride) {
      if (view.offsets[i] == view.offsets[i + 1]) continue;
      for (size_t d = 0; d < dim; ++d) {
        for (uint32_t r = 0; r < view.rows_per_id; ++r) rows[view.positions[chosen[d] + r] * dim + d] += gradients[d];
      }
    }
  }
};

FeatureView ViewOf(const EmbeddingPlan& plan, const FeatureSpec& spec, size_t feature) {
  const EmbeddingPlan::Feature& ids = plan.features[feature];
  return {plan.rows,         spec.vectors(),     spec.dim,            spec.pooling,
          spec.rows_per_id(), ids.offsets.data(), ids.positions.data()};
}

// Makes room for the batch in the plan's buffers and starts the distinct signs of each row class.
void StartPlan(const Batch& batch, const FeatureSchema& schema, EmbeddingPlan& plan) {
  const size_t classes = schema.row_class_dims.size();
  plan.rows = batch.rows;
  plan.classes.resize(classes);
  plan.dedup.resize(classes);
  plan.features.resize(schema.features.size());
  for (EmbeddingPlan::Class& row_class : plan.classes) row_class.distinct = row_class.trained = 0;
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const FeatureSpec& spec = schema.features[f];
    const size_t most = batch.id_columns[f].ids.size() * spec.rows_per_id();
    plan.features[f].offsets.Resize(size_t{batch.rows} * spec.vectors() + 1);
    plan.features[f].positions.Resize(most);
    plan.features[f].chosen.Resize(spec.pooling == Pooling::kMax ? size_t{batch.rows} * spec.dim : 0);
    plan.classes[spec.row_class].distinct += static_cast<uint32_t>(most);  // so far
  }
  for (size_t c = 0; c < classes; ++c) {
    plan.classes[c].signs.Resize(plan.classes[c].distinct);
    plan.dedup[c].Reset(plan.classes[c].distinct);
  }
}

// Numbers the signs of a feature's ids and fills its offsets and positions, sample by sample; of an unpooled feature
// place by place.
void NumberSigns(const FeatureSpec& spec, const IdColumn& column, uint32_t samples, uint32_t prefix_bits,
                 Deduplicator& dedup, uint64_t* signs, EmbeddingPlan::Feature& feature) {
  uint32_t *offset = feature.offsets.data(), *positions = feature.positions.data();
  uint32_t count = 0;
  *offset = 0;
  const auto add = [&](uint64_t id) {
    positions[count++] = dedup.Insert(MakeSign(id, spec.group, prefix_bits), signs);
  };
  for (uint32_t sample = 0; sample < samples; ++sample) {
    const uint32_t end = column.end(sample), ids = end - column.begin(sample);
    const uint32_t most = spec.most_ids(), taken = most == 0 ? ids : std::min(ids, most);
    const uint32_t* after = offset + spec.vectors();
    for (uint32_t i = end - taken; i < end; ++i) {
      if (spec.hash_rounds == 0) add(column.ids[i]);
      for (uint32_t r = 0; r < spec.hash_rounds; ++r) add(HashStackBucket(column.ids[i], r, spec.hash_buckets));
      if (spec.pooling == Pooling::kNone) *++offset = count;
    }
    while (offset != after) *++offset = count;
  }
  feature.positions.Resize(count);
}

// Features in the order in which their signs are numbered: those that are trained first, so that a row class's signs
// with gradients come first.
std::vector<size_t> TrainedFirst(const std::vector<FeatureSpec>& features) {
  std::vector<size_t> order(features.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Not std::ranges::, which clang 14 does not compile with libstdc++.
  std::stable_partition(order.begin(), order.end(), [&](size_t f) { return !features[f].frozen; });
  return order;
}

std::vector<bool> SharesSigns(const std::vector<FeatureSpec>& features, const std::vector<size_t>& order) {
  std::vector<bool> shares(features.size());
  for (auto f = order.begin(); f != order.end(); ++f) {
    shares[*f] = std::any_of(order.begin(), f, [&](size_t before) {
      return features[before].group == features[*f].group && features[before].row_class == features[*f].row_class;
    });
  }
  return shares;
}

}  // namespace

EmbeddingWorker::EmbeddingWorker(const FeatureSchema& schema, EmbeddingRows& rows)
    : schema_(schema),
      rows_(rows),
      order_(TrainedFirst(schema.features)),
      shares_signs_(SharesSigns(schema.features, order_)),
      seen_(schema.features.size()) {
  PERSIA_CHECK(rows.row_class_count() == schema.row_class_dims.size());
}

void EmbeddingWorker::Prepare(const Batch& batch, EmbeddingPlan& plan) const {
  StartPlan(batch, schema_, plan);
  for (const size_t f : order_) {
    const FeatureSpec& spec = schema_.features[f];
    EmbeddingPlan::Feature& feature = plan.features[f];
    EmbeddingPlan::Class& row_class = plan.classes[spec.row_class];
    Deduplicator& dedup = plan.dedup[spec.row_class];
    feature.new_begin = dedup.distinct();
    NumberSigns(spec, batch.id_columns[f], batch.rows, schema_.prefix_bits, dedup, row_class.signs.data(), feature);
    feature.new_end = dedup.distinct();
    if (!spec.frozen) row_class.trained = feature.new_end;
  }
  for (size_t c = 0; c < plan.classes.size(); ++c) {
    EmbeddingPlan::Class& row_class = plan.classes[c];
    row_class.distinct = plan.dedup[c].distinct();
    row_class.rows.Resize(size_t{row_class.distinct} * schema_.row_class_dims[c]);
  }
}

Status EmbeddingWorker::Lookup(RequestId id, LookupMode mode, EmbeddingPlan& plan, float* pooled, size_t stride) const {
  PERSIA_CHECK(stride >= schema_.embedding_width);
  plan.lookups.clear();
  for (uint32_t c = 0; c < plan.classes.size(); ++c) {
    EmbeddingPlan::Class& row_class = plan.classes[c];
    plan.lookups.push_back({c, {row_class.signs.data(), row_class.distinct}, row_class.rows.data()});
  }
  PERSIA_RETURN_IF_ERROR(rows_.Lookup(id, mode, plan.lookups));
  if (mode == LookupMode::kTrain) CountIds(plan);
  for (size_t f = 0; f < schema_.features.size(); ++f) {
    const FeatureSpec& spec = schema_.features[f];
    const float* rows = plan.classes[spec.row_class].rows.data();
    const FeatureView view = ViewOf(plan, spec, f);
    if (spec.pooling == Pooling::kMax) {
      RunBestSimd<PoolMax>(view, plan.features[f].chosen.data(), pooled + spec.offset, stride, rows);
    } else {
      RunBestSimd<Pool>(view, pooled + spec.offset, stride, rows);
    }
  }
  return Status::Ok();
}

// The signs that a feature was the first to bring are all its signs, each once; unless it shares them with a feature
// before it, which may have brought some: then its ids are counted one by one.
void EmbeddingWorker::CountIds(const EmbeddingPlan& plan) const {
  for (size_t f = 0; f < schema_.features.size(); ++f) {
    if (schema_.features[f].hash_rounds > 0) continue;  // its signs are buckets, not ids
    const EmbeddingPlan::Feature& feature = plan.features[f];
    const uint64_t* signs = plan.classes[schema_.features[f].row_class].signs.data();
    HyperLogLog& seen = seen_[f];
    if (shares_signs_[f]) {
      for (const uint32_t position : feature.positions.span()) seen.Add(Mix64(signs[position]));
    } else {
      for (uint32_t i = feature.new_begin; i < feature.new_end; ++i) seen.Add(Mix64(signs[i]));
    }
  }
}

uint64_t EmbeddingWorker::distinct_ids(size_t feature) const {
  return static_cast<uint64_t>(std::llround(seen_[feature].Estimate()));
}

void EmbeddingWorker::Aggregate(EmbeddingPlan& plan, const float* gradients, size_t stride) const {
  PERSIA_CHECK(stride >= schema_.embedding_width);
  for (EmbeddingPlan::Class& row_class : plan.classes) row_class.rows.Fill(0.0f);
  for (size_t f = 0; f < schema_.features.size(); ++f) {
    const FeatureSpec& spec = schema_.features[f];
    if (spec.frozen) continue;
    float* rows = plan.classes[spec.row_class].rows.data();
    const FeatureView view = ViewOf(plan, spec, f);
    if (spec.pooling == Pooling::kMax) {
      RunBestSimd<UnpoolMax>(view, plan.features[f].chosen.data(), gradients + spec.offset, stride, rows);
    } else {
      RunBestSimd<Unpool>(view, gradients + spec.offset, stride, rows);
    }
  }
  plan.updates.clear();
  for (uint32_t c = 0; c < plan.classes.size(); ++c) {
    EmbeddingPlan::Class& row_class = plan.classes[c];
    float* rows = row_class.rows.data();
    plan.updates.push_back({c, {row_class.signs.data(), row_class.trained}, rows});
  }
}

void EmbeddingWorker::Skip(EmbeddingPlan& plan) const {
  plan.updates.clear();
  for (uint32_t c = 0; c < plan.classes.size(); ++c) plan.updates.push_back({c, {}, nullptr});
}

void EmbeddingWorker::Clip(EmbeddingPlan& plan) const {
  for (size_t c = 0; c < plan.classes.size(); ++c) {
    ClipRows(plan.classes[c].trained, schema_.row_class_dims[c], schema_.clip_norm, plan.classes[c].rows.data());
  }
}

Status EmbeddingWorker::Apply(RequestId id, EmbeddingPlan& plan, const float* gradients, size_t stride) const {
  Aggregate(plan, gradients, stride);
  Clip(plan);
  return rows_.Apply(id, plan.updates);
}

}  // namespace persia
