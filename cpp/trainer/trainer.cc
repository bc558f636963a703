#include "trainer/trainer.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <thread>
#include <utility>

#include "base/copy.h"
#include "base/named_thread.h"
#include "collective/local_collective.h"
#include "dense/calibration.h"

namespace persia {
namespace {

// Workers of one process can't get lost, and whoever fails ends the waiting of the others: a year.
constexpr uint64_t kNoDeadlineMs = uint64_t{365} * 24 * 3600 * 1000;

// The dense model of one of the workers: with its share of the threads.
DenseModelConfig WorkerModel(const TrainerConfig& config) {
  DenseModelConfig result = config.dense;
  const uint32_t threads = result.threads > 0 ? result.threads : std::max(1u, std::thread::hardware_concurrency());
  result.threads = std::max(1u, threads / config.nn_workers);
  result.deterministic = config.deterministic;
  return result;
}

// The model of a worker that only computes gradients: without optimizer state.
DenseModelConfig ReplicaModel(const TrainerConfig& config) {
  DenseModelConfig result = WorkerModel(config);
  result.optimizer = {};
  result.optimizer.type = DenseOptimizerType::kSgd;
  return result;
}

StalenessGate::Schedule ScheduleOf(const TrainerConfig& config) {
  if (config.deterministic) return StalenessGate::Schedule::kOrdered;
  return config.just_in_time ? StalenessGate::Schedule::kJustInTime : StalenessGate::Schedule::kEager;
}

}  // namespace

Result<std::unique_ptr<Trainer>> Trainer::Create(TrainerConfig config, std::unique_ptr<ParameterStore> store) {
  PERSIA_CHECK(config.tables.size() == config.schema.row_class_dims.size());
  PERSIA_CHECK(config.dense.embedding_width == config.schema.embedding_width);
  PERSIA_CHECK(config.nn_workers > 0 && config.accumulate > 0);
  PERSIA_CHECK(config.mode != TrainerMode::kSync || config.staleness == 0);
  PERSIA_CHECK(!(config.deterministic && config.just_in_time));  // what is just in time depends on the machine
  if (config.mode == TrainerMode::kAsync && config.deterministic && config.nn_workers > 1) {
    return Status(ErrorCode::kConfigInvalid, "several NN workers in mode async come in no fixed order, so no two runs "
                                             "are alike: use mode hybrid or sync, one NN worker, or deterministic: "
                                             "false");
  }
  if (store == nullptr) store = std::make_unique<LocalStore>(config.tables);
  std::unique_ptr<Trainer> trainer(new Trainer(std::move(config), std::move(store)));
  PERSIA_RETURN_IF_ERROR(trainer->MakeWorkers());
  return trainer;
}

Trainer::Trainer(TrainerConfig config, std::unique_ptr<ParameterStore> store)
    : config_(std::move(config)),
      store_(std::move(store)),
      worker_(config_.schema, *store_),
      row_staleness_(config_.row_staleness_one_in),
      updates_(config_.schema, *store_, row_staleness_, config_.mode == TrainerMode::kAsync ? 1 : config_.nn_workers),
      intake_(std::numeric_limits<size_t>::max()),
      prepare_meter_("prepare", 0, config_.trace_spans),
      predict_slot_(std::make_unique<StepSlot>()) {
  turns_.StartAt(config_.nn_workers);  // step 1, rank 0
}

Status Trainer::MakeWorkers() {
  std::vector<std::unique_ptr<DenseTraining>> dense;
  PERSIA_RETURN_IF_ERROR(MakeDense(&dense));
  const bool in_turns = config_.deterministic && workers() > 1;
  const NnWorker::Shared shared{worker_, updates_, row_staleness_, in_turns ? &turns_ : nullptr};
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    const uint32_t sender = config_.mode == TrainerMode::kAsync ? rank : 0;
    const NnWorker::Config config{rank, workers(), sender, config_.staleness, ScheduleOf(config_),
                                  config_.dense.input_width(), config_.schema.embedding_width, config_.trace_spans};
    workers_.push_back(std::make_unique<NnWorker>(config, shared, std::move(dense[rank]), EventsOfWorker()));
    gates_.push_back(&workers_.back()->gate());
  }
  for (const auto& worker : workers_) worker->Start();
  prepare_thread_ = StartThread("prepare", [this] { PrepareLoop(); });
  return Status::Ok();
}

