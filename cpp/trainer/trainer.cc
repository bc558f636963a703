#include "trainer/trainer.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/copy.h"
#include "base/named_thread.h"
#include "dense/calibration.h"

namespace persia {
namespace {

// Batches that are prepared ahead of the staleness gate, so that a lookup never waits for preparation.
constexpr uint64_t kPreparedAhead = 2;
constexpr uint64_t kThisWorker = 0;

}  // namespace

Result<std::unique_ptr<Trainer>> Trainer::Create(TrainerConfig config) {
  PERSIA_CHECK(config.tables.size() == config.schema.row_class_dims.size());
  PERSIA_CHECK(config.dense.embedding_width == config.schema.embedding_width);
  auto model = MakeCpuDenseModel(config.dense);
  if (!model.ok()) return model.status();
  return std::unique_ptr<Trainer>(new Trainer(std::move(config), std::move(*model)));
}

Trainer::Trainer(TrainerConfig config, std::unique_ptr<DenseModel> model)
    : config_(std::move(config)),
      store_(std::make_unique<LocalStore>(config_.tables)),
      worker_(config_.schema, *store_),
      model_(std::move(model)),
      gate_(config_.staleness, config_.deterministic),
      intake_(std::numeric_limits<size_t>::max()),
      free_(config_.staleness + 1 + kPreparedAhead),
      to_lookup_(config_.staleness + 1 + kPreparedAhead),
      to_train_(config_.staleness + 1 + kPreparedAhead),
      to_apply_(config_.staleness + 1 + kPreparedAhead),
      predict_slot_(std::make_unique<StepSlot>()) {
  for (uint64_t i = 0; i < config_.staleness + 1 + kPreparedAhead; ++i) {
    slots_.push_back(std::make_unique<StepSlot>());
    free_.Push(slots_.back().get());
  }
  threads_.push_back(StartThread("persia-prepare", [this] { PrepareLoop(); }));
  threads_.push_back(StartThread("persia-lookup", [this] { LookupLoop(); }));
  threads_.push_back(StartThread("persia-train", [this] { TrainLoop(); }));
  threads_.push_back(StartThread("persia-apply", [this] { ApplyLoop(); }));
}

Trainer::~Trainer() { Close(); }

void Trainer::Close() {
  std::lock_guard lock(closing_);
  Fail(Status(ErrorCode::kClosed, "the trainer was closed"));
  intake_.Close();
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) thread->join();
  threads_.clear();
}

void Trainer::Push(std::shared_ptr<const Batch> batch, Completion accepted) {
  if (!intake_.Push({std::move(batch), accepted})) accepted(failure());
}

void Trainer::Drain(Completion done) {
  if (!intake_.Push({nullptr, done})) done(failure());
}

void Trainer::Pause(std::optional<uint64_t> at, Completion paused) {
  Status refused;
  {
    std::lock_guard lock(mutex_);
    refused = failure_;  // answered at once: a trainer that failed does not come to rest
    const std::optional<uint64_t> step = refused.ok() ? gate_.RequestPause(at) : std::nullopt;
    if (step) {
      pauses_.push_back({*step, std::move(paused)});
    } else if (refused.ok()) {
      refused = Status(ErrorCode::kUsage, "cannot pause after step " + std::to_string(*at) + ": it has passed");
    }
  }
  if (!refused.ok()) return paused(refused);
  Signal();
}

void Trainer::Resume() {
  {
    std::lock_guard lock(mutex_);
    if (holds_ == 0 || --holds_ > 0) return;
    gate_.Resume(NextPause());
  }
  Signal();
}

std::optional<uint64_t> Trainer::NextPause() const {
  std::optional<uint64_t> next;
  for (const Waiting& pause : pauses_) next = std::min(next.value_or(pause.step), pause.step);
  return next;
}

// ---- stages ---------------------------------------------------------------------------------------------------------

void Trainer::PrepareLoop() {
  while (std::optional<Intake> intake = intake_.Pop()) Accept(*intake);
}

void Trainer::Accept(Intake& intake) {
  if (intake.batch == nullptr) return AcceptDrain(std::move(intake.done));
  std::optional<StepSlot*> slot = free_.Pop();
  Status status = failure();
  if (status.ok()) status = PrepareStep(*intake.batch, **slot);
  if (status.ok()) {
    (*slot)->step = ++prepared_;
    to_lookup_.Push(*slot);
  } else if (slot) {
    free_.Push(*slot);
  }
  intake.batch.reset();
  intake.done(status);
}

