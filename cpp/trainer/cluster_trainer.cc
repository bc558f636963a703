#include "trainer/cluster_trainer.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <limits>
#include <utility>

#include "base/hyperloglog.h"
#include "base/named_thread.h"
#include "batch/mask.h"
#include "dense/calibration.h"
#include "net/rpc_session.h"
#include "trainer/check_batch.h"
#include "worker/embedding_messages.h"

namespace persia {
namespace {

// How long counters are waited for: they are asked for beside training, and by threads that should go on.
constexpr uint64_t kCountersMs = 2'000;

Bytes BytesOf(std::span<const float> values) { return std::as_bytes(values); }

}  // namespace

Result<std::unique_ptr<ClusterTrainer>> ClusterTrainer::Create(std::shared_ptr<Transport> transport, Options options) {
  const TrainerConfig& config = options.config;
  PERSIA_CHECK(config.nn_workers == options.nn_workers.addresses.size());
  if (config.deterministic && config.nn_workers > 1) {
    return Status(ErrorCode::kConfigUnsupported, "several NN workers of a cluster look rows up in no fixed order, so no "
                                                 "two runs are alike: use one process, one NN worker, or "
                                                 "deterministic: false");
  }
  std::unique_ptr<ClusterTrainer> trainer(new ClusterTrainer(std::move(transport), std::move(options)));
  for (RoleClients* clients : {&trainer->parameter_servers_, &trainer->embedding_workers_, &trainer->nn_workers_}) {
    PERSIA_RETURN_IF_ERROR(clients->WaitUntilReady());
  }
  PERSIA_RETURN_IF_ERROR(trainer->loaders_->WaitUntilReady());
  for (uint32_t rank = 0; rank < trainer->workers(); ++rank) {
    trainer->workers_[rank].watch =
        StartThread("watch-" + std::to_string(rank), [trainer = trainer.get(), rank] { trainer->WatchLoop(rank); });
  }
  trainer->control_thread_ = StartThread("control", [trainer = trainer.get()] { trainer->ControlLoop(); });
  trainer->forward_thread_ = StartThread("forward", [trainer = trainer.get()] { trainer->ForwardLoop(); });
  return trainer;
}

ClusterTrainer::ClusterTrainer(std::shared_ptr<Transport> transport, Options options)
    : transport_(std::move(transport)),
      closes_transport_(options.closes_transport),
      config_(std::move(options.config)),
      wire_(options.wire),
      parameter_servers_(transport_, std::move(options.parameter_servers)),
      embedding_workers_(transport_, std::move(options.embedding_workers)),
      nn_workers_(transport_, std::move(options.nn_workers)),
      loaders_(std::move(options.loaders)),
      forwarder_(config_, embedding_workers_, nn_workers_, wire_.codec),
      store_(config_.tables, parameter_servers_, wire_),
      intake_(std::numeric_limits<size_t>::max()),
      prepare_meter_("prepare", 0, config_.trace_spans),
      workers_(config_.nn_workers),
      last_distinct_(config_.schema.features.size()) {
  for (Worker& worker : workers_) worker.state.scaling.scale = config_.loss_scaling.scale;
}

ClusterTrainer::~ClusterTrainer() { Close(); }

void ClusterTrainer::Close() {
  std::lock_guard closing(closing_mutex_);
  Fail(Status(ErrorCode::kClosed, "the trainer was closed"));
  intake_.Close();
  if (control_thread_.joinable()) {
    std::unique_lock lock(mutex_);
    closing_ = true;
    changed_.wait_for(lock, std::chrono::milliseconds(kFarewellMs), [&] { return AllGone(); });
  }
  changed_.notify_all();
  loaders_->Close();
  for (RoleClients* clients : {&nn_workers_, &embedding_workers_, &parameter_servers_}) clients->Close();
  if (forward_thread_.joinable()) forward_thread_.join();
  if (control_thread_.joinable()) control_thread_.join();
  for (Worker& worker : workers_) {
    if (worker.watch.joinable()) worker.watch.join();
  }
  if (closes_transport_) transport_->Close();
}

void ClusterTrainer::Push(std::shared_ptr<const Batch> batch, Completion accepted) {
  if (!intake_.Push({std::move(batch), accepted})) accepted(failure());
}

void ClusterTrainer::Drain(Completion done, bool more_comes) {
  if (!intake_.Push({nullptr, done, more_comes})) done(failure());
}

// ---- forward --------------------------------------------------------------------------------------------------------

void ClusterTrainer::ForwardLoop() {
  while (std::optional<Intake> intake = intake_.Pop()) Accept(*intake);
}

void ClusterTrainer::Accept(Intake& intake) {
  if (intake.batch == nullptr) return AcceptDrain(std::move(intake.done), intake.more_comes);
  prepare_meter_.Queued(intake_.size() + 1);
  prepare_meter_.Enter(Activity::kHeld);
  Status status = Check(*intake.batch);
  if (status.ok()) {
    status = WaitForRoom();
    if (status.ok()) {
      const uint64_t step = forwarded_;  // only this thread changes it
      prepare_meter_.Enter(Activity::kBusy, step);
      status = Forward(intake.batch, step);
      if (!status.ok()) Fail(status);
    }
    if (!status.ok()) status = failure();
  }
  prepare_meter_.Enter(Activity::kIdle);
  intake.batch.reset();
  intake.done(status);
}

// Until every worker has a slot for the next step, and knows of the pauses before it; takes its number.
Status ClusterTrainer::WaitForRoom() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    if (!failure_.ok()) return true;
    const uint64_t step = forwarded_ + 1;
    const std::optional<uint64_t> pause = NextPause();
    return step <= applied() + NnWorker::SlotsOf(config_.staleness) && (known_ == wanted_ || !pause || step <= *pause);
  });
  if (failure_.ok()) ++forwarded_;
  return failure_;
}

