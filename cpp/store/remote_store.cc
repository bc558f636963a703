#include "store/remote_store.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/copy.h"
#include "store/sharding.h"
#include "table/row_optimizer.h"

namespace persia {
namespace {

// The places in `signs` of what each server holds.
class Routes {
 public:
  Routes(std::span<const uint64_t> signs, uint32_t servers) : places_(servers) {
    for (auto& places : places_) places.reserve(signs.size() / servers + signs.size() / 16 + 8);
    for (uint32_t i = 0; i < signs.size(); ++i) places_[ServerOf(signs[i], servers)].push_back(i);
  }

  const std::vector<uint32_t>& places(uint32_t server) const { return places_[server]; }

  std::vector<uint64_t> Pick(uint32_t server, std::span<const uint64_t> signs) const {
    std::vector<uint64_t> picked;
    picked.reserve(places(server).size());
    for (const uint32_t place : places(server)) picked.push_back(signs[place]);
    return picked;
  }
  std::vector<float> Pick(uint32_t server, const float* rows, size_t width) const {
    std::vector<float> picked(places(server).size() * width);
    float* to = picked.data();
    for (const uint32_t place : places(server)) {
      CopyFloats(to, rows + place * width, width);
      to += width;
    }
    return picked;
  }
  void Place(uint32_t server, const float* from, size_t width, float* rows) const {
    for (const uint32_t place : places(server)) {
      CopyFloats(rows + place * width, from, width);
      from += width;
    }
  }

 private:
  std::vector<std::vector<uint32_t>> places_;  // by server
};

// One for each block of a call.
template <typename Block>
std::vector<Routes> RoutesOf(std::span<const Block> blocks, uint32_t servers) {
  std::vector<Routes> routes;
  for (const Block& block : blocks) routes.emplace_back(block.signs, servers);
  return routes;
}

uint32_t NonEmpty(const std::vector<Routes>& routes, uint32_t server) {
  return static_cast<uint32_t>(
      std::ranges::count_if(routes, [&](const Routes& route) { return !route.places(server).empty(); }));
}

WireWriter StartStep(RequestId id) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(id.worker));
  writer.Value(id.sequence);
  return writer;
}

Payload ClassRequest(uint32_t row_class) {
  WireWriter writer;
  writer.Value(row_class);
  return Payload(writer.Take());
}

}  // namespace

RemoteStore::RemoteStore(const std::vector<TableOptions>& tables, const RoleClients& servers, const Wire& wire)
    : servers_(servers), wire_(wire) {
  for (const TableOptions& table : tables) {
    dims_.push_back(table.dim);
    widths_.push_back(RowOptimizer(table.optimizer, table.dim).row_width());
  }
}

// ---- rows of steps --------------------------------------------------------------------------------------------------

Status RemoteStore::Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) {
  const WireFlags flags{wire_.rows, wire_.codec};
  const std::vector<Routes> routes = RoutesOf(blocks, servers_.size());
  std::vector<std::optional<Payload>> requests(servers_.size());
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    const uint32_t count = NonEmpty(routes, server);
    if (count == 0) continue;
    WireWriter writer = StartStep(id);
    writer.Value(static_cast<uint8_t>(mode));
    writer.Value(count);
    for (size_t b = 0; b < blocks.size(); ++b) {
      if (routes[b].places(server).empty()) continue;
      WriteSigns(writer, flags, blocks[b].row_class, routes[b].Pick(server, blocks[b].signs));
    }
    requests[server] = Payload(writer.Take());
  }
  auto responses = servers_.CallMany({store_request::kLookup, flags}, std::move(requests));
  if (!responses.ok()) return responses.status();
  std::vector<float> rows;
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    WireReader reader((*responses)[server].payload.bytes());
    for (size_t b = 0; b < blocks.size(); ++b) {
      const uint32_t dim = dims_[blocks[b].row_class];
      const size_t count = routes[b].places(server).size();
      rows.resize(count * dim);
      reader.Rows((*responses)[server].flags.format, count, dim, rows.data());
      routes[b].Place(server, rows.data(), dim, blocks[b].out);
    }
    PERSIA_RETURN_IF_ERROR(reader.End());
  }
  return Status::Ok();
}

