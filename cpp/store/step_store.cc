#include "store/step_store.h"

#include <algorithm>
#include <condition_variable>
#include <string>
#include <utility>

#include "base/copy.h"
#include "store/clip_rows.h"

namespace persia {

StepStore::StepStore(std::vector<uint32_t> dims, ParameterStore& store, const Options& options)
    : dims_(std::move(dims)),
      store_(store),
      options_(options),
      staleness_(options.row_staleness_one_in),
      ranks_(options.ranks),
      merged_(dims_.size()) {
  PERSIA_CHECK(options.ranks > 0 && store.row_class_count() == dims_.size());
}

// ---- lookups --------------------------------------------------------------------------------------------------------

Status StepStore::Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) {
  if (mode == LookupMode::kTrain) Sample(id, blocks);
  return store_.Lookup({options_.merges ? 0 : id.worker, id.sequence}, mode, blocks);
}

void StepStore::Sample(RequestId id, std::span<const LookupBlock> blocks) {
  if (id.worker >= ranks_.size()) return;
  std::lock_guard lock(samples_mutex_);
  std::vector<Looked>& looked = ranks_[id.worker].looked;
  auto entry = std::ranges::find(looked, uint64_t{0}, &Looked::step);
  if (entry == looked.end()) {
    const bool full = looked.size() >= kMostLooked;
    entry = full ? std::ranges::min_element(looked, {}, &Looked::step) : looked.insert(looked.end(), {0, {}});
  }
  entry->step = id.sequence;
  entry->samples.resize(dims_.size());
  for (auto& samples : entry->samples) samples.clear();
  for (const LookupBlock& block : blocks) {
    if (block.row_class >= dims_.size()) continue;  // the store refuses it
    staleness_.LookedUp(block.row_class, block.signs, &entry->samples[block.row_class]);
  }
}

void StepStore::Measure(RequestId id, std::span<const GradientBlock> blocks) {
  std::lock_guard lock(samples_mutex_);
  std::vector<Looked>& looked = ranks_[id.worker].looked;
  const auto entry = std::ranges::find(looked, id.sequence, &Looked::step);
  if (entry == looked.end()) return;  // looked up before a checkpoint
  for (const GradientBlock& block : blocks) {
    staleness_.BeforeUpdate(block.row_class, block.signs, entry->samples[block.row_class]);
  }
  entry->step = 0;
}

// ---- updates --------------------------------------------------------------------------------------------------------

Status StepStore::Apply(RequestId id, std::span<const GradientBlock> blocks) {
  struct Waiter {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    Status status;
  } waiter;
  Bring(id, blocks, [&waiter](const Status& status) {
    std::lock_guard lock(waiter.mutex);  // held while it notifies: the waiter lives until then
    waiter.status = status;
    waiter.done = true;
    waiter.changed.notify_one();
  });
  std::unique_lock lock(waiter.mutex);
  waiter.changed.wait(lock, [&] { return waiter.done; });
  return waiter.status;
}

Status StepStore::CheckPart(RequestId id, std::span<const GradientBlock> blocks) const {
  if (id.worker >= ranks_.size()) {
    return Status(ErrorCode::kInternal, "An update of NN worker " + std::to_string(id.worker) + " of " +
                                            std::to_string(ranks_.size()) + ".");
  }
  if (id.sequence == 0) return Status(ErrorCode::kInternal, "An update of step 0: steps are counted from 1.");
  for (const GradientBlock& block : blocks) {
    if (block.row_class < dims_.size()) continue;
    return Status(ErrorCode::kInternal, "An update names row class " + std::to_string(block.row_class) + " of " +
                                            std::to_string(dims_.size()) + ".");
  }
  return Status::Ok();
}

