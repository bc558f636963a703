#include "trainer/nn_worker.h"

#include <string>
#include <utility>

#include "base/copy.h"
#include "base/named_thread.h"

namespace persia {
namespace {

// Batches that are prepared ahead of the staleness gate, so that a lookup never waits for preparation.
constexpr uint64_t kPreparedAhead = 2;

}  // namespace

PartRows PartOfWorker(uint32_t batch_rows, uint32_t rank, uint32_t workers) {
  const auto start = [&](uint32_t part) { return static_cast<uint32_t>(uint64_t{batch_rows} * part / workers); };
  return {start(rank), start(rank + 1) - start(rank)};
}

NnWorker::NnWorker(const Config& config, const Shared& shared, std::unique_ptr<DenseTraining> dense, Events events)
    : config_(config),
      shared_(shared),
      dense_(std::move(dense)),
      events_(std::move(events)),
      gate_(config.staleness, config.schedule),
      free_(config.staleness + 1 + kPreparedAhead),
      to_lookup_(config.staleness + 1 + kPreparedAhead),
      to_train_(config.staleness + 1 + kPreparedAhead),
      to_apply_(config.staleness + 1 + kPreparedAhead),
      lookup_meter_("lookup", config.rank, config.trace_spans),
      train_meter_("train", config.rank, config.trace_spans),
      apply_meter_("apply", config.rank, config.trace_spans) {
  for (uint64_t i = 0; i < config.staleness + 1 + kPreparedAhead; ++i) {
    slots_.push_back(std::make_unique<StepSlot>());
    free_.Push(slots_.back().get());
  }
}

NnWorker::~NnWorker() { PERSIA_CHECK(threads_.empty()); }

void NnWorker::Start() {
  const std::string rank = std::to_string(config_.rank);
  threads_.push_back(StartThread("lookup-" + rank, [this] { LookupLoop(); }));
  threads_.push_back(StartThread("train-" + rank, [this] { TrainLoop(); }));
  threads_.push_back(StartThread("apply-" + rank, [this] { ApplyLoop(); }));
}

void NnWorker::Stop(const Status& reason) {
  gate_.Stop();
  free_.Close();
  to_lookup_.Close();
  dense_->Abort(reason);
}

void NnWorker::Join() {
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) thread->join();
  threads_.clear();
}

// ---- stages ---------------------------------------------------------------------------------------------------------

void NnWorker::LookupLoop() {
  while (std::optional<StepSlot*> slot = to_lookup_.Pop()) {
    const uint64_t step = (*slot)->step;
    lookup_meter_.Queued(to_lookup_.size() + 1);
    lookup_meter_.Enter(Activity::kHeld);
    if (!gate_.BeginLookup(step) || !EnterTurn(step)) break;
    lookup_meter_.Enter(Activity::kBusy, step);
    if (Status status = LookupStep(**slot); !status.ok()) {
      events_.failed(std::move(status));
      break;
    }
    lookup_meter_.Enter(Activity::kIdle);  // before anybody can go on with the step
    if (shared_.turns != nullptr) shared_.turns->Leave();
    {
      std::lock_guard lock(mutex_);
      looked_up_[step] = *slot;
    }
    gate_.EndLookup(step);
    to_train_.Push(*slot);
    events_.moved();
  }
  to_train_.Close();
}

void NnWorker::TrainLoop() {
  while (std::optional<StepSlot*> slot = to_train_.Pop()) {
    const uint64_t step = (*slot)->step;
    train_meter_.Queued(to_train_.size() + 1);
    train_meter_.Enter(Activity::kHeld);
    if (!gate_.BeginTrain(step)) break;
    {
      std::lock_guard lock(mutex_);
      looked_up_.erase(step);
    }
    train_meter_.Enter(Activity::kBusy, step);
    if (Status status = TrainStep(**slot); !status.ok()) {
      events_.failed(std::move(status));
      break;
    }
    train_meter_.Enter(Activity::kIdle);
    gate_.EndTrain(step);
    to_apply_.Push(*slot);
  }
  to_apply_.Close();
}

