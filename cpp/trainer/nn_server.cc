#include "trainer/nn_server.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/copy.h"
#include "base/named_thread.h"
#include "batch/mask.h"
#include "net/rpc_session.h"
#include "worker/remote_embeddings.h"

namespace persia {

NnServer::NnServer(std::shared_ptr<Transport> transport, Options options)
    : transport_(std::move(transport)),
      options_(std::move(options)),
      scaler_(std::make_shared<LossScaler>(options_.config.loss_scaling)),
      rpc_(MakeRpcServer(transport_, options_.rpc)) {
  Register();
}

NnServer::~NnServer() { Close(); }

Status NnServer::Connect(Peers peers) {
  const TrainerConfig& config = options_.config;
  nn_workers_ = std::make_unique<RoleClients>(transport_, peers.nn_workers);
  embedding_workers_ = std::make_unique<RoleClients>(transport_, peers.embedding_workers);
  PERSIA_RETURN_IF_ERROR(embedding_workers_->WaitUntilReady());
  PERSIA_RETURN_IF_ERROR(nn_workers_->WaitUntilReady());
  std::unique_ptr<DenseTraining> dense;
  PERSIA_RETURN_IF_ERROR(MakeDense(peers, &dense));
  const NnWorker::Config worker{options_.rank,
                                config.nn_workers,
                                config.staleness,
                                ScheduleOf(config), config.sync_steps,
                                config.dense.input_width(),
                                config.schema.embedding_width,
                                config.trace_spans};
  worker_ = std::make_unique<NnWorker>(worker,
                                       MakeRemoteEmbeddings(options_.rank, config.schema.embedding_width,
                                                            *embedding_workers_, options_.activations),
                                       std::move(dense), nullptr, EventsOfWorker());
  worker_->Start();
  parts_thread_ = StartThread("parts", [this] { PartsLoop(); });
  watch_thread_ = StartThread("watch", [this] { WatchLoop(); });
  std::lock_guard lock(mutex_);
  connected_ = true;
  return Status::Ok();
}

Status NnServer::MakeDense(Peers& peers, std::unique_ptr<DenseTraining>* dense) {
  const TrainerConfig& config = options_.config;
  const bool async = config.mode == TrainerMode::kAsync;
  const DenseModelConfig whole = WorkerModel(config, config.dense.threads), replica = ReplicaModel(whole);
  PERSIA_RETURN_IF_ERROR(CheckDenseConfig(config));
  PERSIA_RETURN_IF_ERROR(CheckDenseMemory(DenseModelBytes(whole) + (async ? 2 * DenseModelBytes(replica) : 0.0)));
  auto model = MakeDenseModel(async ? replica : whole, config.device, options_.rank);
  if (!model.ok()) return model.status();
  if (!async) {
    *dense = MakeAllReduceTraining(std::move(*model), std::move(peers.collective), scaler_, config.accumulate);
    return Status::Ok();
  }
  std::shared_ptr<SharedDense> store = MakeRemoteDense(*nn_workers_);
  if (options_.rank == 0) {
    auto stored = MakeDenseModel(whole, config.device), scratch = MakeDenseModel(replica, config.device);
    if (!stored.ok()) return stored.status();
    if (!scratch.ok()) return scratch.status();
    dense_store_ = std::make_shared<DenseStore>(std::move(*stored));
    dense_service_ = std::make_unique<DenseService>(dense_store_, std::move(*scratch));
    store = dense_store_;
  }
  *dense = MakeSharedStoreTraining(std::move(*model), std::move(store), scaler_, config.accumulate);
  return Status::Ok();
}

NnWorker::Events NnServer::EventsOfWorker() {
  NnWorker::Events events;
  events.moved = [this] { Changed(); };
  totals_.ListenTo(events);
  events.failed = [this](Status status) {
    const bool first = failure().ok();  // else it is what ends the worker
    Fail(status);
    if (first && on_failure_) on_failure_(status);
  };
  events.ended = [this] {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    Changed();
  };
  return events;
}

void NnServer::Close() {
  std::lock_guard closing(closing_mutex_);
  bool connected;
  {
    std::lock_guard lock(mutex_);
    connected = connected_;
  }
  if (connected) {
    Fail(Status(ErrorCode::kClosed, "NN worker " + std::to_string(options_.rank) + " was closed")
             .With("role", "NN worker")
             .With("rank", std::to_string(options_.rank)));
    {
      std::unique_lock lock(mutex_);  // what was trained is applied now
      changed_.wait_for(lock, std::chrono::milliseconds(kFarewellMs), [&] { return ended_; });
    }
    embedding_workers_->Close();
    nn_workers_->Close();
    worker_->Join();
  }
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (parts_thread_.joinable()) parts_thread_.join();
  if (watch_thread_.joinable()) watch_thread_.join();
  if (embedding_workers_ != nullptr) embedding_workers_->Close();
  if (nn_workers_ != nullptr) nn_workers_->Close();
  rpc_->Close();
}

void NnServer::Fail(const Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
  }
  worker_->Stop(failure());
  Changed();
}

