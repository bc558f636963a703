// HeldBatches: what an embedding worker keeps of batches between the data loader that brings their ids and the NN
// workers that train on them: under a PartRef, a plan for lookup and update.
//
//   data loader ── Hold(ref, ids) ──►  ref -> plan  ◄── Lookup(ref): pooled embeddings ── NN worker
//                                                   ◄── Update(ref): gradients, forgets ──
//
// It takes what it is given: whoever holds batches bounds their number (a trainer by its slots, the embedding server by
// its answers to data loaders). Plans are used again: nothing allocates in steady state.
//
// Thread-safety: internally synchronised; calls for one ref come one after another.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "batch/batch.h"
#include "store/step_store.h"
#include "worker/embedding_worker.h"
#include "worker/step_embeddings.h"

namespace persia {

class HeldBatches {
 public:
  // Both outlive this. `clips`: gradients of a part are those of a whole step, so their rows are clipped here; else
  // where parts are added up.
  HeldBatches(const EmbeddingWorker& worker, EmbeddingRows& rows, bool clips);

  // The batch was validated; it is not needed afterwards. A ref that is held already is replaced.
  void Hold(PartRef ref, const Batch& part);

  // kUsage: the ref is not held, or has other than `rows` samples. Shapes as in StepEmbeddings.
  Status Lookup(PartRef ref, uint32_t rows, float* pooled, size_t stride);
  Status Update(PartRef ref, uint32_t rows, const float* gradients, size_t stride);
  Status Skip(PartRef ref, uint32_t rows);

  Status CheckHeld(PartRef ref, uint32_t rows) { return Find(ref, rows).status(); }

  // Forgets what is held for a worker that is gone.
  void Drop(uint32_t rank);

  size_t held() const;
  const EmbeddingWorker& worker() const { return worker_; }

 private:
  // Shared with the call that uses it, so that a worker may be dropped meanwhile.
  using Plan = std::shared_ptr<EmbeddingPlan>;
  struct Held {
    PartRef ref;
    Plan plan;
  };

  Plan TakePlan();
  Result<Plan> Find(PartRef ref, uint32_t rows);
  Status Apply(PartRef ref, Plan plan);
  void Forget(PartRef ref);

  const EmbeddingWorker& worker_;
  EmbeddingRows& rows_;
  const bool clips_;
  mutable std::mutex mutex_;  // guards what follows, not the plans
  std::vector<Held> held_;
  std::vector<Plan> free_;  // a plan in use is not here
};

// The embeddings of NN worker `rank` in this process. All outlive the result.
std::unique_ptr<StepEmbeddings> MakeLocalEmbeddings(uint32_t rank, HeldBatches& batches, StepStore& store);

}  // namespace persia
