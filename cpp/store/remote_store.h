// RemoteStore: the rows on the parameter servers of a cluster, as one store. Signs are routed by sharding.h; each call
// is one request to each server that it concerns, all on the way at once.
//
//   Apply goes to every server, also to those that get no sign: a server has to hear of each part of a step before it
//   applies the step. Its request ids are rank and step of the NN worker (step_store.h).
//
// What several servers know beside their rows can't be put together: SaveState then has the steps of the feature groups
// only, which RestoreState takes on any number of servers; rows keep their ages.
//
// Errors: kPeerLost names a server that does not answer.
//
// Thread-safety: internally synchronised.
#pragma once

#include <memory>
#include <vector>

#include "net/role_clients.h"
#include "store/parameter_store.h"
#include "store/store_messages.h"

namespace persia {

class RemoteStore final : public ParameterStore {
 public:
  struct Wire {
    WireFormat rows = WireFormat::kFp32;
    WireFormat gradients = WireFormat::kFp32;
    IdCodec codec = IdCodec::kRaw;
  };

  // `tables` as the servers have them. `servers` outlives this.
  RemoteStore(const std::vector<TableOptions>& tables, const RoleClients& servers, const Wire& wire);

  Status Lookup(RequestId id, LookupMode mode, std::span<const LookupBlock> blocks) override;
  Status Apply(RequestId id, std::span<const GradientBlock> blocks) override;
  // An NN worker brings nothing more: StepStore::Leave.
  Status Leave(uint32_t rank);

  uint32_t row_class_count() const override { return static_cast<uint32_t>(dims_.size()); }
  uint32_t row_width(uint32_t row_class) const override { return widths_[row_class]; }
  Status Scan(uint32_t row_class, const RowVisitor& visit) const override;
  Status WriteMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                   std::span<const RowAge> ages) override;
  Status ReadMany(uint32_t row_class, std::span<const uint64_t> signs, std::span<float> rows,
                  uint8_t* found) const override;
  Status Clear() override;
  Result<uint64_t> RowCount(uint32_t row_class) const override;
  // Sums over the servers. Zeros when one does not answer: Counters says why.
  TableCounters counters(uint32_t row_class) const override;
  std::vector<TableCounters> group_counters(uint32_t row_class) const override;
  Result<StoreCounters> Counters(uint64_t deadline_ms) const;
  Result<std::vector<uint64_t>> SaveState(uint32_t row_class) const override;
  Result<bool> RestoreState(uint32_t row_class, std::span<const uint64_t> state) override;
  Result<std::vector<RequestId>> AppliedRequests() const override;
  Status RestoreAppliedRequests(std::span<const RequestId> requests) override;

 private:
  Status ScanServer(uint32_t server, uint32_t row_class, const RowVisitor& visit) const;

  std::vector<uint32_t> dims_, widths_;  // by row class
  const RoleClients& servers_;
  const Wire wire_;
};

}  // namespace persia
