#include "store/local_store.h"

#include <algorithm>
#include <string>

#include "base/rng.h"

namespace persia {
namespace {

// `buffer` is where the embeddings go or the gradients come from.
Status CheckBlock(uint32_t row_class, size_t classes, size_t signs, const void* buffer) {
  if (row_class >= classes) {
    return Status(ErrorCode::kInternal, "A request names row class " + std::to_string(row_class) + " of " +
                                            std::to_string(classes) + ".");
  }
  if (signs > 0 && buffer == nullptr) {
    return Status(ErrorCode::kInternal, "A request with " + std::to_string(signs) + " signs of row class " +
                                            std::to_string(row_class) + " comes without a buffer.");
  }
  return Status::Ok();
}

// What a request is called in random draws: two workers with the same sequence draw independently.
uint64_t RequestKey(RequestId id) { return RandomKey(id.worker, id.sequence); }

Status OutOfOrder(RequestId id, uint64_t last_applied) {
  return Status(ErrorCode::kInternal, "Worker " + std::to_string(id.worker) + " sent request " +
                                          std::to_string(id.sequence) + ", but the last one applied is " +
                                          std::to_string(last_applied) + "; requests come in order, without gaps.")
      .With("worker", std::to_string(id.worker))
      .With("sequence", std::to_string(id.sequence))
      .With("lastApplied", std::to_string(last_applied));
}

}  // namespace

LocalStore::LocalStore(const std::vector<TableOptions>& tables) {
  for (const TableOptions& options : tables) tables_.push_back(std::make_unique<Table>(options));
}

Status LocalStore::Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) {
  for (const LookupBlock& block : blocks) {
    PERSIA_RETURN_IF_ERROR(CheckBlock(block.row_class, tables_.size(), block.signs.size(), block.out));
  }
  for (const LookupBlock& block : blocks) {
    tables_[block.row_class]->Gather(block.signs, mode, RequestKey(id), block.out);
  }
  return Status::Ok();
}

Status LocalStore::Apply(RequestId id, std::span<const GradientBlock> blocks) {
  for (const GradientBlock& block : blocks) {
    PERSIA_RETURN_IF_ERROR(CheckBlock(block.row_class, tables_.size(), block.signs.size(), block.gradients));
  }
  Worker& worker = WorkerOf(id.worker);
  std::lock_guard lock(worker.mutex);
  if (id.sequence == 0 || id.sequence > worker.last_applied + 1) return OutOfOrder(id, worker.last_applied);
  if (id.sequence <= worker.last_applied) return Status::Ok();  // a retry of what was applied already
  for (const GradientBlock& block : blocks) {
    tables_[block.row_class]->Apply(block.signs, block.gradients, RequestKey(id));
  }
  worker.last_applied = id.sequence;
  return Status::Ok();
}

LocalStore::Worker& LocalStore::WorkerOf(uint64_t worker) {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Worker>& entry = workers_[worker];
  if (entry == nullptr) entry = std::make_unique<Worker>();
  return *entry;
}

uint32_t LocalStore::row_class_count() const { return static_cast<uint32_t>(tables_.size()); }

uint32_t LocalStore::row_width(uint32_t row_class) const {
  PERSIA_CHECK(row_class < tables_.size());
  return tables_[row_class]->row_width();
}

Status LocalStore::CheckClass(uint32_t row_class) const {
  if (row_class < tables_.size()) return Status::Ok();
  return Status(ErrorCode::kUsage, "There are " + std::to_string(tables_.size()) + " row classes, got number " +
                                       std::to_string(row_class) + ".");
}

Status LocalStore::CheckRows(uint32_t row_class, size_t rows, size_t floats) const {
  PERSIA_RETURN_IF_ERROR(CheckClass(row_class));
  const size_t width = tables_[row_class]->row_width();
  if (floats == rows * width) return Status::Ok();
  return Status(ErrorCode::kUsage, "A row of class " + std::to_string(row_class) + " with its state is " +
                                       std::to_string(width) + " floats, got " +
                                       std::to_string(rows == 0 ? floats : floats / rows) + ".");
}

Status LocalStore::Scan(uint32_t row_class, const RowVisitor& visit) const {
  PERSIA_RETURN_IF_ERROR(CheckClass(row_class));
  const Table& table = *tables_[row_class];
  table.Scan([&](uint64_t sign, const float* row, RowAge age) { visit(sign, {row, table.row_width()}, age); });
  return Status::Ok();
}

Status LocalStore::WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                             std::span<const RowAge> ages) {
  PERSIA_RETURN_IF_ERROR(CheckRows(row_class, signs.size(), rows.size()));
  PERSIA_CHECK(ages.empty() || ages.size() == signs.size());
  Table& table = *tables_[row_class];
  for (size_t i = 0; i < signs.size(); ++i) {
    const auto age = ages.empty() ? std::nullopt : std::optional<RowAge>(ages[i]);
    // Where no room could be made the table counts the row as refused.
    table.Write(signs[i], rows.data() + i * table.row_width(), age);
  }
  return Status::Ok();
}

Status LocalStore::ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                            uint8_t* found) const {
  PERSIA_RETURN_IF_ERROR(CheckRows(row_class, signs.size(), rows.size()));
  const Table& table = *tables_[row_class];
  for (size_t i = 0; i < signs.size(); ++i) {
    float* row = rows.data() + i * table.row_width();
    found[i] = table.Read(signs[i], row) ? 1 : 0;
    if (found[i] == 0) std::fill_n(row, table.row_width(), 0.0f);
  }
  return Status::Ok();
}

Status LocalStore::Clear() {
  for (const auto& table : tables_) table->Clear();
  return Status::Ok();
}

Result<uint64_t> LocalStore::RowCount(uint32_t row_class) const {
  PERSIA_RETURN_IF_ERROR(CheckClass(row_class));
  return tables_[row_class]->size();
}

TableCounters LocalStore::counters(uint32_t row_class) const {
  PERSIA_CHECK(row_class < tables_.size());
  return tables_[row_class]->counters();
}

std::vector<TableCounters> LocalStore::group_counters(uint32_t row_class) const {
  PERSIA_CHECK(row_class < tables_.size());
  return tables_[row_class]->group_counters();
}

Result<std::vector<uint64_t>> LocalStore::SaveState(uint32_t row_class) const {
  PERSIA_RETURN_IF_ERROR(CheckClass(row_class));
  return tables_[row_class]->SaveState();
}

Result<bool> LocalStore::RestoreState(uint32_t row_class, std::span<const uint64_t> state) {
  PERSIA_RETURN_IF_ERROR(CheckClass(row_class));
  return tables_[row_class]->RestoreState(state);
}

Result<std::vector<RequestId>> LocalStore::AppliedRequests() const {
  std::vector<RequestId> requests;
  std::lock_guard lock(mutex_);
  for (const auto& [id, worker] : workers_) {
    std::lock_guard worker_lock(worker->mutex);
    if (worker->last_applied > 0) requests.push_back({id, worker->last_applied});
  }
  return requests;
}

Status LocalStore::RestoreAppliedRequests(std::span<const RequestId> requests) {
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, worker] : workers_) {
      std::lock_guard worker_lock(worker->mutex);
      worker->last_applied = 0;
    }
  }
  for (const RequestId& request : requests) {
    Worker& worker = WorkerOf(request.worker);
    std::lock_guard lock(worker.mutex);
    worker.last_applied = request.sequence;
  }
  return Status::Ok();
}

}  // namespace persia
