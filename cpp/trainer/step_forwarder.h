// StepForwarder: brings a batch to where it is trained, as one step.
//
//   ids of each part ─────────────────────────► its embedding worker, which holds them
//   then dense, labels, masks of each part ───► its NN worker, which looks the ids up at once
//
// What a data loader of a cluster does with a batch: the driver with its own, every other one when the driver says so.
//
// Thread-safety: any thread; several steps may be on their way at once, in any order.
#pragma once

#include <cstdint>
#include <memory>

#include "batch/batch.h"
#include "net/role_clients.h"
#include "trainer/model_trainer.h"

namespace persia {

class StepForwarder {
 public:
  // All outlive it; `codec` packs the ids.
  StepForwarder(const TrainerConfig& config, const RoleClients& embedding_workers, const RoleClients& nn_workers,
                IdCodec codec)
      : config_(config), embedding_workers_(embedding_workers), nn_workers_(nn_workers), codec_(codec) {}

  // Of a batch that CheckTrainingBatch accepts. Returns when every NN worker has its part in a slot. Errors of
  // RoleClients, and what the processes answer.
  Status Forward(const std::shared_ptr<const Batch>& batch, uint64_t step) const;

 private:
  Status HoldIds(const Batch& batch, uint64_t step) const;
  Status SendParts(const std::shared_ptr<const Batch>& batch, uint64_t step) const;

  const TrainerConfig& config_;
  const RoleClients &embedding_workers_, &nn_workers_;
  const IdCodec codec_;
};

}  // namespace persia
