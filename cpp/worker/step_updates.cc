#include "worker/step_updates.h"

#include <algorithm>
#include <string>

#include "base/copy.h"

namespace persia {

StepUpdates::StepUpdates(const FeatureSchema& schema, ParameterStore& store, RowStaleness& staleness, uint32_t parts)
    : schema_(schema),
      store_(store),
      staleness_(staleness),
      parts_(parts),
      brought_(parts),
      merged_(schema.row_class_dims.size()) {
  PERSIA_CHECK(parts > 0);
}

Status StepUpdates::Apply(RequestId id, EmbeddingPlan& plan) {
  staleness_.BeforeUpdate(plan.sampled);
  if (parts_ == 1) {
    for (size_t c = 0; c < plan.classes.size(); ++c) {
      ClipRows(plan.classes[c].trained, schema_.row_class_dims[c], schema_.clip_norm, plan.classes[c].rows.data());
    }
    return Send(id, plan.updates);
  }
  std::unique_lock lock(mutex_);
  PERSIA_CHECK(id.worker < parts_ && brought_[id.worker] == nullptr);
  brought_[id.worker] = &plan;
  if (++count_ == parts_) {
    result_ = ApplyMerged(id.sequence);
    std::fill(brought_.begin(), brought_.end(), nullptr);
    count_ = 0;
    ++rounds_;
    changed_.notify_all();
    return result_;
  }
  const uint64_t round = rounds_;
  changed_.wait(lock, [&] { return rounds_ != round || left_; });
  if (rounds_ != round) return result_;
  brought_[id.worker] = nullptr;
  --count_;
  return Status(ErrorCode::kAborted, "step " + std::to_string(id.sequence) + " was not applied: NN worker " +
                                         std::to_string(*left_) + " ended before it")
      .With("step", std::to_string(id.sequence))
      .With("rank", std::to_string(*left_));
}

void StepUpdates::Leave(uint32_t rank) {
  {
    std::lock_guard lock(mutex_);
    if (!left_) left_ = rank;
  }
  changed_.notify_all();
}

Status StepUpdates::ApplyMerged(uint64_t step) {
  blocks_.clear();
  for (uint32_t c = 0; c < merged_.size(); ++c) {
    Merge(c);
    Merged& merged = merged_[c];
    blocks_.push_back({c, {merged.signs.data(), merged.dedup.distinct()}, merged.gradients.data()});
  }
  return Send({0, step}, blocks_);
}

// The first part with a sign brings its gradient, later ones add theirs.
void StepUpdates::Merge(uint32_t row_class) {
  const size_t dim = schema_.row_class_dims[row_class];
  size_t most = 0;
  for (const EmbeddingPlan* plan : brought_) most += plan->classes[row_class].trained;
  Merged& merged = merged_[row_class];
  merged.signs.Resize(most);
  merged.gradients.Resize(most * dim);
  merged.dedup.Reset(most);
  for (const EmbeddingPlan* plan : brought_) {
    const EmbeddingPlan::Class& part = plan->classes[row_class];
    for (uint32_t i = 0; i < part.trained; ++i) {
      const uint32_t known = merged.dedup.distinct();
      const uint32_t place = merged.dedup.Insert(part.signs[i], merged.signs.data());
      const float* __restrict from = part.rows.data() + i * dim;
      float* __restrict to = merged.gradients.data() + place * dim;
      if (place == known) {
        CopyFloats(to, from, dim);
      } else {
        for (size_t d = 0; d < dim; ++d) to[d] += from[d];
      }
    }
  }
  ClipRows(merged.dedup.distinct(), static_cast<uint32_t>(dim), schema_.clip_norm, merged.gradients.data());
}

Status StepUpdates::Send(RequestId id, std::span<const GradientBlock> blocks) {
  PERSIA_RETURN_IF_ERROR(store_.Apply(id, blocks));
  for (const GradientBlock& block : blocks) staleness_.Updated(block.row_class, block.signs);
  return Status::Ok();
}

}  // namespace persia