void Trainer::AcceptDrain(Completion done) {
  std::vector<Completion> unreachable;
  Status refused;
  {
    std::lock_guard lock(mutex_);
    // After a failure, steps that are trained already are still applied: the drain is answered after them.
    if (finished_) refused = failure_;
    if (!finished_) drains_.push_back({prepared_, done});
    std::erase_if(pauses_, [&](Waiting& pause) {
      if (pause.step <= prepared_) return false;
      unreachable.push_back(std::move(pause.done));
      return true;
    });
    if (holds_ == 0 && !unreachable.empty()) gate_.Resume(NextPause());
  }
  for (Completion& paused : unreachable) paused(Status(ErrorCode::kAborted, "the step to pause after does not come"));
  if (!refused.ok()) return done(refused);
  gate_.Drain(prepared_);
  Signal();
}

void Trainer::LookupLoop() {
  while (std::optional<StepSlot*> slot = to_lookup_.Pop()) {
    const uint64_t step = (*slot)->step;
    if (!gate_.BeginLookup(step)) break;
    if (Status status = LookupStep(**slot); !status.ok()) {
      Fail(std::move(status));
      break;
    }
    {
      std::lock_guard lock(mutex_);
      looked_up_[step] = *slot;
    }
    gate_.EndLookup(step);
    to_train_.Push(*slot);
    Signal();
  }
  to_train_.Close();
}

void Trainer::TrainLoop() {
  while (std::optional<StepSlot*> slot = to_train_.Pop()) {
    if (!gate_.BeginTrain((*slot)->step)) break;
    {
      std::lock_guard lock(mutex_);
      looked_up_.erase((*slot)->step);
    }
    if (Status status = TrainStep(**slot); !status.ok()) {
      Fail(std::move(status));
      break;
    }
    to_apply_.Push(*slot);
  }
  to_apply_.Close();
}

void Trainer::ApplyLoop() {
  while (std::optional<StepSlot*> slot = to_apply_.Pop()) {
    const uint64_t step = (*slot)->step;
    gate_.BeginApply(step);
    if (Status status = ApplyStep(**slot); !status.ok()) {
      Fail(std::move(status));
      break;
    }
    gate_.EndApply(step);
    free_.Push(*slot);
    Signal();
  }
  FailWaiting();
}

Status Trainer::PrepareStep(const Batch& batch, StepSlot& slot) const {
  const DenseModelConfig& dense = config_.dense;
  const auto tasks = static_cast<uint32_t>(dense.tasks.size());
  const uint32_t label_count = &slot == predict_slot_.get() ? batch.label_count : tasks;
  PERSIA_RETURN_IF_ERROR(ValidateBatch(batch, config_.schema, dense.dense_count, label_count));
  if (label_count == tasks) PERSIA_RETURN_IF_ERROR(CheckLabels(batch));
  slot.rows = batch.rows;
  slot.input.Resize(size_t{batch.rows} * dense.input_width());
  slot.labels.Resize(batch.labels.size());
  slot.embedding_gradient.Resize(size_t{batch.rows} * dense.embedding_width);
  for (uint32_t row = 0; row < batch.rows; ++row) {
    CopyFloats(slot.input.data() + size_t{row} * dense.input_width() + dense.embedding_width,
               batch.dense.data() + size_t{row} * dense.dense_count, dense.dense_count);
  }
  CopyFloats(slot.labels.data(), batch.labels.data(), batch.labels.size());
  worker_.Prepare(batch, slot.plan);
  return Status::Ok();
}

// Labels of a bce task are probabilities.
Status Trainer::CheckLabels(const Batch& batch) const {
  const auto& tasks = config_.dense.tasks;
  for (size_t i = 0; i < batch.labels.size(); ++i) {
    const TaskSpec& task = tasks[i % tasks.size()];
    if (task.loss != Loss::kBce || (batch.labels[i] >= 0.0f && batch.labels[i] <= 1.0f)) continue;
    const std::string row = std::to_string(i / tasks.size());
    return Status(ErrorCode::kBatchInvalid, "The label " + task.label + " of sample " + row + " is " +
                                                std::to_string(batch.labels[i]) + "; a bce task takes 0 to 1.")
        .With("label", task.label)
        .With("sample", row);
  }
  return Status::Ok();
}

