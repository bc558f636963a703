// A parameter store that hands everything on to a LocalStore, for tests that slow it down, break it or watch it.
#pragma once

#include <memory>
#include <vector>

#include "store/local_store.h"

namespace persia {

class StoreWrapper : public ParameterStore {
 public:
  explicit StoreWrapper(const std::vector<TableOptions>& tables) : store_(tables) {}

  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override {
    return store_.Lookup(id, mode, blocks);
  }
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override { return store_.Apply(id, blocks); }
  uint32_t row_class_count() const override { return store_.row_class_count(); }
  uint32_t row_width(uint32_t row_class) const override { return store_.row_width(row_class); }
  Status Scan(uint32_t row_class, const RowVisitor& visit) const override { return store_.Scan(row_class, visit); }
  Status WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                   std::span<const RowAge> ages) override {
    return store_.WriteMany(row_class, signs, rows, ages);
  }
  Status ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                  uint8_t* found) const override {
    return store_.ReadMany(row_class, signs, rows, found);
  }
  Result<uint64_t> RowCount(uint32_t row_class) const override { return store_.RowCount(row_class); }
  Status Clear() override { return store_.Clear(); }
  TableCounters counters(uint32_t row_class) const override { return store_.counters(row_class); }
  std::vector<TableCounters> group_counters(uint32_t row_class) const override {
    return store_.group_counters(row_class);
  }
  Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const override { return store_.SaveState(row_class); }
  Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) override {
    return store_.RestoreState(row_class, state);
  }
  Result<std::vector<RequestId>> AppliedRequests() const override { return store_.AppliedRequests(); }
  Status RestoreAppliedRequests(std::span<const RequestId> requests) override {
    return store_.RestoreAppliedRequests(requests);
  }

 protected:
  LocalStore store_;
};

}  // namespace persia