Status ClusterTrainer::Check(const Batch& batch) const {
  if (!batch.place) return CheckTrainingBatch(batch, config_);  // who holds another checks it
  if (loaders_->Has(*batch.place)) return Status::Ok();
  return Status(ErrorCode::kBatchInvalid, "no other data loader has batch " + std::to_string(batch.place->batch));
}

Status ClusterTrainer::Forward(const std::shared_ptr<const Batch>& batch, uint64_t step) {
  if (!batch->place) return forwarder_.Forward(batch, step);
  loaders_->Send(*batch->place, step, [this](const Status& status) {
    if (!status.ok()) Fail(status);
  });
  return Status::Ok();
}

void ClusterTrainer::AcceptDrain(Completion done, bool more_comes) {
  std::vector<Completion> unreachable;
  Status refused;
  {
    std::lock_guard lock(mutex_);
    if (AllGone()) refused = failure_;
    if (refused.ok()) drains_.push_back({forwarded_, done});
    std::erase_if(pauses_, [&](Waiting& pause) {
      if (more_comes || pause.step <= forwarded_) return false;
      unreachable.push_back(std::move(pause.done));
      return true;
    });
    drained_to_ = forwarded_;
    // Only in deterministic mode does an NN worker wait for steps that may not come.
    if (config_.deterministic || !unreachable.empty()) ++wanted_;
  }
  changed_.notify_all();
  for (Completion& paused : unreachable) paused(Status(ErrorCode::kAborted, "the step to pause after does not come"));
  if (!refused.ok()) return done(refused);
  Signal();
}

// ---- pauses ---------------------------------------------------------------------------------------------------------