Status NnServer::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

uint64_t NnServer::applied() const {
  std::lock_guard lock(mutex_);
  return connected_ ? worker_->gate().state().applied : 0;
}

void NnServer::Changed() {
  {
    std::lock_guard lock(mutex_);
    ++version_;
  }
  changed_.notify_all();
}

// ---- requests -------------------------------------------------------------------------------------------------------

void NnServer::On(uint16_t type, bool idempotent, std::function<Answer(const RpcRequest& request)> answer) {
  rpc_->Register(
      type,
      [this, answer = std::move(answer)](RpcRequest request, RpcReply reply) {
        {
          std::lock_guard lock(mutex_);
          if (!connected_) return reply.Fail(Status(ErrorCode::kUsage, "this NN worker is not connected yet"));
        }
        Answer result = answer(request);
        if (!result.ok()) return reply.Fail(result.status());
        reply.Send(Payload(std::move(*result)));
      },
      {.idempotent = idempotent});
}

void NnServer::Register() {
  namespace type = nn_request;
  rpc_->Register(type::kPart,
                 [this](RpcRequest request, RpcReply reply) { TakePart(std::move(request), std::move(reply)); });
  rpc_->Register(
      type::kWatch, [this](RpcRequest request, RpcReply reply) { Watch(request, std::move(reply)); },
      {.idempotent = true});
  On(type::kControl, false, [this](const RpcRequest& request) { return Control(request); });
  On(type::kStop, false, [this](const RpcRequest& request) -> Answer {
    Fail(DecodeStatus(request.payload.bytes()));
    return Buffer();
  });
  On(type::kPredict, true, [this](const RpcRequest& request) { return Predict(request); });
  On(type::kTrace, true, [this](const RpcRequest&) -> Answer { return EncodeSpans(SpansOf(worker_->stages())); });
  On(type::kTensors, true, [this](const RpcRequest&) -> Answer {
    PERSIA_RETURN_IF_ERROR(dense_model().ReadTensors());
    return EncodeTensors(dense_model().Tensors());
  });
  On(type::kReadTensor, true, [this](const RpcRequest& request) { return ReadTensor(request); });
  On(type::kWriteTensor, false, [this](const RpcRequest& request) { return WriteTensor(request); });
  On(type::kInFlight, true, [this](const RpcRequest&) -> Answer { return EncodeInFlight(worker_->in_flight()); });
  On(type::kReadInFlight, true, [this](const RpcRequest& request) { return ReadInFlight(request); });
  On(type::kRestoreLookup, false, [this](const RpcRequest& request) { return RestoreLookup(request); });
  On(type::kStartAfter, false, [this](const RpcRequest& request) { return StartAfter(request); });
  const Status not_here(ErrorCode::kUsage, "this NN worker has no dense store: that is at NN worker 0, in mode async");
  On(type::kPull, true, [this, not_here](const RpcRequest&) -> Answer {
    return dense_service_ == nullptr ? Answer(not_here) : dense_service_->Pull();
  });
  On(type::kPush, false, [this, not_here](const RpcRequest& request) -> Answer {
    if (dense_service_ == nullptr) return not_here;
    PERSIA_RETURN_IF_ERROR(dense_service_->Push(request.payload.bytes()));
    Changed();  // the updates are part of this worker's state, whoever made them
    return Buffer();
  });
}

// ---- parts ----------------------------------------------------------------------------------------------------------

void NnServer::TakePart(RpcRequest request, RpcReply reply) {
  const Result<StepPart> part = DecodeStepPart(request.payload.bytes(), options_.config);
  if (!part.ok()) return reply.Fail(part.status());
  Status refused;
  {
    std::lock_guard lock(mutex_);
    if (!connected_) {
      refused = Status(ErrorCode::kUsage, "this NN worker is not connected yet");
    } else if (!failure_.ok()) {
      refused = failure_;
    } else if (part.value().step < next_step_ || parts_.size() >= worker_->slots()) {
      refused = Status(ErrorCode::kInternal, "step " + std::to_string(part.value().step) +
                                                 " is not the next one, or there is no room for it");
    } else {
      parts_.insert_or_assign(part.value().step, Part{std::move(request.payload), part.value(), std::move(reply)});
    }
  }
  if (!refused.ok()) return reply.Fail(refused);
  changed_.notify_all();
}

