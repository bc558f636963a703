// LocalStore: the parameter store inside this process, one Table for each row class.
//
// Thread-safety: internally synchronised (the tables by themselves, request numbers by a mutex a worker).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "store/parameter_store.h"

namespace persia {

class LocalStore : public ParameterStore {
 public:
  // One table for each entry of `tables`, in the order of the row classes.
  explicit LocalStore(const std::vector<TableOptions>& tables);

  // kInternal, with nothing changed: a row class that does not exist, a missing buffer, or (Apply) a sequence that is
  // 0 or leaves a gap behind the last one of the worker.
  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override;
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override;
  uint32_t row_class_count() const override;
  uint32_t row_width(uint32_t row_class) const override;
  // kUsage: a row class that does not exist, or rows of the wrong width.
  Status Scan(uint32_t row_class, const RowVisitor& visit) const override;
  Status WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                   std::span<const RowAge> ages) override;
  Status ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                  uint8_t* found) const override;
  Status Clear() override;  // removes the rows; the workers' sequences go on
  Result<uint64_t> RowCount(uint32_t row_class) const override;
  TableCounters counters(uint32_t row_class) const override;
  std::vector<TableCounters> group_counters(uint32_t row_class) const override;
  Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const override;
  Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) override;
  Result<std::vector<RequestId>> AppliedRequests() const override;
  Status RestoreAppliedRequests(std::span<const RequestId> requests) override;

 private:
  struct Worker {
    std::mutex mutex;           // held while a request is applied, so that a retry beside it waits for the outcome
    uint64_t last_applied = 0;  // guarded by mutex
  };

  Worker& WorkerOf(uint64_t worker);
  Status CheckClass(uint32_t row_class) const;
  Status CheckRows(uint32_t row_class, size_t rows, size_t floats) const;

  std::vector<std::unique_ptr<Table>> tables_;
  mutable std::mutex mutex_;                             // guards the map, not what it points to
  std::map<uint64_t, std::unique_ptr<Worker>> workers_;  // by worker id; entries are never removed
};

}  // namespace persia