void ClusterTrainer::Pause(std::optional<uint64_t> at, Completion paused) {
  Status refused;
  {
    std::lock_guard lock(mutex_);
    const uint64_t soonest = holds_ > 0 ? rest_step_ : std::min(forwarded_, NextPause().value_or(forwarded_));
    const uint64_t earliest = holds_ > 0 ? rest_step_ : forwarded_;
    refused = failure_;  // answered at once: a trainer that failed does not come to rest
    if (refused.ok() && at && *at < earliest) {
      refused = Status(ErrorCode::kUsage, "cannot pause after step " + std::to_string(*at) + ": it has passed, or is " +
                                              "with the NN workers");
    }
    if (refused.ok()) {
      pauses_.push_back({at.value_or(soonest), std::move(paused)});
      ++wanted_;
    }
  }
  if (!refused.ok()) return paused(refused);
  changed_.notify_all();
}

void ClusterTrainer::Resume() {
  {
    std::lock_guard lock(mutex_);
    if (holds_ == 0 || --holds_ > 0) return;
    ++wanted_;
  }
  changed_.notify_all();
}

bool ClusterTrainer::at_rest() const {
  std::lock_guard lock(mutex_);
  return holds_ > 0;
}

std::optional<uint64_t> ClusterTrainer::NextPause() const {
  std::optional<uint64_t> next;
  for (const Waiting& pause : pauses_) next = std::min(next.value_or(pause.step), pause.step);
  return next;
}

bool ClusterTrainer::Rests(uint64_t step) const {
  return known_ == wanted_ && std::ranges::all_of(workers_, [&](const Worker& worker) {
           return worker.state.control == known_ && worker.state.at_rest && worker.state.applied == step;
         });
}

// ---- control --------------------------------------------------------------------------------------------------------

void ClusterTrainer::ControlLoop() {
  bool stopped = false;
  while (true) {
    NnControl control;
    Status reason;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] {
        return (failure_.ok() && known_ < wanted_) || (!failure_.ok() && !stopped) || (closing_ && stopped);
      });
      if (stopped) return;
      reason = failure_;
      control = WantedControl();
    }
    if (!reason.ok()) {
      SendStop(reason);
      stopped = true;
      continue;
    }
    if (Status status = SendControl(control); !status.ok()) {
      Fail(status);
      continue;
    }
    {
      std::lock_guard lock(mutex_);
      known_ = control.number;
    }
    changed_.notify_all();
    Signal();
  }
}

NnControl ClusterTrainer::WantedControl() const {
  return {wanted_, holds_ > 0 ? std::optional<uint64_t>(rest_step_) : NextPause(), drained_to_};
}

Status ClusterTrainer::SendControl(const NnControl& control) {
  return nn_workers_.CallAll({nn_request::kControl}, [&] { return Payload(EncodeControl(control)); }).status();
}

void ClusterTrainer::SendStop(const Status& reason) {
  std::vector<std::optional<Payload>> requests(workers());
  {
    std::lock_guard lock(mutex_);
    for (uint32_t rank = 0; rank < workers(); ++rank) {
      if (!workers_[rank].gone) requests[rank] = Payload(EncodeStatus(reason));
    }
  }
  // Whoever does not answer is lost to its watch too.
  (void)nn_workers_.CallMany({nn_request::kStop}, std::move(requests));
}

// ---- what NN workers tell -------------------------------------------------------------------------------------------

void ClusterTrainer::WatchLoop(uint32_t rank) {
  uint64_t version = 0;
  while (true) {
    WireWriter writer;
    writer.Value(version);
    // It answers several times within the deadline, if it lives.
    const RoleCall watch{nn_request::kWatch, {}, true, nn_workers_.deadline_ms()};
    const auto response = nn_workers_.Call(rank, watch, Payload(writer.Take()));
    if (!response.ok()) return Lost(rank, response.status());
    Result<NnState> state = DecodeState(response.value().payload.bytes());
    if (!state.ok()) return Lost(rank, state.status());
    version = state->version;
    Status told = state->failure;
    if (told.code() == ErrorCode::kClosed) told = Status(ErrorCode::kPeerLost, told.message());
    const bool ended = state->ended;
    {
      std::lock_guard lock(mutex_);
      workers_[rank].state = std::move(*state);
      workers_[rank].gone = ended;
    }
    if (!told.ok()) Fail(told);
    changed_.notify_all();
    Signal();
    if (ended) return;
  }
}