void NnServer::PartsLoop() {
  while (true) {
    Part part;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return closing_ || !failure_.ok() || parts_.contains(next_step_); });
      if (closing_ || !failure_.ok()) break;
      part = std::move(parts_.extract(next_step_++).mapped());
    }
    const std::optional<StepSlot*> slot = worker_->Take();
    if (!slot) {
      part.reply.Fail(failure());
      break;
    }
    Fill(part.part, **slot);
    worker_->Put(*slot);
    part.reply.Send(Payload());
  }
  std::map<uint64_t, Part> left;
  {
    std::lock_guard lock(mutex_);
    std::swap(left, parts_);
  }
  for (auto& [step, part] : left) part.reply.Fail(failure());
}

void NnServer::Fill(const StepPart& part, StepSlot& slot) const {
  const TrainerConfig& config = options_.config;
  FillSlot(part, config.dense_columns(), config.dense, slot);
  WriteMasks(part.filled, part.rows, config.schema, slot.input.data() + config.masks_offset(),
             config.dense.input_width());
}

// ---- state and control ----------------------------------------------------------------------------------------------

void NnServer::Watch(const RpcRequest& request, RpcReply reply) {
  WireReader reader(request.payload.bytes());
  const auto version = reader.Value<uint64_t>();
  if (Status status = reader.End(); !status.ok()) return reply.Fail(status);
  constexpr size_t kMostWatchers = 1024;
  Status refused;
  {
    std::lock_guard lock(mutex_);
    if (!connected_) refused = Status(ErrorCode::kUsage, "this NN worker is not connected yet");
    if (watchers_.size() >= kMostWatchers) refused = Status(ErrorCode::kUsage, "too many watch this NN worker");
    if (refused.ok()) {
      const auto until = SteadyClock::now() + std::chrono::milliseconds(options_.heartbeat_ms);
      watchers_.push_back({version, until, std::move(reply)});
    }
  }
  if (!refused.ok()) return reply.Fail(refused);
  changed_.notify_all();
}

void NnServer::WatchLoop() {
  std::unique_lock lock(mutex_);
  const auto due = [&](const Watcher& watcher) {
    return watcher.version != version_ || closing_ || watcher.until <= SteadyClock::now();
  };
  while (!closing_ || !watchers_.empty()) {
    if (std::ranges::none_of(watchers_, due)) {
      auto until = SteadyClock::now() + std::chrono::milliseconds(options_.heartbeat_ms);
      for (const Watcher& watcher : watchers_) until = std::min(until, watcher.until);
      changed_.wait_until(lock, until);
      continue;
    }
    std::vector<Watcher> answered;
    for (Watcher& watcher : watchers_) {
      if (due(watcher)) answered.push_back(std::move(watcher));
    }
    std::erase_if(watchers_, [&](const Watcher& watcher) { return due(watcher); });
    const NnState state = StateNow();
    lock.unlock();
    for (Watcher& watcher : answered) watcher.reply.Send(Payload(EncodeState(state)));
    lock.lock();
  }
}

NnState NnServer::StateNow() const {
  const GateState gate = worker_->gate().state();
  const TrainedTotals::Values totals = totals_.values();
  NnState state;
  state.version = version_;
  state.control = control_;
  state.applied = gate.applied;
  state.at_rest = gate.at_rest;
  state.staleness = gate.Staleness();
  state.histogram = worker_->gate().histogram();
  state.samples = totals.samples;
  state.loss_sum = totals.loss_sum;
  state.loss_steps = totals.loss_steps;
  state.ended = ended_;
  state.failure = failure_;
  for (const StageMeter* stage : worker_->stages()) {
    state.stages.push_back({stage->name(), stage->worker(), stage->totals()});
  }
  if (dense_store_ != nullptr) state.dense_staleness = dense_store_->staleness();
  state.scaling = scaler_->state();
  const uint64_t skipped = state.scaling.skipped - skipped_before_;
  state.dense_updates = dense_store_ != nullptr ? dense_store_->updates() : dense_ahead_ + gate.applied - skipped;
  return state;
}

NnServer::Answer NnServer::Control(const RpcRequest& request) {
  const Result<NnControl> control = DecodeControl(request.payload.bytes());
  if (!control.ok()) return control.status();
  worker_->gate().Resume(control.value().pause_at);
  worker_->gate().Drain(control.value().drained_to);
  {
    std::lock_guard lock(mutex_);
    control_ = std::max(control_, control.value().number);
  }
  Changed();
  return Buffer();
}

