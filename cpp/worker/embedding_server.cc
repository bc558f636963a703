#include "worker/embedding_server.h"

#include <string>
#include <utility>

#include "base/aligned_buffer.h"

namespace persia {
namespace {

// One for each lookup and each update of an NN worker, and some for what doesn't wait for NN workers.
RpcServerOptions WithThreads(RpcServerOptions rpc, uint32_t nn_workers) {
  rpc.threads = 2 * nn_workers + 2;
  return rpc;
}

Buffer EncodePooled(WireFormat format, const AlignedBuffer<float>& pooled, size_t rows, uint32_t width) {
  WireWriter writer;
  writer.Rows(format, pooled.data(), rows, width);
  return writer.Take();
}

}  // namespace

EmbeddingServer::Connected::Connected(std::shared_ptr<Transport> transport, const Options& options,
                                      RoleClientsOptions peers)
    : servers(std::move(transport), std::move(peers)),
      store(options.tables, servers, options.wire),
      worker(options.schema, store),
      batches(worker, store, !options.merges) {}

EmbeddingServer::EmbeddingServer(std::shared_ptr<Transport> transport, Options options)
    : transport_(std::move(transport)),
      options_(std::move(options)),
      rpc_(MakeRpcServer(transport_, WithThreads(options_.rpc, options_.nn_workers))) {
  Register();
}

EmbeddingServer::~EmbeddingServer() { Close(); }

Status EmbeddingServer::Connect(RoleClientsOptions servers) {
  auto connected = std::make_unique<Connected>(transport_, options_, std::move(servers));
  PERSIA_RETURN_IF_ERROR(connected->servers.WaitUntilReady());
  std::lock_guard lock(mutex_);
  PERSIA_CHECK(connected_ == nullptr);
  connected_ = std::move(connected);
  return Status::Ok();
}

size_t EmbeddingServer::held() const {
  std::lock_guard lock(mutex_);
  return connected_ == nullptr ? 0 : connected_->batches.held();
}

void EmbeddingServer::Close() {
  {
    std::lock_guard lock(mutex_);
    if (connected_ != nullptr) connected_->servers.Close();  // handlers that wait for servers end
  }
  rpc_->Close();
}

void EmbeddingServer::On(uint16_t type, bool idempotent,
                         std::function<Answer(Connected& all, const RpcRequest& request)> answer) {
  rpc_->Register(
      type,
      [this, answer = std::move(answer)](RpcRequest request, RpcReply reply) {
        Connected* all;
        {
          std::lock_guard lock(mutex_);
          all = connected_.get();
        }
        if (all == nullptr) return reply.Fail(Status(ErrorCode::kUsage, "this embedding worker is not connected yet"));
        Answer result = answer(*all, request);
        if (!result.ok()) return reply.Fail(result.status());
        reply.Send(Payload(std::move(*result)), {request.flags.format});
      },
      {.idempotent = idempotent});
}

void EmbeddingServer::Register() {
  namespace type = embedding_request;
  On(type::kHold, false, [this](Connected& all, const RpcRequest& request) { return Hold(all, request); });
  On(type::kLookup, true, [this](Connected& all, const RpcRequest& request) { return Lookup(all, request); });
  On(type::kUpdate, false, [this](Connected& all, const RpcRequest& request) { return Update(all, request); });
  On(type::kSkip, false, [this](Connected& all, const RpcRequest& request) { return Skip(all, request); });
  On(type::kPredict, true, [this](Connected& all, const RpcRequest& request) { return Predict(all, request); });
  On(type::kLeave, false, [this](Connected& all, const RpcRequest& request) { return Leave(all, request); });
  On(type::kSeen, true, [this](Connected& all, const RpcRequest&) { return Seen(all); });
  On(type::kRestoreSeen, false,
     [this](Connected& all, const RpcRequest& request) { return RestoreSeen(all, request); });
}

// ---- batches --------------------------------------------------------------------------------------------------------

Status EmbeddingServer::CheckIds(const Batch& batch) const { return ValidateBatch(batch, options_.schema, 0, 0); }

EmbeddingServer::Answer EmbeddingServer::Hold(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const auto parts = reader.Value<uint32_t>();
  for (uint32_t i = 0; i < parts; ++i) {
    const PartHead part = ReadPart(reader);
    const auto ids = ReadIds(reader, request.flags.codec, part.rows, options_.schema.features.size());
    PERSIA_RETURN_IF_ERROR(reader.status());
    PERSIA_RETURN_IF_ERROR(CheckIds(ids->batch));
    if (all.batches.held() >= options_.most_held) {
      return Status(ErrorCode::kInternal, "this embedding worker holds " + std::to_string(options_.most_held) +
                                              " parts of steps already, as many as NN workers have room for");
    }
    all.batches.Hold(part.ref, ids->batch);
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return Buffer();
}

EmbeddingServer::Answer EmbeddingServer::Lookup(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const PartHead part = ReadPart(reader);
  PERSIA_RETURN_IF_ERROR(reader.End());
  const uint32_t width = options_.schema.embedding_width;
  // Before memory is taken.
  PERSIA_RETURN_IF_ERROR(all.batches.CheckHeld(part.ref, part.rows));
  PERSIA_RETURN_IF_ERROR(CheckAnswerBytes(WireRowBytes(request.flags.format, part.rows, width)));
  AlignedBuffer<float> pooled(size_t{part.rows} * width);
  PERSIA_RETURN_IF_ERROR(all.batches.Lookup(part.ref, part.rows, pooled.data(), width));
  return EncodePooled(request.flags.format, pooled, part.rows, width);
}

EmbeddingServer::Answer EmbeddingServer::Update(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const PartHead part = ReadPart(reader);
  const uint32_t width = options_.schema.embedding_width;
  if (WireRowBytes(request.flags.format, part.rows, width) != reader.left()) reader.Fail("gradients of another size");
  PERSIA_RETURN_IF_ERROR(reader.status());
  AlignedBuffer<float> gradients(size_t{part.rows} * width);
  reader.Rows(request.flags.format, part.rows, width, gradients.data());
  PERSIA_RETURN_IF_ERROR(reader.End());
  PERSIA_RETURN_IF_ERROR(all.batches.Update(part.ref, part.rows, gradients.data(), width));
  return Buffer();
}

EmbeddingServer::Answer EmbeddingServer::Skip(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const PartHead part = ReadPart(reader);
  PERSIA_RETURN_IF_ERROR(reader.End());
  PERSIA_RETURN_IF_ERROR(all.batches.Skip(part.ref, part.rows));
  return Buffer();
}

EmbeddingServer::Answer EmbeddingServer::Predict(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const auto rows = reader.Value<uint32_t>();
  const auto ids = ReadIds(reader, request.flags.codec, rows, options_.schema.features.size());
  PERSIA_RETURN_IF_ERROR(reader.End());
  PERSIA_RETURN_IF_ERROR(CheckIds(ids->batch));
  const uint32_t width = options_.schema.embedding_width;
  PERSIA_RETURN_IF_ERROR(CheckAnswerBytes(WireRowBytes(request.flags.format, rows, width)));
  AlignedBuffer<float> pooled(size_t{rows} * width);
  EmbeddingPlan plan;
  all.worker.Prepare(ids->batch, plan);
  PERSIA_RETURN_IF_ERROR(all.worker.Lookup({0, 0}, LookupMode::kReadOnly, plan, pooled.data(), width));
  return EncodePooled(request.flags.format, pooled, rows, width);
}

EmbeddingServer::Answer EmbeddingServer::Leave(Connected& all, const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const auto rank = reader.Value<uint32_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  PERSIA_RETURN_IF_ERROR(all.store.Leave(rank));
  all.batches.Drop(rank);
  return Buffer();
}

// ---- seen ids -------------------------------------------------------------------------------------------------------

EmbeddingServer::Answer EmbeddingServer::Seen(Connected& all) const {
  std::vector<std::vector<uint8_t>> seen;
  for (size_t f = 0; f < options_.schema.features.size(); ++f) seen.push_back(all.worker.SaveSeen(f));
  return EncodeSeen(seen);
}

EmbeddingServer::Answer EmbeddingServer::RestoreSeen(Connected& all, const RpcRequest& request) const {
  const auto seen = DecodeSeen(request.payload.bytes(), options_.schema.features.size());
  if (!seen.ok()) return seen.status();
  for (size_t f = 0; f < seen.value().size(); ++f) {
    if (all.worker.RestoreSeen(f, seen.value()[f])) continue;
    return Status(ErrorCode::kCheckpointDamaged, "impossible numbers of seen ids");
  }
  return Buffer();
}

}  // namespace persia
