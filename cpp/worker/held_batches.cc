#include "worker/held_batches.h"

#include <algorithm>
#include <string>
#include <utility>

namespace persia {
namespace {

class LocalEmbeddings final : public StepEmbeddings {
 public:
  LocalEmbeddings(uint32_t rank, HeldBatches& batches, StepStore& store)
      : rank_(rank), batches_(batches), store_(store) {}

  Status Lookup(uint64_t step, uint32_t rows, float* pooled, size_t stride) override {
    return batches_.Lookup({step, rank_}, rows, pooled, stride);
  }
  Status Update(uint64_t step, uint32_t rows, const float* gradients, size_t stride) override {
    return batches_.Update({step, rank_}, rows, gradients, stride);
  }
  Status Skip(uint64_t step, uint32_t rows) override { return batches_.Skip({step, rank_}, rows); }
  void Leave() override { store_.Leave(rank_); }

 private:
  const uint32_t rank_;
  HeldBatches& batches_;
  StepStore& store_;
};

}  // namespace

HeldBatches::HeldBatches(const EmbeddingWorker& worker, EmbeddingRows& rows, bool clips)
    : worker_(worker), rows_(rows), clips_(clips) {}

void HeldBatches::Hold(PartRef ref, const Batch& part) {
  Forget(ref);
  Plan plan = TakePlan();
  worker_.Prepare(part, *plan);
  std::lock_guard lock(mutex_);
  held_.push_back({ref, std::move(plan)});
}

Status HeldBatches::Lookup(PartRef ref, uint32_t rows, float* pooled, size_t stride) {
  Result<Plan> plan = Find(ref, rows);
  if (!plan.ok()) return plan.status();
  return worker_.Lookup({ref.rank, ref.step}, LookupMode::kTrain, **plan, pooled, stride);
}

Status HeldBatches::Update(PartRef ref, uint32_t rows, const float* gradients, size_t stride) {
  Result<Plan> plan = Find(ref, rows);
  if (!plan.ok()) return plan.status();
  worker_.Aggregate(**plan, gradients, stride);
  if (clips_) worker_.Clip(**plan);
  return Apply(ref, std::move(*plan));
}

Status HeldBatches::Skip(PartRef ref, uint32_t rows) {
  Result<Plan> plan = Find(ref, rows);
  if (!plan.ok()) return plan.status();
  worker_.Skip(**plan);
  return Apply(ref, std::move(*plan));
}

Status HeldBatches::Apply(PartRef ref, Plan plan) {
  PERSIA_RETURN_IF_ERROR(rows_.Apply({ref.rank, ref.step}, plan->updates));
  plan.reset();  // Forget keeps what nobody uses
  Forget(ref);
  return Status::Ok();
}

void HeldBatches::Drop(uint32_t rank) {
  std::lock_guard lock(mutex_);
  std::erase_if(held_, [rank](const Held& one) { return one.ref.rank == rank; });
}

size_t HeldBatches::held() const {
  std::lock_guard lock(mutex_);
  return held_.size();
}

HeldBatches::Plan HeldBatches::TakePlan() {
  std::lock_guard lock(mutex_);
  if (free_.empty()) return std::make_shared<EmbeddingPlan>();
  Plan plan = std::move(free_.back());
  free_.pop_back();
  return plan;
}

Result<HeldBatches::Plan> HeldBatches::Find(PartRef ref, uint32_t rows) {
  std::lock_guard lock(mutex_);
  const auto held = std::ranges::find(held_, ref, &Held::ref);
  if (held != held_.end() && held->plan->rows == rows) return held->plan;
  const std::string found =
      held == held_.end() ? "are not held here" : "are of " + std::to_string(held->plan->rows) + " samples";
  return Status(ErrorCode::kUsage, "The ids of step " + std::to_string(ref.step) + " for NN worker " +
                                       std::to_string(ref.rank) + ", of " + std::to_string(rows) + " samples, " + found)
      .With("step", std::to_string(ref.step))
      .With("rank", std::to_string(ref.rank));
}

void HeldBatches::Forget(PartRef ref) {
  std::lock_guard lock(mutex_);
  const auto held = std::ranges::find(held_, ref, &Held::ref);
  if (held == held_.end()) return;
  if (held->plan.use_count() == 1) free_.push_back(std::move(held->plan));
  held_.erase(held);
}

std::unique_ptr<StepEmbeddings> MakeLocalEmbeddings(uint32_t rank, HeldBatches& batches, StepStore& store) {
  return std::make_unique<LocalEmbeddings>(rank, batches, store);
}

}  // namespace persia