// ---- prediction -----------------------------------------------------------------------------------------------------

NnServer::Answer NnServer::Predict(const RpcRequest& request) {
  const DenseModelConfig& model = options_.config.dense;
  WireReader reader(request.payload.bytes());
  const auto rows = reader.Value<uint32_t>();
  if (reader.left() != size_t{rows} * model.input_width() * sizeof(float)) reader.Fail("input of another size");
  PERSIA_RETURN_IF_ERROR(reader.status());
  std::vector<float> input(size_t{rows} * model.input_width()), outputs(rows * model.tasks.size());
  reader.Rows(WireFormat::kFp32, rows, model.input_width(), input.data());
  PERSIA_RETURN_IF_ERROR(worker_->dense().Predict(rows, input.data(), outputs.data()));
  WireWriter writer;
  writer.Raw(std::as_bytes(std::span<const float>(outputs)));
  return writer.Take();
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

Result<std::span<float>> NnServer::RangeOf(WireReader& reader) {
  const TensorRange range = ReadTensorRange(reader);
  PERSIA_RETURN_IF_ERROR(reader.status());
  const std::vector<NamedTensor> tensors = dense_model().Tensors();
  if (range.tensor >= tensors.size() || range.count > kTensorPiece ||
      range.begin > tensors[range.tensor].values.size() ||
      range.count > tensors[range.tensor].values.size() - range.begin) {
    return Status(ErrorCode::kProtocol, "values of tensor " + std::to_string(range.tensor) + " that are not there");
  }
  return tensors[range.tensor].values.subspan(range.begin, range.count);
}

NnServer::Answer NnServer::ReadTensor(const RpcRequest& request) {
  WireReader reader(request.payload.bytes());
  const auto values = RangeOf(reader);
  if (!values.ok()) return values.status();
  WireWriter writer;
  writer.Raw(std::as_bytes(values.value()));
  return writer.Take();
}

NnServer::Answer NnServer::WriteTensor(const RpcRequest& request) {
  WireReader reader(request.payload.bytes());
  const auto values = RangeOf(reader);
  if (!values.ok()) return values.status();
  reader.Rows(WireFormat::kFp32, values.value().size(), 1, values.value().data());
  PERSIA_RETURN_IF_ERROR(reader.End());
  PERSIA_RETURN_IF_ERROR(dense_model().WriteTensors());
  return Buffer();
}

NnServer::Answer NnServer::ReadInFlight(const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const auto step = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  for (const InFlight& lookup : worker_->in_flight()) {
    if (lookup.step != step) continue;
    WireWriter writer;
    const uint32_t width = options_.config.schema.embedding_width;
    for (size_t row = 0; row < lookup.rows; ++row) {
      writer.Rows(WireFormat::kFp32, lookup.pooled + row * lookup.stride, 1, width);
    }
    return writer.Take();
  }
  return Status(ErrorCode::kUsage, "no lookup of step " + std::to_string(step) + " is in flight");
}

NnServer::Answer NnServer::RestoreLookup(const RpcRequest& request) {
  WireReader reader(request.payload.bytes());
  const auto step = reader.Value<uint64_t>();
  const auto global_rows = reader.Value<uint32_t>();
  const uint32_t width = options_.config.schema.embedding_width;
  const PartRows part = PartOfWorker(global_rows, options_.rank, options_.config.nn_workers);
  if (reader.left() != size_t{part.rows} * width * sizeof(float)) reader.Fail("embeddings of another size");
  PERSIA_RETURN_IF_ERROR(reader.status());
  AlignedBuffer<float> pooled(size_t{part.rows} * width);
  reader.Rows(WireFormat::kFp32, part.rows, width, pooled.data());
  PERSIA_RETURN_IF_ERROR(reader.End());
  worker_->RestoreLookup(step, global_rows, std::move(pooled));
  return Buffer();
}

NnServer::Answer NnServer::StartAfter(const RpcRequest& request) {
  const Result<NnStart> decoded = DecodeStart(request.payload.bytes());
  if (!decoded.ok()) return decoded.status();
  const NnStart& start = decoded.value();
  if (dense_store_ != nullptr) dense_store_->RestoreUpdates(start.dense_updates);
  worker_->StartAfter(start.step, static_cast<int64_t>(start.dense_updates - start.step));
  {
    std::lock_guard lock(mutex_);
    if (start.scaling) scaler_->Restore(*start.scaling);
    skipped_before_ = scaler_->state().skipped;
    next_step_ = start.step + 1;
    dense_ahead_ = start.dense_updates - start.step;
  }
  Changed();
  return Buffer();
}

}  // namespace persia