Status RemoteStore::Apply(RequestId id, std::span<const GradientBlock> blocks) {
  const WireFlags flags{wire_.gradients, wire_.codec};
  const std::vector<Routes> routes = RoutesOf(blocks, servers_.size());
  std::vector<std::optional<Payload>> requests(servers_.size());
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    WireWriter writer = StartStep(id);
    writer.Value(NonEmpty(routes, server));
    for (size_t b = 0; b < blocks.size(); ++b) {
      if (routes[b].places(server).empty()) continue;
      const uint32_t dim = dims_[blocks[b].row_class];
      const std::vector<float> rows = routes[b].Pick(server, blocks[b].gradients, dim);
      WriteSigns(writer, flags, blocks[b].row_class, routes[b].Pick(server, blocks[b].signs));
      writer.Rows(flags.format, rows.data(), rows.size() / dim, dim);
    }
    requests[server] = Payload(writer.Take());
  }
  return servers_.CallMany({store_request::kApply, flags}, std::move(requests)).status();
}

Status RemoteStore::Leave(uint32_t rank) {
  return servers_.CallAll({store_request::kLeave}, [&] { return ClassRequest(rank); }).status();
}

// ---- whole rows -----------------------------------------------------------------------------------------------------

Status RemoteStore::Scan(uint32_t row_class, const RowVisitor& visit) const {
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    PERSIA_RETURN_IF_ERROR(ScanServer(server, row_class, visit));
  }
  return Status::Ok();
}

Status RemoteStore::ScanServer(uint32_t server, uint32_t row_class, const RowVisitor& visit) const {
  const auto scan = servers_.Call(server, {store_request::kScan}, ClassRequest(row_class));
  if (!scan.ok()) return scan.status();
  WireReader opened(scan.value().payload.bytes());
  const auto number = opened.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(opened.End());
  while (true) {
    WireWriter writer;
    writer.Value(number);
    const auto response = servers_.Call(server, {store_request::kScanNext}, Payload(writer.Take()));
    if (!response.ok()) return response.status();
    const auto rows = DecodeWholeRows(response.value().payload.bytes(), response.value().flags, widths_);
    if (!rows.ok()) return rows.status();
    const WholeRows& some = rows.value();
    if (some.signs.empty()) return Status::Ok();
    if (some.row_class != row_class) {
      return Status(ErrorCode::kProtocol, "a scan of row class " + std::to_string(row_class) + " brings rows of class " +
                                              std::to_string(some.row_class));
    }
    const size_t width = widths_[row_class];
    for (size_t i = 0; i < some.signs.size(); ++i) {
      visit(some.signs[i], {some.rows.data() + i * width, width}, some.ages.empty() ? RowAge{} : some.ages[i]);
    }
  }
}

Status RemoteStore::WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                              std::span<const RowAge> ages) {
  const WireFlags flags{WireFormat::kFp32, wire_.codec};
  const Routes routes(signs, servers_.size());
  std::vector<std::optional<Payload>> requests(servers_.size());
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    if (routes.places(server).empty()) continue;
    std::vector<RowAge> picked;
    for (const uint32_t place : routes.places(server)) {
      if (!ages.empty()) picked.push_back(ages[place]);
    }
    requests[server] = Payload(EncodeWholeRows(row_class, routes.Pick(server, signs),
                                               routes.Pick(server, rows.data(), widths_[row_class]), picked, flags));
  }
  return servers_.CallMany({store_request::kWrite, flags}, std::move(requests)).status();
}

Status RemoteStore::ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                             uint8_t* found) const {
  const WireFlags flags{WireFormat::kFp32, wire_.codec};
  const Routes routes(signs, servers_.size());
  std::vector<std::optional<Payload>> requests(servers_.size());
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    if (routes.places(server).empty()) continue;
    WireWriter writer;
    WriteSigns(writer, flags, row_class, routes.Pick(server, signs));
    requests[server] = Payload(writer.Take());
  }
  auto responses = servers_.CallMany({store_request::kRead, flags}, std::move(requests));
  if (!responses.ok()) return responses.status();
  const uint32_t width = widths_[row_class];
  std::vector<float> some;
  for (uint32_t server = 0; server < servers_.size(); ++server) {
    const std::vector<uint32_t>& places = routes.places(server);
    if (places.empty()) continue;
    WireReader reader((*responses)[server].payload.bytes());
    for (const uint32_t place : places) found[place] = reader.Value<uint8_t>();
    some.resize(places.size() * width);
    reader.Rows(WireFormat::kFp32, places.size(), width, some.data());
    PERSIA_RETURN_IF_ERROR(reader.End());
    routes.Place(server, some.data(), width, rows.data());
  }
  return Status::Ok();
}