void ClusterTrainer::Lost(uint32_t rank, const Status& status) {
  {
    std::lock_guard lock(mutex_);
    workers_[rank].gone = true;
  }
  Fail(status);
  // Other workers' parts of its steps are not waited for any more.
  (void)store_.Leave(rank);
  WireWriter writer;
  writer.Value(rank);
  const Buffer leave = writer.Take();
  (void)embedding_workers_.CallAll({embedding_request::kLeave, {}, true},
                                   [&] { return Payload(Buffer::CopyOf(leave.bytes())); });
  Signal();
}

uint64_t ClusterTrainer::applied() const {
  uint64_t applied = std::numeric_limits<uint64_t>::max();
  for (const Worker& worker : workers_) applied = std::min(applied, worker.state.applied);
  return std::max(applied, step_before_);
}

LossScaler::State ClusterTrainer::Scaling() const {
  LossScaler::State scaling = workers_[0].state.scaling;
  for (size_t rank = 1; config_.mode == TrainerMode::kAsync && rank < workers_.size(); ++rank) {
    scaling.skipped += workers_[rank].state.scaling.skipped;
  }
  return scaling;
}

bool ClusterTrainer::AllGone() const {
  return !failure_.ok() && std::ranges::all_of(workers_, [](const Worker& worker) { return worker.gone; });
}

void ClusterTrainer::Signal() {
  std::vector<Completion> ready, failed;
  Status failure;
  {
    std::lock_guard lock(mutex_);
    const auto take = [](std::vector<Waiting>& waiting, std::vector<Completion>& into, auto holds) {
      return std::erase_if(waiting, [&](Waiting& one) {
        if (!holds(one)) return false;
        into.push_back(std::move(one.done));
        return true;
      });
    };
    take(drains_, ready, [&](const Waiting& drain) { return applied() >= drain.step; });
    const std::optional<uint64_t> next = holds_ > 0 ? rest_step_ : NextPause();
    if (failure_.ok() && next && Rests(*next)) {
      rest_step_ = *next;
      holds_ += static_cast<uint32_t>(take(pauses_, ready, [&](const Waiting& pause) { return pause.step == *next; }));
    }
    if (AllGone()) {
      failure = failure_;
      const auto all = [](const Waiting&) { return true; };
      take(drains_, failed, all);
      take(pauses_, failed, all);
    }
  }
  for (Completion& done : ready) done(Status::Ok());
  for (Completion& done : failed) done(failure);
}

void ClusterTrainer::Fail(const Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
  }
  changed_.notify_all();
}

Status ClusterTrainer::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

// ---- prediction and progress ----------------------------------------------------------------------------------------

