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
  Status Write(uint32_t row_class, uint64_t sign, std::span<const float> row, std::optional<RowAge> age) override {
    return store_.Write(row_class, sign, row, age);
  }
  Result<bool> Read(uint32_t row_class, uint64_t sign, std::span<float> row) const override {
    return store_.Read(row_class, sign, row);
  }
  Status Clear() override { return store_.Clear(); }
  TableCounters counters(uint32_t row_class) const override { return store_.counters(row_class); }
  std::vector<TableCounters> group_counters(uint32_t row_class) const override {
    return store_.group_counters(row_class);
  }
  Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const override { return store_.SaveState(row_class); }
  Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) override {
    return store_.RestoreState(row_class, state);
  }
  std::vector<RequestId> AppliedRequests() const override { return store_.AppliedRequests(); }
  void RestoreAppliedRequests(std::span<const RequestId> requests) override {
    store_.RestoreAppliedRequests(requests);
  }

 protected:
  LocalStore store_;
};

}  // namespace persia