Status RemoteStore::Clear() {
  return servers_.CallAll({store_request::kClear}, [] { return Payload(); }).status();
}

Result<uint64_t> RemoteStore::RowCount(uint32_t row_class) const {
  const auto responses = servers_.CallAll({store_request::kRowCount}, [&] { return ClassRequest(row_class); });
  if (!responses.ok()) return responses.status();
  uint64_t rows = 0;
  for (const RpcResponse& response : responses.value()) {
    WireReader reader(response.payload.bytes());
    rows += reader.Value<uint64_t>();
    PERSIA_RETURN_IF_ERROR(reader.End());
  }
  return rows;
}

// ---- counters and states --------------------------------------------------------------------------------------------

Result<StoreCounters> RemoteStore::Counters(uint64_t deadline_ms) const {
  const RoleCall call{store_request::kCounters, {}, true, deadline_ms};
  const auto responses = servers_.CallAll(call, [] { return Payload(); });
  if (!responses.ok()) return responses.status();
  StoreCounters sum;
  sum.classes.resize(dims_.size());
  for (const RpcResponse& response : responses.value()) {
    const auto counters = DecodeCounters(response.payload.bytes());
    if (!counters.ok()) return counters.status();
    for (size_t c = 0; c < std::min(sum.classes.size(), counters.value().classes.size()); ++c) {
      const auto& tables = counters.value().classes[c];
      sum.classes[c].resize(tables.size());
      for (size_t i = 0; i < tables.size(); ++i) AddCounters(tables[i], &sum.classes[c][i]);
    }
    AddStaleness(counters.value().row_staleness, &sum.row_staleness);
  }
  return sum;
}

TableCounters RemoteStore::counters(uint32_t row_class) const {
  Result<StoreCounters> all = Counters(servers_.deadline_ms());
  return all.ok() && !all->classes[row_class].empty() ? all->classes[row_class].front() : TableCounters{};
}

std::vector<TableCounters> RemoteStore::group_counters(uint32_t row_class) const {
  Result<StoreCounters> all = Counters(servers_.deadline_ms());
  if (!all.ok() || all->classes[row_class].empty()) return {};
  return {all->classes[row_class].begin() + 1, all->classes[row_class].end()};
}

Result<std::vector<uint64_t>> RemoteStore::SaveState(uint32_t row_class) const {
  const auto responses = servers_.CallAll({store_request::kSaveState}, [&] { return ClassRequest(row_class); });
  if (!responses.ok()) return responses.status();
  std::vector<uint64_t> state;
  for (const RpcResponse& response : responses.value()) {
    WireReader reader(response.payload.bytes());
    std::vector<uint64_t> words = reader.Ids(IdCodec::kRaw, kMostListed);
    PERSIA_RETURN_IF_ERROR(reader.End());
    if (servers_.size() == 1) return words;
    // Number of groups, then the steps of each: a server counts those that brought it signs of the group.
    if (words.empty() || words[0] >= words.size()) continue;
    words.resize(1 + words[0]);
    state.resize(std::max(state.size(), words.size()));
    for (size_t i = 0; i < words.size(); ++i) state[i] = std::max(state[i], words[i]);
  }
  return state;
}

Result<bool> RemoteStore::RestoreState(uint32_t row_class, std::span<const uint64_t> state) {
  const auto responses = servers_.CallAll({store_request::kRestoreState}, [&] {
    WireWriter writer;
    writer.Value(row_class);
    writer.Ids(IdCodec::kRaw, state);
    return Payload(writer.Take());
  });
  if (!responses.ok()) return responses.status();
  bool taken = true;
  for (const RpcResponse& response : responses.value()) {
    WireReader reader(response.payload.bytes());
    taken = reader.Value<uint8_t>() != 0 && taken;
  }
  return taken;
}

// Every server has applied the same: the first one knows.
Result<std::vector<RequestId>> RemoteStore::AppliedRequests() const {
  const auto response = servers_.Call(0, {store_request::kApplied}, Payload());
  if (!response.ok()) return response.status();
  return DecodeRequestIds(response.value().payload.bytes());
}

Status RemoteStore::RestoreAppliedRequests(std::span<const RequestId> requests) {
  return servers_.CallAll({store_request::kRestoreApplied}, [&] { return Payload(EncodeRequestIds(requests)); })
      .status();
}

}  // namespace persia