Status Trainer::MakeDense(std::vector<std::unique_ptr<DenseTraining>>* dense) {
  const bool async = config_.mode == TrainerMode::kAsync;
  PERSIA_RETURN_IF_ERROR(ValidateDenseModel(config_.dense));
  const double own = DenseModelBytes(async ? ReplicaModel(config_) : WorkerModel(config_));
  PERSIA_RETURN_IF_ERROR(CheckDenseMemory(own * workers() + (async ? DenseModelBytes(WorkerModel(config_)) : 0.0)));
  if (async) {
    auto model = MakeCpuDenseModel(WorkerModel(config_));
    if (!model.ok()) return model.status();
    dense_store_ = std::make_shared<DenseStore>(std::move(*model));
  }
  auto collectives = workers() > 1 && !async ? MakeLocalCollectives(workers(), {.deadline_ms = kNoDeadlineMs})
                                             : std::vector<std::unique_ptr<Collective>>(workers());
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    auto model = MakeCpuDenseModel(async ? ReplicaModel(config_) : WorkerModel(config_));
    if (!model.ok()) return model.status();
    if (!async || rank == 0) scalers_.push_back(std::make_shared<LossScaler>(config_.loss_scaling));
    dense->push_back(async ? MakeSharedStoreTraining(std::move(*model), dense_store_, scalers_[0], config_.accumulate)
                           : MakeAllReduceTraining(std::move(*model), std::move(collectives[rank]), scalers_[rank],
                                                   config_.accumulate));
  }
  return Status::Ok();
}

NnWorker::Events Trainer::EventsOfWorker() {
  NnWorker::Events events;
  events.moved = [this] { Signal(); };
  events.trained = [this](double loss, double share) {
    std::lock_guard lock(mutex_);
    loss_sum_ += loss;
    loss_steps_ += share;
  };
  events.applied = [this](uint32_t rows) {
    std::lock_guard lock(mutex_);
    samples_ += rows;
  };
  events.failed = [this](Status status) { Fail(std::move(status)); };
  events.ended = [this] { WorkerEnded(); };
  return events;
}

Trainer::~Trainer() { Close(); }

void Trainer::Close() {
  std::lock_guard lock(closing_);
  Fail(Status(ErrorCode::kClosed, "the trainer was closed"));
  intake_.Close();
  if (prepare_thread_.joinable()) prepare_thread_.join();
  for (const auto& worker : workers_) worker->Join();
}

void Trainer::Push(std::shared_ptr<const Batch> batch, Completion accepted) {
  if (!intake_.Push({std::move(batch), accepted})) accepted(failure());
}

void Trainer::Drain(Completion done, bool more_comes) {
  if (!intake_.Push({nullptr, done, more_comes})) done(failure());
}

void Trainer::Pause(std::optional<uint64_t> at, Completion paused) {
  Status refused;
  {
    std::lock_guard lock(mutex_);
    refused = failure_;  // answered at once: a trainer that failed does not come to rest
    const std::optional<uint64_t> step = refused.ok() ? StalenessGate::RequestPause(gates_, at) : std::nullopt;
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
    for (StalenessGate* gate : gates_) gate->Resume(NextPause());
  }
  Signal();
}

bool Trainer::at_rest() const {
  return std::ranges::all_of(gates_, [](const StalenessGate* gate) { return gate->state().at_rest; });
}

