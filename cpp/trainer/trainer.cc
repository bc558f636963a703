#include "trainer/trainer.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <thread>
#include <utility>

#include "base/named_thread.h"
#include "batch/mask.h"
#include "collective/local_collective.h"
#include "dense/calibration.h"
#include "trainer/check_batch.h"

namespace persia {
namespace {

// Workers of one process can't get lost, and whoever fails ends the waiting of the others: a year.
constexpr uint64_t kNoDeadlineMs = uint64_t{365} * 24 * 3600 * 1000;

// One that computes nothing but outputs, with all threads.
DenseModelConfig PredictionModel(const TrainerConfig& config) {
  return ReplicaModel(WorkerModel(config, config.dense.threads));
}

}  // namespace

Result<std::unique_ptr<Trainer>> Trainer::Create(TrainerConfig config, std::unique_ptr<ParameterStore> store) {
  PERSIA_CHECK(config.tables.size() == config.schema.row_class_dims.size());
  PERSIA_CHECK(config.dense.embedding_width == config.schema.embedding_width);
  PERSIA_CHECK(config.dense.dense_count >= config.schema.mask_width);
  PERSIA_CHECK(config.nn_workers > 0 && config.accumulate > 0);
  PERSIA_CHECK(config.mode != TrainerMode::kSync || config.staleness == 0);
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
      step_store_(config_.schema.row_class_dims, *store_, StepOptions(config_)),
      worker_(config_.schema, step_store_),
      batches_(worker_, step_store_, !MergesParts(config_)),
      intake_(std::numeric_limits<size_t>::max()),
      prepare_meter_("prepare", 0, config_.trace_spans) {
  turns_.StartAt(config_.nn_workers);  // step 1, rank 0
}

Status Trainer::MakeWorkers() {
  std::vector<std::unique_ptr<DenseTraining>> dense;
  PERSIA_RETURN_IF_ERROR(MakeDense(&dense));
  const bool in_turns = config_.deterministic && workers() > 1;
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    const NnWorker::Config config{rank, workers(), config_.staleness, ScheduleOf(config_), config_.sync_steps,
                                  config_.dense.input_width(), config_.schema.embedding_width, config_.trace_spans};
    workers_.push_back(std::make_unique<NnWorker>(config, MakeLocalEmbeddings(rank, batches_, step_store_),
                                                  std::move(dense[rank]), in_turns ? &turns_ : nullptr,
                                                  EventsOfWorker()));
    gates_.push_back(&workers_.back()->gate());
  }
  if (workers() > 1 && config_.device == DenseDevice::kCpu) predictor_.emplace(PredictionModel(config_), workers_[0]->dense());
  for (const auto& worker : workers_) worker->Start();
  prepare_thread_ = StartThread("prepare", [this] { PrepareLoop(); });
  return Status::Ok();
}

Status Trainer::MakeDense(std::vector<std::unique_ptr<DenseTraining>>* dense) {
  const bool async = config_.mode == TrainerMode::kAsync;
  const uint32_t all = config_.dense.threads > 0 ? config_.dense.threads : std::thread::hardware_concurrency();
  const uint32_t threads = std::max(1u, all / workers());
  PERSIA_RETURN_IF_ERROR(CheckDenseConfig(config_));
  const DenseModelConfig whole = WorkerModel(config_, threads), of_worker = async ? ReplicaModel(whole) : whole;
  PERSIA_RETURN_IF_ERROR(
      CheckDenseMemory(DenseModelBytes(of_worker) * workers() + (async ? DenseModelBytes(whole) : 0.0)));
  if (async) {
    auto model = MakeDenseModel(whole, config_.device);
    if (!model.ok()) return model.status();
    dense_store_ = std::make_shared<DenseStore>(std::move(*model));
  }
  auto models = MakeDenseModels(of_worker, config_.device, workers(), !async && config_.accumulate == 1);
  if (!models.ok()) return models.status();
  const bool exchange = workers() > 1 && !async && !models.value()[0]->sums_over_workers();
  auto collectives = exchange ? MakeLocalCollectives(workers(), {.deadline_ms = kNoDeadlineMs})
                              : std::vector<std::unique_ptr<Collective>>(workers());
  for (uint32_t rank = 0; rank < workers(); ++rank) {
    if (!async || rank == 0) scalers_.push_back(std::make_shared<LossScaler>(config_.loss_scaling));
    dense->push_back(async ? MakeSharedStoreTraining(std::move((*models)[rank]), dense_store_, scalers_[0],
                                                     config_.accumulate)
                           : MakeAllReduceTraining(std::move((*models)[rank]), std::move(collectives[rank]),
                                                   scalers_[rank], config_.accumulate));
  }
  return Status::Ok();
}

NnWorker::Events Trainer::EventsOfWorker() {
  NnWorker::Events events;
  events.moved = [this] { Signal(); };
  totals_.ListenTo(events);
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
    for (size_t rank = 0; rank < slots.size(); ++rank) workers_[rank]->Put(slots[rank]);
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

// The masks of a batch's sequences, behind its dense columns.
void Trainer::FillMasks(const Batch& batch, float* input) const {
  WriteMasks(batch, config_.schema, input + config_.masks_offset(), config_.dense.input_width());
}

Status Trainer::PrepareParts(const Batch& batch, std::span<StepSlot* const> slots) {
  PERSIA_RETURN_IF_ERROR(CheckTrainingBatch(batch, config_));
  for (uint32_t rank = 0; rank < slots.size(); ++rank) {
    const PartRows rows = PartOfWorker(batch.rows, rank, workers());
    const Batch part = PartOf(batch, rows.begin, rows.rows);
    FillSlot({prepared_ + 1, rows.begin, rows.rows, batch.rows, part.dense.data(), part.labels.data()},
             config_.dense_columns(), config_.dense, *slots[rank]);
    FillMasks(part, slots[rank]->input.data());
    batches_.Hold({prepared_ + 1, rank}, part);
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
  PERSIA_RETURN_IF_ERROR(CheckPredictionBatch(batch, config_));
  predict_input_.Resize(size_t{batch.rows} * dense.input_width());
  FillDense(batch.rows, batch.dense.data(), config_.dense_columns(), dense, predict_input_.data());
  FillMasks(batch, predict_input_.data());
  worker_.Prepare(batch, predict_plan_);
  PERSIA_RETURN_IF_ERROR(worker_.Lookup({0, 0}, LookupMode::kReadOnly, predict_plan_, predict_input_.data(),
                                        dense.input_width()));
  outputs->resize(size_t{batch.rows} * dense.tasks.size());
  PERSIA_RETURN_IF_ERROR(predictor_
                             ? predictor_->Predict(RestingAt(), batch.rows, predict_input_.data(), outputs->data())
                             : workers_[0]->dense().Predict(batch.rows, predict_input_.data(), outputs->data()));
  CorrectForSampling(dense.tasks, batch.rows, outputs->data());
  return Status::Ok();
}

std::optional<uint64_t> Trainer::RestingAt() const {
  uint64_t step = 0;
  for (const StalenessGate* gate : gates_) {
    const GateState state = gate->state();
    if (state.trains_started != state.applied || !(state.at_rest || state.lookups_started == state.applied)) return {};
    step = state.applied;
  }
  return step;
}

TrainerProgress Trainer::progress() const {
  const TrainedTotals::Values totals = totals_.values();
  TrainerProgress progress;
  progress.samples = totals.samples;
  progress.loss_sum = totals.loss_sum;
  progress.loss_steps = totals.loss_steps;
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
  progress.row_staleness = step_store_.row_staleness();
  if (dense_store_ != nullptr) progress.dense_staleness = dense_store_->staleness();
  return progress;
}

std::vector<const StageMeter*> Trainer::stages() const {
  std::vector<const StageMeter*> stages{&prepare_meter_};
  for (const auto& worker : workers_) std::ranges::copy(worker->stages(), std::back_inserter(stages));
  return stages;
}

TrainerCounters Trainer::counters() const {
  TrainerCounters counters;
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    counters.classes.push_back({store_->counters(c), store_->group_counters(c)});
  }
  for (size_t f = 0; f < config_.schema.features.size(); ++f) counters.distinct.push_back(worker_.distinct_ids(f));
  return counters;
}

std::vector<StageReport> Trainer::StageReports() const {
  std::vector<StageReport> reports;
  for (const StageMeter* stage : stages()) reports.push_back({stage->name(), stage->worker(), stage->totals()});
  return reports;
}

Result<std::string> Trainer::Trace() const { return ChromeTrace(SpansOf(stages())); }

}  // namespace persia
