#include "worker/embedding_worker.h"

#include <algorithm>
#include <cmath>

#include "base/cpu.h"
#include "base/hash.h"

namespace persia {
namespace {

// One feature of a batch with everything a kernel needs.
struct FeatureView {
  uint32_t samples;
  uint32_t dim;
  Pooling pooling;
  const uint32_t* offsets;    // (samples + 1)
  const uint32_t* positions;  // (offsets[samples])
};

PERSIA_ALWAYS_INLINE float ScaleOf(Pooling pooling, uint32_t ids) {
  switch (pooling) {
    case Pooling::kSum:
      return 1.0f;
    case Pooling::kMean:
      return 1.0f / static_cast<float>(ids);
    case Pooling::kSqrt:
      return 1.0f / std::sqrt(static_cast<float>(ids));
  }
  return 1.0f;
}

struct Pool {
  // `rows` is (distinct, dim), sample i goes to pooled + i·stride.
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, float* __restrict pooled, size_t stride,
                                       const float* __restrict rows) {
    const size_t dim = view.dim;
    for (uint32_t i = 0; i < view.samples; ++i) {
      const uint32_t begin = view.offsets[i], end = view.offsets[i + 1];
      float* __restrict to = pooled + i * stride;
      if (begin == end) {
        for (size_t d = 0; d < dim; ++d) to[d] = 0.0f;
        continue;
      }
      const float* first = rows + view.positions[begin] * dim;
      for (size_t d = 0; d < dim; ++d) to[d] = first[d];
      if (end - begin == 1) continue;
      for (uint32_t k = begin + 1; k < end; ++k) {
        const float* row = rows + view.positions[k] * dim;
        for (size_t d = 0; d < dim; ++d) to[d] += row[d];
      }
      const float scale = ScaleOf(view.pooling, end - begin);
      for (size_t d = 0; d < dim; ++d) to[d] *= scale;
    }
  }
};

struct Unpool {
  // The transpose: adds the gradient of each sample, gradients + i·stride, to its rows.
  static PERSIA_ALWAYS_INLINE void Run(const FeatureView& view, const float* __restrict gradients, size_t stride,
                                       float* __restrict rows) {
    const size_t dim = view.dim;
    for (uint32_t i = 0; i < view.samples; ++i) {
      const uint32_t begin = view.offsets[i], end = view.offsets[i + 1];
      const float* gradient = gradients + i * stride;
      const float scale = ScaleOf(view.pooling, end - begin);
      for (uint32_t k = begin; k < end; ++k) {
        float* row = rows + view.positions[k] * dim;
        for (size_t d = 0; d < dim; ++d) row[d] += scale * gradient[d];
      }
    }
  }
};

template <typename Body, typename Matrix, typename Rows>
PERSIA_TARGET_AVX2 void RunAvx2(const FeatureView& view, Matrix* matrix, size_t stride, Rows* rows) {
  Body::Run(view, matrix, stride, rows);
}

template <typename Body, typename Matrix, typename Rows>
void RunBest(const FeatureView& view, Matrix* matrix, size_t stride, Rows* rows) {
  if (HasAvx2()) {
    RunAvx2<Body>(view, matrix, stride, rows);
  } else {
    Body::Run(view, matrix, stride, rows);
  }
}

FeatureView ViewOf(const EmbeddingPlan& plan, const FeatureSpec& spec, size_t feature) {
  const EmbeddingPlan::Feature& ids = plan.features[feature];
  return {plan.rows, spec.dim, spec.pooling, ids.offsets.data(), ids.positions.data()};
}

// Makes room for the batch in the plan's buffers and starts the distinct signs of each row class.
void StartPlan(const Batch& batch, const FeatureSchema& schema, EmbeddingPlan& plan) {
  const size_t classes = schema.row_class_dims.size();
  plan.rows = batch.rows;
  plan.classes.resize(classes);
  plan.dedup.resize(classes);
  plan.features.resize(schema.features.size());
  for (EmbeddingPlan::Class& row_class : plan.classes) row_class.distinct = 0;
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const size_t ids = batch.id_columns[f].ids.size();
    plan.features[f].offsets.Resize(size_t{batch.rows} + 1);
    plan.features[f].positions.Resize(ids);
    plan.classes[schema.features[f].row_class].distinct += static_cast<uint32_t>(ids);  // at most, so far
  }
  for (size_t c = 0; c < classes; ++c) {
    plan.classes[c].signs.Resize(plan.classes[c].distinct);
    plan.dedup[c].Reset(plan.classes[c].distinct);
  }
}

