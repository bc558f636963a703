// Predictor: outputs of the dense network of several NN workers, outside of training.
//
// While training moves, a prediction takes a worker's network between two of its steps, with the worker's share of the
// threads: the others are at work. While nothing moves it takes a copy of the weights with all threads, which is made
// when it is first needed, and again when steps were trained since.
//
// Thread-safety: externally synchronised.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "trainer/dense_training.h"

namespace persia {

class Predictor {
 public:
  // `config` is the copy's. `training`, which outlives this, has the weights.
  Predictor(const DenseModelConfig& config, DenseTraining& training) : config_(config), training_(training) {}

  // Outputs for (rows, input_width). `resting_at`: the last step that was trained, if nothing moves.
  Status Predict(std::optional<uint64_t> resting_at, uint32_t rows, const float* input, float* outputs);

  // Weights have changed otherwise.
  void Forget() { copied_at_.reset(); }

 private:
  const DenseModelConfig config_;
  DenseTraining& training_;
  std::unique_ptr<DenseModel> copy_;
  std::optional<uint64_t> copied_at_;
};

}  // namespace persia