void NnWorker::ApplyLoop() {
  while (std::optional<StepSlot*> slot = to_apply_.Pop()) {
    const uint64_t step = (*slot)->step;
    apply_meter_.Queued(to_apply_.size() + 1);
    apply_meter_.Enter(Activity::kHeld);
    gate_.BeginApply(step);
    apply_meter_.Enter(Activity::kBusy, step);
    if (Status status = ApplyStep(**slot); !status.ok()) {
      events_.failed(std::move(status));
      break;
    }
    apply_meter_.Enter(Activity::kIdle);
    gate_.EndApply(step);
    free_.Push(*slot);
    events_.moved();
  }
  shared_.updates.Leave(config_.rank);
  events_.ended();
}

bool NnWorker::EnterTurn(uint64_t step) {
  return shared_.turns == nullptr || shared_.turns->Enter(step * config_.workers + config_.rank);
}

Status NnWorker::LookupStep(StepSlot& slot) {
  std::optional<Restored> restored;
  {
    std::lock_guard lock(mutex_);
    if (auto node = restored_.extract(slot.step)) restored = std::move(node.mapped());
  }
  slot.plan.sampled.clear();
  if (restored) return UseRestored(slot, *restored);
  for (uint32_t c = 0; c < slot.plan.classes.size(); ++c) {
    const EmbeddingPlan::Class& row_class = slot.plan.classes[c];
    shared_.staleness.LookedUp(c, {row_class.signs.data(), row_class.trained}, &slot.plan.sampled);
  }
  return shared_.embeddings.Lookup({config_.sender, slot.step}, LookupMode::kTrain, slot.plan, slot.input.data(),
                                   config_.input_width);
}

Status NnWorker::UseRestored(StepSlot& slot, const Restored& restored) const {
  const size_t width = config_.embedding_width;
  if (restored.global_rows != slot.global_rows) {
    return Status(ErrorCode::kCheckpointMismatch, "step " + std::to_string(slot.step) + " has " +
                  std::to_string(slot.global_rows) + " samples, the checkpoint saw " +
                  std::to_string(restored.global_rows) +
                  ": the training data, batchSize, accumulate or cluster.nnWorkers has changed since");
  }
  for (size_t row = 0; row < slot.rows; ++row) {
    CopyFloats(slot.input.data() + row * config_.input_width, restored.pooled.data() + row * width, width);
  }
  return Status::Ok();
}

Status NnWorker::TrainStep(StepSlot& slot) {
  DenseOutcome outcome;
  const DensePart part{slot.step, slot.step + static_cast<uint64_t>(dense_ahead_), slot.rows, slot.global_rows,
                       slot.input.data(), slot.labels.data(), slot.embedding_gradient.data()};
  if (Status status = dense_->Train(part, &outcome); !status.ok()) {
    return Status(status.code(), "step " + std::to_string(slot.step) + ": " + status.message())
        .With("step", std::to_string(slot.step));
  }
  slot.skipped = outcome.skipped;
  events_.trained(outcome.loss, static_cast<double>(slot.rows) / slot.global_rows);
  return Status::Ok();
}

Status NnWorker::ApplyStep(StepSlot& slot) {
  if (slot.skipped) {
    shared_.embeddings.Skip(slot.plan);
  } else {
    shared_.embeddings.Aggregate(slot.plan, slot.embedding_gradient.data(), config_.embedding_width);
  }
  PERSIA_RETURN_IF_ERROR(shared_.updates.Apply({config_.rank, slot.step}, slot.plan));
  events_.applied(slot.rows);
  return Status::Ok();
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

std::vector<InFlight> NnWorker::in_flight() const {
  std::map<uint64_t, InFlight> steps;
  std::lock_guard lock(mutex_);
  for (const auto& [step, slot] : looked_up_) {
    steps[step] = {step, slot->global_rows, slot->first_row, slot->rows, slot->input.data(), config_.input_width};
  }
  for (const auto& [step, restored] : restored_) {
    const PartRows part = PartOfWorker(restored.global_rows, config_.rank, config_.workers);
    steps[step] = {step, restored.global_rows, part.begin, part.rows, restored.pooled.data(), config_.embedding_width};
  }
  std::vector<InFlight> in_flight;
  for (const auto& [step, lookup] : steps) in_flight.push_back(lookup);
  return in_flight;
}

void NnWorker::StartAfter(uint64_t step, int64_t dense_ahead) {
  gate_.StartAfter(step);
  dense_ahead_ = dense_ahead;
}

void NnWorker::RestoreLookup(uint64_t step, uint32_t global_rows, AlignedBuffer<float> pooled) {
  std::lock_guard lock(mutex_);
  restored_[step] = {global_rows, std::move(pooled)};
}

}  // namespace persia
