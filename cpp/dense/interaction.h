// Interactions of the input's fields, which tell the model types apart, behind two small interfaces.
//
//   below the hidden layers     input ──► below ──► hidden layers ──► outputs      DLRM; DCN-v2 stacked
//   beside the hidden layers    input ──────┬─────► hidden layers ──► outputs      DeepFM; DCN-v2 parallel
//                                           └─► beside ────────────────► +
//
// Their parameters lie in front of the hidden layers' in the flat arrays: backward comes to them last. Each keeps what
// its backward needs of the batch, as large as the largest batch so far.
//
// Thread-safety: externally synchronised; work is split among the team.
#pragma once

#include <memory>

#include "dense/dense_model.h"
#include "dense/linear.h"

namespace persia {

// Makes the input of the hidden layers.
class BelowInteraction {
 public:
  virtual ~BelowInteraction() = default;

  virtual uint32_t output_width() const = 0;

  // (rows, output_width) from the input (rows, input_width); valid until the next call.
  virtual const float* Forward(uint32_t rows, const float* input) = 0;

  // After Forward: where the gradient of its result is to be written before Backward, (rows, output_width).
  virtual float* OutputGradient() = 0;

  // Parameter gradients, and that of the pooled embeddings to embedding_gradient (rows, embedding_width).
  virtual void Backward(uint32_t rows, const float* input, float* embedding_gradient, BucketProgress& progress) = 0;
};

// Adds to the tasks' outputs.
class BesideInteraction {
 public:
  virtual ~BesideInteraction() = default;

  // Adds to outputs (rows, tasks).
  virtual void AddToOutputs(uint32_t rows, const float* input, float* outputs) = 0;

  // Parameter gradients from that of the outputs (rows, tasks); that of the pooled embeddings is added to
  // embedding_gradient (rows, embedding_width).
  virtual void Backward(uint32_t rows, const float* input, const float* output_gradient, float* embedding_gradient,
                        BucketProgress& progress) = 0;
};

// Each type puts its parameters into the layout first, then is made on a team that holds the flat arrays.
//
// The factorization machine of DeepFM (Guo, Tang, Ye, Li, He: "DeepFM: A Factorization-Machine based Neural Network
// for CTR Prediction", 2017): to each output comes
//     wᵀ · input + sum over pairs i < j of fields of <v_i, v_j>
// The paper's first order has a weight of its own for each id; here it is linear in the pooled embeddings and the dense
// features, "linear.weight" (tasks, input_width): an id's weight is then the product of a learnt vector of its field
// and its row, so ids need no second table. All tasks share the second order. The bias is that of the heads.
std::vector<Layer> FmLayers(const DenseModelConfig& config, Layout& layout);
std::unique_ptr<BesideInteraction> MakeFm(const DenseModelConfig& config, std::vector<Layer> layers, const Team& team);

// Cross layers of DCN-v2 (Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: "DCN V2: Improved Deep & Cross Network and
// Practical Lessons for Web-scale Learning to Rank Systems", 2021): with x0 the input,
//     x[l+1] = x0 ⊙ (W[l] · x[l] + b[l]) + x[l]
// "cross.<l>.weight" (width, width), or of low rank W = U · V: "cross.<l>.v.weight" (rank, width) and
// "cross.<l>.u.weight" (width, rank). Stacked, the hidden layers see the last x; beside them it goes to the outputs
// through "cross.head.weight" (tasks, width): that with the last hidden layer's head is the paper's head on both, side
// by side.
std::vector<Layer> CrossLayers(const DenseModelConfig& config, Layout& layout);
std::unique_ptr<BelowInteraction> MakeStackedCross(const DenseModelConfig& config, std::vector<Layer> layers,
                                                   const Team& team);
std::unique_ptr<BesideInteraction> MakeParallelCross(const DenseModelConfig& config, std::vector<Layer> layers,
                                                     const Team& team);

// The interaction of DLRM (Naumov et al.: "Deep Learning Recommendation Model for Personalization and Recommendation
// Systems", 2019): the dense features go through the bottom MLP ("bottom.<l>", ReLU after each layer) to the fields'
// dim; that vector v_0 and the fields v_1, v_2, … give
//     [v_0 | <v_1, v_0> | <v_2, v_0> | <v_2, v_1> | <v_3, v_0> | …]
// Without dense features there is no v_0.
std::vector<Layer> BottomLayers(const DenseModelConfig& config, Layout& layout);
std::unique_ptr<BelowInteraction> MakeDotInteraction(const DenseModelConfig& config, std::vector<Layer> bottom,
                                                     const Team& team);

// Width of what the dot interaction gives to the hidden layers.
uint32_t DotWidth(const DenseModelConfig& config);

}  // namespace persia