std::optional<uint64_t> Trainer::NextPause() const {
  std::optional<uint64_t> next;
  for (const Waiting& pause : pauses_) next = std::min(next.value_or(pause.step), pause.step);
  return next;
}

// ---- prepare --------------------------------------------------------------------------------------------------------

void Trainer::PrepareLoop() {
  while (std::optional<Intake> intake = intake_.Pop()) Accept(*intake);
}

void Trainer::Accept(Intake& intake) {
  if (intake.batch == nullptr) return AcceptDrain(std::move(intake.done), intake.more_comes);
  std::vector<StepSlot*> slots;
  prepare_meter_.Queued(intake_.size() + 1);
  prepare_meter_.Enter(Activity::kHeld);
  for (const auto& worker : workers_) {
    if (const std::optional<StepSlot*> slot = worker->Take()) slots.push_back(*slot);
  }
  prepare_meter_.Enter(Activity::kBusy, prepared_ + 1);
  Status status = failure();
  if (status.ok()) status = PrepareParts(*intake.batch, slots);
  prepare_meter_.Enter(Activity::kIdle);
  if (status.ok()) {
    ++prepared_;
    for (size_t rank = 0; rank < slots.size(); ++rank) {
      slots[rank]->step = prepared_;
      workers_[rank]->Put(slots[rank]);
    }
  } else {
    for (size_t rank = 0; rank < slots.size(); ++rank) workers_[rank]->PutBack(slots[rank]);
  }
  intake.batch.reset();
  intake.done(status);
}

void Trainer::AcceptDrain(Completion done, bool more_comes) {
  std::vector<Completion> unreachable;
  Status refused;
  {
    std::lock_guard lock(mutex_);
    // After a failure, steps that are trained already are still applied: the drain is answered after them.
    const bool finished = ended_ == workers();
    if (finished) refused = failure_;
    if (!finished) drains_.push_back({prepared_, done});
    std::erase_if(pauses_, [&](Waiting& pause) {
      if (more_comes || pause.step <= prepared_) return false;
      unreachable.push_back(std::move(pause.done));
      return true;
    });
    for (StalenessGate* gate : gates_) {
      if (holds_ == 0 && !unreachable.empty()) gate->Resume(NextPause());
    }
  }
  for (Completion& paused : unreachable) paused(Status(ErrorCode::kAborted, "the step to pause after does not come"));
  if (!refused.ok()) return done(refused);
  for (StalenessGate* gate : gates_) gate->Drain(prepared_);
  Signal();
}

Status Trainer::PrepareParts(const Batch& batch, std::span<StepSlot* const> slots) const {
  const auto tasks = static_cast<uint32_t>(config_.dense.tasks.size());
  PERSIA_RETURN_IF_ERROR(ValidateBatch(batch, config_.schema, config_.dense.dense_count, tasks));
  PERSIA_RETURN_IF_ERROR(CheckLabels(batch));
  for (uint32_t rank = 0; rank < slots.size(); ++rank) {
    StepSlot& slot = *slots[rank];
    const PartRows part = PartOfWorker(batch.rows, rank, workers());
    slot.first_row = part.begin;
    slot.global_rows = batch.rows;
    PreparePart(PartOf(batch, part.begin, part.rows), slot);
  }
  return Status::Ok();
}