std::vector<bool> SharesSigns(const std::vector<FeatureSpec>& features) {
  std::vector<bool> shares;
  for (auto feature = features.begin(); feature != features.end(); ++feature) {
    shares.push_back(std::any_of(features.begin(), feature, [&](const FeatureSpec& before) {
      return before.group == feature->group && before.row_class == feature->row_class;
    }));
  }
  return shares;
}

}  // namespace

EmbeddingWorker::EmbeddingWorker(const FeatureSchema& schema, ParameterStore& store)
    : schema_(schema), store_(store), shares_signs_(SharesSigns(schema.features)), seen_(schema.features.size()) {
  PERSIA_CHECK(store.row_class_count() == schema.row_class_dims.size());
}

void EmbeddingWorker::Prepare(const Batch& batch, EmbeddingPlan& plan) const {
  StartPlan(batch, schema_, plan);
  for (size_t f = 0; f < schema_.features.size(); ++f) {
    const FeatureSpec& spec = schema_.features[f];
    const IdColumn& column = batch.id_columns[f];
    EmbeddingPlan::Feature& feature = plan.features[f];
    for (uint32_t row = 0; row < batch.rows; ++row) feature.offsets[row] = column.begin(row);
    feature.offsets[batch.rows] = static_cast<uint32_t>(column.ids.size());

    Deduplicator& dedup = plan.dedup[spec.row_class];
    uint64_t* signs = plan.classes[spec.row_class].signs.data();
    feature.new_begin = dedup.distinct();
    for (size_t i = 0; i < column.ids.size(); ++i) {
      feature.positions[i] = dedup.Insert(MakeSign(column.ids[i], spec.group, schema_.prefix_bits), signs);
    }
    feature.new_end = dedup.distinct();
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
  PERSIA_RETURN_IF_ERROR(store_.Lookup(id, mode, plan.lookups));
  if (mode == LookupMode::kTrain) CountIds(plan);
  for (size_t f = 0; f < schema_.features.size(); ++f) {
    const FeatureSpec& spec = schema_.features[f];
    const float* rows = plan.classes[spec.row_class].rows.data();
    RunBest<Pool>(ViewOf(plan, spec, f), pooled + spec.offset, stride, rows);
  }
  return Status::Ok();
}

// The signs that a feature was the first to bring are all its signs, each once; unless it shares them with a feature
// before it, which may have brought some: then its ids are counted one by one.
void EmbeddingWorker::CountIds(const EmbeddingPlan& plan) const {
  for (size_t f = 0; f < schema_.features.size(); ++f) {
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
    float* rows = plan.classes[spec.row_class].rows.data();
    RunBest<Unpool>(ViewOf(plan, spec, f), gradients + spec.offset, stride, rows);
  }
  plan.updates.clear();
  for (uint32_t c = 0; c < plan.classes.size(); ++c) {
    EmbeddingPlan::Class& row_class = plan.classes[c];
    plan.updates.push_back({c, {row_class.signs.data(), row_class.distinct}, row_class.rows.data()});
  }
}

Status EmbeddingWorker::Apply(RequestId id, EmbeddingPlan& plan, const float* gradients, size_t stride) const {
  Aggregate(plan, gradients, stride);
  return store_.Apply(id, plan.updates);
}

}  // namespace persia
