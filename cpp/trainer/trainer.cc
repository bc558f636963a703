#include "trainer/trainer.h"

#include <limits>
#include <utility>

#include "base/copy.h"
#include "base/named_thread.h"

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

Trainer::~Trainer() {
  Fail(Status(ErrorCode::kClosed, "the trainer was closed"));
  intake_.Close();
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) thread->join();
}

void Trainer::Push(std::shared_ptr<const Batch> batch, Completion accepted) {
  intake_.Push({std::move(batch), std::move(accepted)});
}

void Trainer::Drain(Completion done) { intake_.Push({nullptr, std::move(done)}); }

void Trainer::Pause(std::optional<uint64_t> at, Completion paused) {
  Status refused;
  {
    std::lock_guard lock(mutex_);
    refused = failure_;
    if (refused.ok() && pause_) refused = Status(ErrorCode::kUsage, "the trainer is being paused already");
    if (refused.ok()) {
      const std::optional<uint64_t> step = gate_.RequestPause(at);
      if (step) pause_ = Waiting{*step, std::move(paused)};
      if (!step) refused = Status(ErrorCode::kUsage, "cannot pause after step " + std::to_string(*at) + ": it has passed");
    }
  }
  if (!refused.ok()) return paused(refused);
  Signal();
}

void Trainer::Resume() { gate_.Resume(); }

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
  Status refused;
  {
    std::lock_guard lock(mutex_);
    refused = failure_;
    if (refused.ok()) drains_.push_back({prepared_, std::move(done)});
  }
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

Status Trainer::LookupStep(StepSlot& slot) {
  const size_t stride = config_.dense.input_width();
  const auto restored = restored_lookups_.find(slot.step);
  if (restored == restored_lookups_.end()) {
    return worker_.Lookup({kThisWorker, slot.step}, LookupMode::kTrain, slot.plan, slot.input.data(), stride);
  }
  const size_t width = config_.schema.embedding_width;
  if (restored->second.size() != slot.rows * width) {
    return Status(ErrorCode::kCheckpointMismatch, "step " + std::to_string(slot.step) + " has " +
                  std::to_string(slot.rows) + " samples, the checkpoint saw " +
                  std::to_string(restored->second.size() / width) + ": the training data has changed since");
  }
  for (size_t row = 0; row < slot.rows; ++row) {
    CopyFloats(slot.input.data() + row * stride, restored->second.data() + row * width, width);
  }
  restored_lookups_.erase(restored);
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
  const GateState state = gate_.state();
  std::vector<Completion> ready;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(drains_, [&](Waiting& drain) {
      if (state.applied < drain.step) return false;
      ready.push_back(std::move(drain.done));
      return true;
    });
    if (pause_ && state.Paused() && *state.pause_at == pause_->step) {
      ready.push_back(std::move(pause_->done));
      pause_.reset();
    }
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
  std::vector<Waiting> drains;
  std::optional<Waiting> pause;
  {
    std::lock_guard lock(mutex_);
    std::swap(drains, drains_);
    std::swap(pause, pause_);
  }
  for (Waiting& drain : drains) drain.done(failure());
  if (pause) pause->done(failure());
}

// ---- prediction and progress ----------------------------------------------------------------------------------------

Status Trainer::Predict(const Batch& batch, std::vector<float>* outputs) {
  std::lock_guard predict_lock(predict_mutex_);
  StepSlot& slot = *predict_slot_;
  PERSIA_RETURN_IF_ERROR(PrepareStep(batch, slot));
  PERSIA_RETURN_IF_ERROR(worker_.Lookup({kThisWorker, 0}, LookupMode::kReadOnly, slot.plan, slot.input.data(),
                                        config_.dense.input_width()));
  outputs->resize(size_t{batch.rows} * config_.dense.tasks.size());
  std::lock_guard model_lock(model_mutex_);
  return model_->Predict(batch.rows, slot.input.data(), outputs->data());
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