void Trainer::PreparePart(const Batch& part, StepSlot& slot) const {
  const DenseModelConfig& dense = config_.dense;
  slot.rows = part.rows;
  slot.input.Resize(size_t{part.rows} * dense.input_width());
  slot.labels.Resize(part.labels.size());
  slot.embedding_gradient.Resize(size_t{part.rows} * dense.embedding_width);
  for (uint32_t row = 0; row < part.rows; ++row) {
    CopyFloats(slot.input.data() + size_t{row} * dense.input_width() + dense.embedding_width,
               part.dense.data() + size_t{row} * dense.dense_count, dense.dense_count);
  }
  CopyFloats(slot.labels.data(), part.labels.data(), part.labels.size());
  worker_.Prepare(part, slot.plan);
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

// ---- completions and failure ----------------------------------------------------------------------------------------

uint64_t Trainer::applied() const {
  uint64_t applied = std::numeric_limits<uint64_t>::max();
  for (const StalenessGate* gate : gates_) applied = std::min(applied, gate->state().applied);
  return applied;
}

void Trainer::Signal() {
  std::vector<Completion> ready;
  {
    std::lock_guard lock(mutex_);
    const uint64_t applied = this->applied();
    const bool at_rest = this->at_rest();
    auto take = [&](std::vector<Waiting>& waiting, auto holds) {
      return std::erase_if(waiting, [&](Waiting& one) {
        if (!holds(one)) return false;
        ready.push_back(std::move(one.done));
        return true;
      });
    };
    take(drains_, [&](const Waiting& drain) { return applied >= drain.step; });
    // At rest the workers have applied all up to the step of the pause, and nothing beyond.
    holds_ += static_cast<uint32_t>(
        take(pauses_, [&](const Waiting& pause) { return at_rest && applied == pause.step; }));
  }
  for (Completion& done : ready) done(Status::Ok());
}

void Trainer::Fail(Status status) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = std::move(status);
  }
  turns_.Stop();
  for (const auto& worker : workers_) worker->Stop(failure());
}

Status Trainer::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

void Trainer::WorkerEnded() {
  std::vector<Waiting> waiting;
  {
    std::lock_guard lock(mutex_);
    if (++ended_ < workers()) return;
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
  const DenseModelConfig& dense = config_.dense;
  PERSIA_RETURN_IF_ERROR(ValidateBatch(batch, config_.schema, dense.dense_count, batch.label_count));
  if (batch.label_count == dense.tasks.size()) PERSIA_RETURN_IF_ERROR(CheckLabels(batch));
  StepSlot& slot = *predict_slot_;
  PreparePart(batch, slot);
  PERSIA_RETURN_IF_ERROR(worker_.Lookup({0, 0}, LookupMode::kReadOnly, slot.plan, slot.input.data(),
                                        dense.input_width()));
  outputs->resize(size_t{batch.rows} * dense.tasks.size());
  PERSIA_RETURN_IF_ERROR(workers_[0]->dense().Predict(batch.rows, slot.input.data(), outputs->data()));
  CorrectForSampling(dense.tasks, batch.rows, outputs->data());
  return Status::Ok();
}

TrainerProgress Trainer::progress() const {
  TrainerProgress progress;
  {
    std::lock_guard lock(mutex_);
    progress.samples = samples_;
    progress.loss_sum = loss_sum_;
    progress.loss_steps = loss_steps_;
  }
  progress.steps = applied();
  progress.staleness_histogram.resize(config_.staleness + 1);
  for (const StalenessGate* gate : gates_) {
    progress.staleness = std::max(progress.staleness, gate->state().Staleness());
    const std::vector<uint64_t> histogram = gate->histogram();
    for (size_t i = 0; i < histogram.size(); ++i) {
      progress.staleness_histogram[i] += histogram[i];
      if (histogram[i] > 0) progress.most_staleness = std::max<uint64_t>(progress.most_staleness, i);
    }
  }
  const LossScaler::State scaling = scalers_[0]->state();
  progress.skipped = scaling.skipped;
  progress.loss_scale = scaling.scale;
  progress.row_staleness = row_staleness_.totals();
  if (dense_store_ != nullptr) progress.dense_staleness = dense_store_->staleness();
  return progress;
}

std::vector<const StageMeter*> Trainer::stages() const {
  std::vector<const StageMeter*> stages{&prepare_meter_};
  for (const auto& worker : workers_) std::ranges::copy(worker->stages(), std::back_inserter(stages));
  return stages;
}

}  // namespace persia
