#include "trainer/dense_training.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/copy.h"

namespace persia {
namespace {

// Adds up the gradients of a part's pieces, and hands the sums on while backward computes the last piece.
class Accumulator final : public GradientSink {
 public:
  // `collective` may be empty: then sums stay where they are.
  Accumulator(DenseModel& model, Collective* collective, uint32_t pieces)
      : model_(model), collective_(collective), pieces_(pieces) {
    for (const auto& bucket : model.Gradients()) {
      if (pieces > 1) sums_.emplace_back(bucket.size());
    }
  }

  // Forward and backward over the part, whose gradients are means over `mean_rows`, times the scale.
  Status ForwardBackward(const DensePart& part, uint64_t mean_rows, float loss_scale, double* loss) {
    const DenseModelConfig& config = model_.config();
    const uint32_t pieces = std::min(pieces_, part.rows);
    *loss = 0;
    for (uint32_t piece = 0; piece < pieces; ++piece) {
      const auto row = static_cast<uint32_t>(uint64_t{part.rows} * piece / pieces);
      const auto end = static_cast<uint32_t>(uint64_t{part.rows} * (piece + 1) / pieces);
      first_ = piece == 0;
      last_ = piece + 1 == pieces;
      double piece_loss;
      PERSIA_RETURN_IF_ERROR(model_.ForwardBackward(
          end - row, part.input + size_t{row} * config.input_width(), part.labels + row * config.tasks.size(),
          part.embedding_gradient + size_t{row} * config.embedding_width, &piece_loss, {mean_rows, this, loss_scale}));
      *loss += piece_loss;
    }
    if (pieces == 0) HandOnZeros();
    return Status::Ok();
  }

  void BucketReady(size_t bucket, std::span<float> gradients) override {
    if (!(first_ && last_)) Add(sums_[bucket], gradients);
    if (last_ && collective_ != nullptr) started_ = collective_->Start(gradients);
  }

  // Until the buckets hold the sums over all workers.
  Status Wait() { return collective_ == nullptr ? Status::Ok() : collective_->Wait(started_); }

 private:
  // The sum of the pieces so far is kept; that of the last one is left in the gradients.
  void Add(AlignedBuffer<float>& sum, std::span<float> gradients) const {
    if (first_) return CopyFloats(sum.data(), gradients.data(), gradients.size());
    float* __restrict from = last_ ? sum.data() : gradients.data();
    float* __restrict to = last_ ? gradients.data() : sum.data();
    for (size_t i = 0; i < gradients.size(); ++i) to[i] += from[i];
  }

  // A worker without rows in a step: the others need its part of the sums all the same.
  void HandOnZeros() {
    first_ = last_ = true;
    for (size_t i = 0; i < model_.Gradients().size(); ++i) {
      std::ranges::fill(model_.Gradients()[i], 0.0f);
      BucketReady(i, model_.Gradients()[i]);
    }
  }

  DenseModel& model_;
  Collective* const collective_;
  const uint32_t pieces_;
  std::vector<AlignedBuffer<float>> sums_;  // by bucket
  bool first_ = true, last_ = true;
  uint64_t started_ = 0;  // last bucket that was started
};

class AllReduceTraining final : public DenseTraining {
 public:
  AllReduceTraining(std::unique_ptr<DenseModel> model, std::unique_ptr<Collective> collective,
                    std::shared_ptr<LossScaler> scaler, uint32_t accumulate)
      : model_(std::move(model)),
        collective_(std::move(collective)),
        scaler_(std::move(scaler)),
        accumulator_(*model_, collective_.get(), accumulate) {}

  Status Train(const DensePart& part, DenseOutcome* outcome) override {
    std::lock_guard lock(mutex_);
    const float scale = scaler_->scale();
    PERSIA_RETURN_IF_ERROR(accumulator_.ForwardBackward(part, part.global_rows, scale, &outcome->loss));
    PERSIA_RETURN_IF_ERROR(accumulator_.Wait());
    outcome->skipped = !model_->UnscaleGradients(scale);
    skipped_ += outcome->skipped ? 1 : 0;
    PERSIA_RETURN_IF_ERROR(scaler_->Stepped(!outcome->skipped));
    return outcome->skipped ? Status::Ok() : model_->ApplyGradients(part.step, part.update - skipped_);
  }

  void Abort(const Status& reason) override {
    if (collective_ != nullptr) collective_->Abort(reason);
  }

  Status Predict(uint32_t rows, const float* input, float* outputs) override {
    std::lock_guard lock(mutex_);
    return model_->Predict(rows, input, outputs);
  }

  DenseModel& model() override { return *model_; }

