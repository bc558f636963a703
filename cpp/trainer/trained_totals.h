// TrainedTotals: what the NN workers of this process have trained and applied, as they tell it.
//
// Thread-safety: internally synchronised.
#pragma once

#include <cstdint>
#include <mutex>

#include "trainer/nn_worker.h"

namespace persia {

class TrainedTotals {
 public:
  struct Values {
    uint64_t samples = 0;                // applied
    double loss_sum = 0, loss_steps = 0;  // as in TrainerProgress
  };

  // Has a worker tell them; they outlive it.
  void ListenTo(NnWorker::Events& events) {
    events.trained = [this](double loss, double share) {
      std::lock_guard lock(mutex_);
      values_.loss_sum += loss;
      values_.loss_steps += share;
    };
    events.applied = [this](uint32_t rows) {
      std::lock_guard lock(mutex_);
      values_.samples += rows;
    };
  }

  Values values() const {
    std::lock_guard lock(mutex_);
    return values_;
  }

  // Those of a checkpoint, before the first step.
  void StartAt(uint64_t samples) {
    std::lock_guard lock(mutex_);
    values_.samples = samples;
  }

 private:
  mutable std::mutex mutex_;
  Values values_;  // guarded by mutex_
};

}  // namespace persia
