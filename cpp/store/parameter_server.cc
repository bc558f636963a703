#include "store/parameter_server.h"

#include <algorithm>
#include <string>
#include <utility>

#include "store/scan_sessions.h"

namespace persia {
namespace {

std::vector<uint32_t> DimsOf(const std::vector<TableOptions>& tables) {
  std::vector<uint32_t> dims;
  for (const TableOptions& table : tables) dims.push_back(table.dim);
  return dims;
}

Status BadClass(uint32_t row_class) {
  return Status(ErrorCode::kProtocol, "a request names row class " + std::to_string(row_class));
}

// A part of a step, in memory of its own until the step is applied.
struct Part {
  std::vector<ClassRows> classes;
  std::vector<GradientBlock> blocks;
};

template <typename T>
Buffer One(T value) {
  WireWriter writer;
  writer.Value(value);
  return writer.Take();
}

}  // namespace

ParameterServer::ParameterServer(std::shared_ptr<Transport> transport, const Options& options)
    : dims_(DimsOf(options.tables)),
      store_(options.tables),
      steps_(dims_, store_, options.steps),
      scans_(std::make_unique<ScanSessions>(store_, kMostScans)),
      rpc_(MakeRpcServer(std::move(transport), options.rpc)) {
  for (uint32_t c = 0; c < dims_.size(); ++c) widths_.push_back(store_.row_width(c));
  Register();
}

ParameterServer::~ParameterServer() { Close(); }

void ParameterServer::Close() {
  scans_->Close();  // handlers may wait for a piece
  rpc_->Close();
}

void ParameterServer::On(uint16_t type, bool idempotent, std::function<Answer(const RpcRequest& request)> answer) {
  rpc_->Register(
      type,
      [answer = std::move(answer)](RpcRequest request, RpcReply reply) {
        Answer result = answer(request);
        if (!result.ok()) return reply.Fail(result.status());
        reply.Send(Payload(std::move(*result)));
      },
      {.idempotent = idempotent});
}

void ParameterServer::Register() {
  namespace type = store_request;
  rpc_->Register(
      type::kLookup, [this](RpcRequest request, RpcReply reply) { Lookup(request, std::move(reply)); },
      {.idempotent = true});
  rpc_->Register(type::kApply, [this](RpcRequest request, RpcReply reply) { Apply(request, std::move(reply)); });
  On(type::kLeave, true, [this](const RpcRequest& request) -> Answer {
    WireReader reader(request.payload.bytes());
    const auto rank = reader.Value<uint32_t>();
    PERSIA_RETURN_IF_ERROR(reader.End());
    steps_.Leave(rank);
    return Buffer();
  });
  On(type::kWrite, false, [this](const RpcRequest& request) { return Write(request); });
  On(type::kRead, true, [this](const RpcRequest& request) { return Read(request); });
  On(type::kClear, false, [this](const RpcRequest&) -> Answer {
    PERSIA_RETURN_IF_ERROR(store_.Clear());
    return Buffer();
  });
  On(type::kCounters, true, [this](const RpcRequest&) -> Answer { return EncodeCounters(Counters()); });
  On(type::kApplied, true, [this](const RpcRequest&) -> Answer {
    const auto applied = store_.AppliedRequests();
    if (!applied.ok()) return applied.status();
    return EncodeRequestIds(applied.value());
  });
  On(type::kRestoreApplied, false, [this](const RpcRequest& request) { return RestoreApplied(request); });
  On(type::kScanNext, false, [this](const RpcRequest& request) -> Answer {
    WireReader reader(request.payload.bytes());
    const auto scan = reader.Value<uint64_t>();
    PERSIA_RETURN_IF_ERROR(reader.End());
    return scans_->Next(scan);
  });
  // Those about one row class.
  const auto on_class = [this](uint16_t request_type, auto answer) {
    On(request_type, false, [this, answer](const RpcRequest& request) -> Answer {
      WireReader reader(request.payload.bytes());
      const auto row_class = reader.Value<uint32_t>();
      if (row_class >= dims_.size()) return BadClass(row_class);
      return answer(row_class, reader);
    });
  };
  on_class(type::kScan, [this](uint32_t row_class, WireReader&) -> Answer { return One(scans_->Start(row_class)); });
  on_class(type::kRowCount,
           [this](uint32_t row_class, WireReader&) -> Answer { return One(store_.RowCount(row_class).value()); });
  on_class(type::kSaveState, [this](uint32_t row_class, WireReader&) -> Answer {
    WireWriter writer;
    writer.Ids(IdCodec::kRaw, store_.SaveState(row_class).value());
    return writer.Take();
  });
  on_class(type::kRestoreState, [this](uint32_t row_class, WireReader& reader) -> Answer {
    const std::vector<uint64_t> words = reader.Ids(IdCodec::kRaw, kMostListed);
    PERSIA_RETURN_IF_ERROR(reader.End());
    return One(static_cast<uint8_t>(store_.RestoreState(row_class, words).value() ? 1 : 0));
  });
}

// ---- steps ----------------------------------------------------------------------------------------------------------

void ParameterServer::Lookup(const RpcRequest& request, RpcReply reply) {
  WireReader reader(request.payload.bytes());
  const auto rank = reader.Value<uint32_t>();
  const auto step = reader.Value<uint64_t>();
  const auto mode = static_cast<LookupMode>(reader.Value<uint8_t>());
  std::vector<ClassRows> classes = ReadSigns(reader, request.flags, dims_, false);
  if (mode != LookupMode::kTrain && mode != LookupMode::kReadOnly) reader.Fail("a lookup of an unknown mode");
  if (Status status = reader.End(); !status.ok()) return reply.Fail(status);
  size_t bytes = 0;
  for (const ClassRows& one : classes) bytes += WireRowBytes(request.flags.format, one.signs.size(), dims_[one.row_class]);
  if (Status status = CheckAnswerBytes(bytes); !status.ok()) return reply.Fail(status);
  std::vector<LookupBlock> blocks;
  for (ClassRows& one : classes) {
    one.rows.resize(one.signs.size() * dims_[one.row_class]);
    blocks.push_back({one.row_class, one.signs, one.rows.data()});
  }
  if (Status status = steps_.Lookup({rank, step}, mode, blocks); !status.ok()) return reply.Fail(status);
  WireWriter writer;
  for (const ClassRows& one : classes) {
    writer.Rows(request.flags.format, one.rows.data(), one.signs.size(), dims_[one.row_class]);
  }
  reply.Send(Payload(writer.Take()), {request.flags.format});
}

void ParameterServer::Apply(const RpcRequest& request, RpcReply reply) {
  WireReader reader(request.payload.bytes());
  const auto rank = reader.Value<uint32_t>();
  const auto step = reader.Value<uint64_t>();
  const auto part = std::make_shared<Part>();
  part->classes = ReadSigns(reader, request.flags, dims_, true);
  if (Status status = reader.End(); !status.ok()) return reply.Fail(status);
  for (const ClassRows& one : part->classes) part->blocks.push_back({one.row_class, one.signs, one.rows.data()});
  const auto answer = std::make_shared<RpcReply>(std::move(reply));  // std::function wants what can be copied
  steps_.Bring({rank, step}, part->blocks, [part, answer](const Status& status) {
    if (status.ok()) return answer->Send(Payload());
    answer->Fail(status);
  });
}

// ---- whole rows -----------------------------------------------------------------------------------------------------

ParameterServer::Answer ParameterServer::Write(const RpcRequest& request) {
  const auto rows = DecodeWholeRows(request.payload.bytes(), request.flags, widths_);
  if (!rows.ok()) return rows.status();
  const WholeRows& some = rows.value();
  PERSIA_RETURN_IF_ERROR(store_.WriteMany(some.row_class, some.signs, some.rows, some.ages));
  return Buffer();
}

ParameterServer::Answer ParameterServer::Read(const RpcRequest& request) const {
  WireReader reader(request.payload.bytes());
  const auto row_class = reader.Value<uint32_t>();
  const std::vector<uint64_t> signs = reader.Ids(request.flags.codec, kMostListed);
  PERSIA_RETURN_IF_ERROR(reader.End());
  if (row_class >= dims_.size()) return BadClass(row_class);
  PERSIA_RETURN_IF_ERROR(CheckAnswerBytes(signs.size() * (sizeof(uint8_t) + widths_[row_class] * sizeof(float))));
  std::vector<float> rows(signs.size() * widths_[row_class]);
  std::vector<uint8_t> found(signs.size());
  PERSIA_RETURN_IF_ERROR(store_.ReadMany(row_class, signs, rows, found.data()));
  WireWriter writer;
  writer.Raw(std::as_bytes(std::span<const uint8_t>(found)));
  writer.Raw(std::as_bytes(std::span<const float>(rows)));
  return writer.Take();
}

// ---- counters and states --------------------------------------------------------------------------------------------

ParameterServer::Answer ParameterServer::RestoreApplied(const RpcRequest& request) {
  const auto ids = DecodeRequestIds(request.payload.bytes());
  if (!ids.ok()) return ids.status();
  PERSIA_RETURN_IF_ERROR(store_.RestoreAppliedRequests(ids.value()));
  uint64_t step = 0;
  for (const RequestId& id : ids.value()) step = std::max(step, id.sequence);
  steps_.StartAfter(step);
  return Buffer();
}

StoreCounters ParameterServer::Counters() const {
  StoreCounters counters;
  for (uint32_t c = 0; c < dims_.size(); ++c) {
    auto& tables = counters.classes.emplace_back(1, store_.counters(c));
    std::ranges::copy(store_.group_counters(c), std::back_inserter(tables));
  }
  counters.row_staleness = steps_.row_staleness();
  return counters;
}

}  // namespace persia