void StepStore::Bring(RequestId id, std::span<const GradientBlock> blocks, Done done) {
  if (Status status = CheckPart(id, blocks); !status.ok()) return done(status);
  if (!options_.merges) {
    Measure(id, blocks);
    return done(Send(id, blocks));
  }
  std::vector<Done> hear;
  Status result;
  {
    std::lock_guard lock(mutex_);
    Part& part = ranks_[id.worker].part;
    if (id.sequence <= applied_ && part.step != id.sequence) {
      hear.push_back(std::move(done));  // a retry of what was applied already
    } else if (part.step != 0) {
      result = Status(ErrorCode::kInternal, "NN worker " + std::to_string(id.worker) + " updates step " +
                                                std::to_string(id.sequence) + " before step " +
                                                std::to_string(part.step) + " is applied.");
      hear.push_back(std::move(done));
    } else if (left_) {
      result = LeftStatus(id.sequence);
      hear.push_back(std::move(done));
    } else {
      Measure(id, blocks);
      part = {id.sequence, blocks, std::move(done)};
      if (++brought_ < ranks_.size()) return;
      result = ApplyMerged(id.sequence);
      hear = TakeParts();
    }
  }
  for (const Done& one : hear) one(result);
}

void StepStore::Leave(uint32_t rank) {
  std::vector<Done> hear;
  Status status;
  {
    std::lock_guard lock(mutex_);
    if (left_) return;
    left_ = rank;
    if (brought_ == 0) return;
    uint64_t step = 0;
    for (const Rank& one : ranks_) step = std::max(step, one.part.step);
    status = LeftStatus(step);
    hear = TakeParts();
  }
  for (const Done& one : hear) one(status);
}

void StepStore::StartAfter(uint64_t step) {
  std::lock_guard lock(mutex_);
  applied_ = step;
}

Status StepStore::LeftStatus(uint64_t step) const {
  return Status(ErrorCode::kAborted, "step " + std::to_string(step) + " was not applied: NN worker " +
                                         std::to_string(*left_) + " ended before it")
      .With("step", std::to_string(step))
      .With("rank", std::to_string(*left_));
}

std::vector<StepStore::Done> StepStore::TakeParts() {
  std::vector<Done> done;
  for (Rank& rank : ranks_) {
    if (rank.part.step != 0) done.push_back(std::move(rank.part.done));
    rank.part = {};
  }
  brought_ = 0;
  return done;
}

Status StepStore::ApplyMerged(uint64_t step) {
  for (const Rank& rank : ranks_) {
    if (rank.part.step == step) continue;
    return Status(ErrorCode::kInternal, "The parts of steps " + std::to_string(step) + " and " +
                                            std::to_string(rank.part.step) + " came together.");
  }
  blocks_.clear();
  for (uint32_t c = 0; c < merged_.size(); ++c) {
    Merge(c);
    Merged& merged = merged_[c];
    blocks_.push_back({c, {merged.signs.data(), merged.dedup.distinct()}, merged.gradients.data()});
  }
  PERSIA_RETURN_IF_ERROR(Send({0, step}, blocks_));
  applied_ = step;
  return Status::Ok();
}

// The first part with a sign brings its gradient, later ones add theirs.
void StepStore::Merge(uint32_t row_class) {
  const size_t dim = dims_[row_class];
  const auto for_blocks = [&](auto use) {
    for (const Rank& rank : ranks_) {
      for (const GradientBlock& block : rank.part.blocks) {
        if (block.row_class == row_class) use(block);
      }
    }
  };
  size_t most = 0;
  for_blocks([&](const GradientBlock& block) { most += block.signs.size(); });
  Merged& merged = merged_[row_class];
  merged.signs.Resize(most);
  merged.gradients.Resize(most * dim);
  merged.dedup.Reset(most);
  for_blocks([&](const GradientBlock& block) {
    for (size_t i = 0; i < block.signs.size(); ++i) {
      const uint32_t known = merged.dedup.distinct();
      const uint32_t place = merged.dedup.Insert(block.signs[i], merged.signs.data());
      const float* __restrict from = block.gradients + i * dim;
      float* __restrict to = merged.gradients.data() + place * dim;
      if (place == known) {
        CopyFloats(to, from, dim);
      } else {
        for (size_t d = 0; d < dim; ++d) to[d] += from[d];
      }
    }
  });
  ClipRows(merged.dedup.distinct(), static_cast<uint32_t>(dim), options_.clip_norm, merged.gradients.data());
}

Status StepStore::Send(RequestId id, std::span<const GradientBlock> blocks) {
  PERSIA_RETURN_IF_ERROR(store_.Apply(id, blocks));
  for (const GradientBlock& block : blocks) staleness_.Updated(block.row_class, block.signs);
  return Status::Ok();
}

}  // namespace persia