 private:
  std::mutex mutex_;  // one user of the network at a time: a step or a prediction
  std::unique_ptr<DenseModel> model_;
  std::unique_ptr<Collective> collective_;
  std::shared_ptr<LossScaler> scaler_;
  Accumulator accumulator_;
  uint64_t skipped_ = 0;  // steps
};

class SharedStoreTraining final : public DenseTraining {
 public:
  SharedStoreTraining(std::unique_ptr<DenseModel> replica, std::shared_ptr<DenseStore> store,
                      std::shared_ptr<LossScaler> scaler, uint32_t accumulate)
      : replica_(std::move(replica)),
        store_(std::move(store)),
        scaler_(std::move(scaler)),
        accumulator_(*replica_, nullptr, accumulate) {}

  // Gradients, also those of the embeddings, are means over the worker's own rows: to it there are no others.
  Status Train(const DensePart& part, DenseOutcome* outcome) override {
    if (part.rows == 0) return Status::Ok();
    uint64_t pulled = 0;
    PERSIA_RETURN_IF_ERROR(store_->Pull(*replica_, &pulled));
    const float scale = scaler_->scale();
    PERSIA_RETURN_IF_ERROR(accumulator_.ForwardBackward(part, part.rows, scale, &outcome->loss));
    outcome->loss *= static_cast<double>(part.rows) / static_cast<double>(part.global_rows);
    outcome->skipped = !replica_->UnscaleGradients(scale);
    PERSIA_RETURN_IF_ERROR(scaler_->Stepped(!outcome->skipped));
    return outcome->skipped ? Status::Ok() : store_->Push(part.step, replica_->Gradients(), pulled);
  }

  void Abort(const Status&) override {}  // nobody waits

  Status Predict(uint32_t rows, const float* input, float* outputs) override {
    return store_->Predict(rows, input, outputs);
  }

  DenseModel& model() override { return store_->model(); }

 private:
  std::unique_ptr<DenseModel> replica_;
  std::shared_ptr<DenseStore> store_;
  std::shared_ptr<LossScaler> scaler_;
  Accumulator accumulator_;
};

}  // namespace

std::unique_ptr<DenseTraining> MakeAllReduceTraining(std::unique_ptr<DenseModel> model,
                                                     std::unique_ptr<Collective> collective,
                                                     std::shared_ptr<LossScaler> scaler, uint32_t accumulate) {
  return std::make_unique<AllReduceTraining>(std::move(model), std::move(collective), std::move(scaler), accumulate);
}

std::unique_ptr<DenseTraining> MakeSharedStoreTraining(std::unique_ptr<DenseModel> replica,
                                                       std::shared_ptr<DenseStore> store,
                                                       std::shared_ptr<LossScaler> scaler, uint32_t accumulate) {
  return std::make_unique<SharedStoreTraining>(std::move(replica), std::move(store), std::move(scaler), accumulate);
}

Status DenseStore::Pull(DenseModel& replica, uint64_t* pulled) {
  std::vector<NamedTensor> to = replica.Tensors();
  std::lock_guard lock(mutex_);
  std::vector<NamedTensor> from = model_->Tensors();
  for (NamedTensor& tensor : to) {
    const auto same = std::ranges::find(from, tensor.name, &NamedTensor::name);
    PERSIA_CHECK(same != from.end() && same->values.size() == tensor.values.size());
    CopyFloats(tensor.values.data(), same->values.data(), tensor.values.size());
  }
  *pulled = updates_;
  return replica.WriteTensors();
}

Status DenseStore::Push(uint64_t step, std::span<const std::span<float>> gradients, uint64_t pulled) {
  std::lock_guard lock(mutex_);
  const auto ours = model_->Gradients();
  PERSIA_CHECK(ours.size() == gradients.size());
  for (size_t i = 0; i < ours.size(); ++i) CopyFloats(ours[i].data(), gradients[i].data(), ours[i].size());
  const uint64_t others = updates_ - pulled;
  PERSIA_RETURN_IF_ERROR(model_->ApplyGradients(step, updates_ + 1));
  ++updates_;
  ++staleness_.pushes;
  staleness_.sum += others;
  staleness_.most = std::max(staleness_.most, others);
  return Status::Ok();
}

Status DenseStore::Predict(uint32_t rows, const float* input, float* outputs) {
  std::lock_guard lock(mutex_);
  return model_->Predict(rows, input, outputs);
}

uint64_t DenseStore::updates() const {
  std::lock_guard lock(mutex_);
  return updates_;
}

void DenseStore::RestoreUpdates(uint64_t updates) {
  std::lock_guard lock(mutex_);
  updates_ = updates;
}

DenseStore::Staleness DenseStore::staleness() const {
  std::lock_guard lock(mutex_);
  return staleness_;
}

}  // namespace persia