Status ClusterTrainer::Predict(const Batch& batch, std::vector<float>* outputs) {
  if (Status status = failure(); status.code() == ErrorCode::kClosed) return status;
  const DenseModelConfig& dense = config_.dense;
  PERSIA_RETURN_IF_ERROR(CheckPredictionBatch(batch, config_));
  WireWriter ids;
  ids.Value(batch.rows);
  WriteIds(ids, wire_.codec, batch);
  const uint32_t holder = next_holder_++ % embedding_workers_.size();
  const RoleCall pool{embedding_request::kPredict, {WireFormat::kFp32, wire_.codec}};
  const auto pooled = embedding_workers_.Call(holder, pool, Payload(ids.Take()));
  if (!pooled.ok()) return pooled.status();
  WireReader reader(pooled.value().payload.bytes());
  AlignedBuffer<float> input(size_t{batch.rows} * dense.input_width());
  FillDense(batch.rows, batch.dense.data(), config_.dense_columns(), dense, input.data());
  WriteMasks(batch, config_.schema, input.data() + config_.masks_offset(), dense.input_width());
  for (size_t row = 0; row < batch.rows; ++row) {
    reader.Rows(WireFormat::kFp32, 1, dense.embedding_width, input.data() + row * dense.input_width());
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  WireWriter writer;
  writer.Value(batch.rows);
  writer.Raw(BytesOf(input.span()));
  const auto response = nn_workers_.Call(0, {nn_request::kPredict}, Payload(writer.Take()));
  if (!response.ok()) return response.status();
  outputs->resize(size_t{batch.rows} * dense.tasks.size());
  WireReader values(response.value().payload.bytes());
  values.Rows(WireFormat::kFp32, outputs->size(), 1, outputs->data());
  PERSIA_RETURN_IF_ERROR(values.End());
  CorrectForSampling(dense.tasks, batch.rows, outputs->data());
  return Status::Ok();
}

TrainerProgress ClusterTrainer::progress() const {
  TrainerProgress progress;
  progress.staleness_histogram.resize(config_.staleness + 1);
  std::lock_guard lock(mutex_);
  progress.steps = applied();
  progress.samples = samples_before_;
  for (const Worker& worker : workers_) {
    const NnState& state = worker.state;
    progress.samples += state.samples;
    progress.loss_sum += state.loss_sum;
    progress.loss_steps += state.loss_steps;
    progress.staleness = std::max(progress.staleness, state.staleness);
    for (size_t i = 0; i < std::min(state.histogram.size(), progress.staleness_histogram.size()); ++i) {
      progress.staleness_histogram[i] += state.histogram[i];
      if (state.histogram[i] > 0) progress.most_staleness = std::max<uint64_t>(progress.most_staleness, i);
    }
  }
  const LossScaler::State scaling = Scaling();
  progress.skipped = scaling.skipped;
  progress.loss_scale = scaling.scale;
  progress.dense_staleness = workers_[0].state.dense_staleness;
  progress.row_staleness = last_counters_.row_staleness;
  return progress;
}

TrainerCounters ClusterTrainer::counters() const {
  const uint64_t deadline_ms = std::min(kCountersMs, nn_workers_.deadline_ms());
  Result<StoreCounters> rows = store_.Counters(deadline_ms);
  Result<std::vector<std::vector<uint8_t>>> seen = Seen(deadline_ms);
  std::lock_guard lock(mutex_);
  if (rows.ok()) last_counters_ = std::move(*rows);
  for (size_t f = 0; seen.ok() && f < last_distinct_.size(); ++f) {
    HyperLogLog all;
    if (all.Restore((*seen)[f])) last_distinct_[f] = static_cast<uint64_t>(all.Estimate() + 0.5);
  }
  TrainerCounters counters{{}, last_distinct_};
  counters.classes.resize(config_.tables.size());
  for (size_t c = 0; c < last_counters_.classes.size(); ++c) {
    const std::vector<TableCounters>& tables = last_counters_.classes[c];
    if (!tables.empty()) counters.classes[c] = {tables.front(), {tables.begin() + 1, tables.end()}};
  }
  return counters;
}

std::vector<StageReport> ClusterTrainer::StageReports() const {
  std::vector<StageReport> reports{{prepare_meter_.name(), prepare_meter_.worker(), prepare_meter_.totals()}};
  std::lock_guard lock(mutex_);
  for (const Worker& worker : workers_) std::ranges::copy(worker.state.stages, std::back_inserter(reports));
  return reports;
}

Result<std::string> ClusterTrainer::Trace() const {
  std::vector<StageSpans> spans = SpansOf({&prepare_meter_});
  const auto responses = nn_workers_.CallAll({nn_request::kTrace}, [] { return Payload(); });
  if (!responses.ok()) return responses.status();
  for (const RpcResponse& response : responses.value()) {
    Result<std::vector<StageSpans>> stages = DecodeSpans(response.payload.bytes());
    if (!stages.ok()) return stages.status();
    std::ranges::move(*stages, std::back_inserter(spans));
  }
  return ChromeTrace(spans);
}

}  // namespace persia