Status Trainer::LookupStep(StepSlot& slot) {
  const size_t stride = config_.dense.input_width();
  std::optional<AlignedBuffer<float>> restored;
  {
    std::lock_guard lock(mutex_);
    if (auto node = restored_lookups_.extract(slot.step)) restored = std::move(node.mapped());
  }
  if (!restored) {
    return worker_.Lookup({kThisWorker, slot.step}, LookupMode::kTrain, slot.plan, slot.input.data(), stride);
  }
  const size_t width = config_.schema.embedding_width;
  if (restored->size() != slot.rows * width) {
    return Status(ErrorCode::kCheckpointMismatch, "step " + std::to_string(slot.step) + " has " +
                  std::to_string(slot.rows) + " samples, the checkpoint saw " +
                  std::to_string(restored->size() / width) + ": the training data has changed since");
  }
  for (size_t row = 0; row < slot.rows; ++row) {
    CopyFloats(slot.input.data() + row * stride, restored->data() + row * width, width);
  }
  return Status::Ok();
}

Status Trainer::TrainStep(StepSlot& slot) {
  double loss = 0.0;
  {
    std::lock_guard lock(model_mutex_);
    Status status = model_->ForwardBackward(slot.rows, slot.input.data(), slot.labels.data(),
                                            slot.embedding_gradient.data(), &loss);
    if (!status.ok()) {
      return Status(status.code(), "step " + std::to_string(slot.step) + ": " + status.message())
          .With("step", std::to_string(slot.step));
    }
    PERSIA_RETURN_IF_ERROR(model_->ApplyGradients(slot.step));
  }
  std::lock_guard lock(mutex_);
  totals_.loss_sum += loss;
  totals_.loss_steps += 1;
  return Status::Ok();
}

Status Trainer::ApplyStep(StepSlot& slot) {
  PERSIA_RETURN_IF_ERROR(worker_.Apply({kThisWorker, slot.step}, slot.plan, slot.embedding_gradient.data(),
                                       config_.schema.embedding_width));
  std::lock_guard lock(mutex_);
  totals_.steps = slot.step;
  totals_.samples += slot.rows;
  return Status::Ok();
}

// ---- completions and failure ----------------------------------------------------------------------------------------

void Trainer::Signal() {
  std::vector<Completion> ready;
  {
    std::lock_guard lock(mutex_);
    const GateState state = gate_.state();
    auto take = [&](std::vector<Waiting>& waiting, auto holds) {
      return std::erase_if(waiting, [&](Waiting& one) {
        if (!holds(one)) return false;
        ready.push_back(std::move(one.done));
        return true;
      });
    };
    take(drains_, [&](const Waiting& drain) { return state.applied >= drain.step; });
    holds_ += static_cast<uint32_t>(
        take(pauses_, [&](const Waiting& pause) { return state.at_rest && state.pause_at == pause.step; }));
  }
  for (Completion& done : ready) done(Status::Ok());
}

void Trainer::Fail(Status status) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = std::move(status);
  }
  gate_.Stop();
  free_.Close();
  to_lookup_.Close();
}

Status Trainer::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

void Trainer::FailWaiting() {
  std::vector<Waiting> waiting;
  {
    std::lock_guard lock(mutex_);
    finished_ = true;
    std::swap(waiting, drains_);
    std::move(pauses_.begin(), pauses_.end(), std::back_inserter(waiting));
    pauses_.clear();
  }
  for (Waiting& one : waiting) one.done(failure());
}

// ---- prediction and progress ----------------------------------------------------------------------------------------

Status Trainer::Predict(const Batch& batch, std::vector<float>* outputs) {
  if (Status status = failure(); status.code() == ErrorCode::kClosed) return status;
  std::lock_guard predict_lock(predict_mutex_);
  StepSlot& slot = *predict_slot_;
  PERSIA_RETURN_IF_ERROR(PrepareStep(batch, slot));
  PERSIA_RETURN_IF_ERROR(worker_.Lookup({kThisWorker, 0}, LookupMode::kReadOnly, slot.plan, slot.input.data(),
                                        config_.dense.input_width()));
  outputs->resize(size_t{batch.rows} * config_.dense.tasks.size());
  std::lock_guard model_lock(model_mutex_);
  PERSIA_RETURN_IF_ERROR(model_->Predict(batch.rows, slot.input.data(), outputs->data()));
  CorrectForSampling(config_.dense.tasks, batch.rows, outputs->data());
  return Status::Ok();
}

TrainerProgress Trainer::progress() const {
  TrainerProgress progress;
  {
    std::lock_guard lock(mutex_);
    progress = totals_;
  }
  progress.staleness = gate_.state().Staleness();
  progress.most_staleness = gate_.most_staleness();
  return progress;
}

}  // namespace persia
