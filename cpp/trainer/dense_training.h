// DenseTraining: the dense half of an NN worker's step: forward, loss, backward on its part of the batch, and the way
// of the gradients to the weights.
//
//  - all-reduce (sync, hybrid): gradients are summed over all workers, bucket by bucket while backward computes; every
//    worker then steps an optimizer of its own. All see the same sums, so all weights stay the same, bit for bit.
//  - shared store (async): a worker pulls the weights, computes, and pushes its gradients to the one DenseStore, which
//    applies them on the spot. Nobody waits for anybody, and a gradient is that of weights which others have changed
//    meanwhile: the baseline whose accuracy hybrid is compared with.
//
// Accumulation: a part is trained in `accumulate` pieces whose gradients are added up before they go anywhere, so that
// activations take the memory of a piece.
//
// The loss is scaled in backward, and gradients are unscaled before they are clipped and applied. A step with gradients
// that are not finite is skipped: where gradients are summed over workers, by all of them, since all see the sums; in
// async by the one worker whose gradients they are.
//
// Thread-safety: Train and Abort, Predict and `model` as they say; a DenseStore is internally synchronised.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/status.h"
#include "collective/collective.h"
#include "dense/dense_model.h"
#include "dense/loss_scaler.h"

namespace persia {

// The rows of one worker in a step of all of them.
struct DensePart {
  uint64_t step = 0;            // of the trainer: the schedule goes by it
  uint64_t update = 0;          // of the dense optimizer, where every worker has one and skipped no step before
  uint32_t rows = 0;            // may be 0
  uint64_t global_rows = 0;     // of all workers
  const float* input = nullptr;   // (rows, input_width)
  const float* labels = nullptr;  // (rows, tasks)
  float* embedding_gradient = nullptr;  // (rows, embedding_width), written
};

struct DenseOutcome {
  double loss = 0.0;     // the part's share in the mean loss of all workers' rows
  bool skipped = false;  // gradients were not finite: nothing was applied, and no row may be updated
};

class DenseTraining {
 public:
  virtual ~DenseTraining() = default;

  // One step; one thread, steps in order. After an error peers that wait for this worker must be told: Abort.
  virtual Status Train(const DensePart& part, DenseOutcome* outcome) = 0;

  // Ends the waiting of all workers for each other, with this reason. Any thread.
  virtual void Abort(const Status& reason) = 0;

  // Outputs for (rows, input_width). Any thread; waits for a step under way.
  virtual Status Predict(uint32_t rows, const float* input, float* outputs) = 0;

  // The model whose weights and optimizer state are the worker's. Only while no step is under way.
  virtual DenseModel& model() = 0;
};

// `collective` of the worker's rank; empty for one worker alone. `scaler` is the worker's own: those of all workers are
// told the same, and so stay alike.
std::unique_ptr<DenseTraining> MakeAllReduceTraining(std::unique_ptr<DenseModel> model,
                                                     std::unique_ptr<Collective> collective,
                                                     std::shared_ptr<LossScaler> scaler, uint32_t accumulate);

// The weights and the optimizer that all workers share.
class DenseStore {
 public:
  explicit DenseStore(std::unique_ptr<DenseModel> model) : model_(std::move(model)) {}

  // Copies the weights to those of a replica; `pulled` is the number of updates that they have seen.
  Status Pull(DenseModel& replica, uint64_t* pulled);
  // Applies gradients of a step that were computed with the weights after `pulled` updates.
  Status Push(uint64_t step, std::span<const std::span<float>> gradients, uint64_t pulled);
  Status Predict(uint32_t rows, const float* input, float* outputs);

  DenseModel& model() { return *model_; }  // only while nobody trains

  // Updates so far; they count the steps of Adam's bias correction.
  uint64_t updates() const;
  void RestoreUpdates(uint64_t updates);

  // How many updates of others lay between pull and push: over all pushes, and at most.
  struct Staleness {
    uint64_t pushes = 0, sum = 0, most = 0;
  };
  Staleness staleness() const;

 private:
  mutable std::mutex mutex_;  // guards all of it
  std::unique_ptr<DenseModel> model_;
  uint64_t updates_ = 0;
  Staleness staleness_;
};

// `replica` is a model of the store's shape; its own optimizer is not used. `scaler` is shared by all workers.
std::unique_ptr<DenseTraining> MakeSharedStoreTraining(std::unique_ptr<DenseModel> replica,
                                                       std::shared_ptr<DenseStore> store,
                                                       std::shared_ptr<LossScaler> scaler, uint32_t accumulate);

}  // namespace persia
