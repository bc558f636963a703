#include "trainer/dense_training.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/copy.h"

namespace persia {
namespace {

// Not the optimizer's state, which the two may not share.
Status CopyTensors(DenseModel& from, DenseModel& to) {
  PERSIA_RETURN_IF_ERROR(from.ReadTensors());
  const std::vector<NamedTensor> source = from.Tensors();
  for (NamedTensor& tensor : to.Tensors()) {
    if (!tensor.name.ends_with(".weight") && !tensor.name.ends_with(".bias")) continue;
    const auto same = std::ranges::find(source, tensor.name, &NamedTensor::name);
    PERSIA_CHECK(same != source.end() && same->values.size() == tensor.values.size());
    CopyFloats(tensor.values.data(), same->values.data(), tensor.values.size());
  }
  return to.WriteTensors();
}

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

// Of a network of the worker's own.
class OwnModelTraining : public DenseTraining {
 public:
  Status Predict(uint32_t rows, const float* input, float* outputs) final {
    std::lock_guard lock(mutex_);
    return model_->Predict(rows, input, outputs);
  }

  Status CopyWeights(DenseModel& to) final {
    std::lock_guard lock(mutex_);
    return CopyTensors(*model_, to);
  }

  DenseModel& model() final { return *model_; }
  HostMemory* host_memory() final { return model_->host_memory(); }

 protected:
  OwnModelTraining(std::unique_ptr<DenseModel> model, std::shared_ptr<LossScaler> scaler)
      : model_(std::move(model)), scaler_(std::move(scaler)) {}

  std::mutex mutex_;  // one user of the network at a time: a step that computes or starts, or a prediction
  const std::unique_ptr<DenseModel> model_;
  const std::shared_ptr<LossScaler> scaler_;
  uint64_t skipped_ = 0;  // steps
};

// Gradients are summed between the halves of the model's steps.
class AllReduceTraining final : public OwnModelTraining {
 public:
  AllReduceTraining(std::unique_ptr<DenseModel> model, std::unique_ptr<Collective> collective,
                    std::shared_ptr<LossScaler> scaler, uint32_t accumulate)
      : OwnModelTraining(std::move(model), std::move(scaler)),
        collective_(std::move(collective)),
        accumulator_(*model_, collective_.get(), accumulate) {}

  Status Start(const DensePart& part) override {
    std::lock_guard lock(mutex_);
    outcome_ = {};
    const float scale = scaler_->scale();
    PERSIA_RETURN_IF_ERROR(accumulator_.ForwardBackward(part, part.global_rows, scale, &outcome_.loss));
    PERSIA_RETURN_IF_ERROR(accumulator_.Wait());
    outcome_.skipped = !model_->UnscaleGradients(scale);
    skipped_ += outcome_.skipped ? 1 : 0;
    PERSIA_RETURN_IF_ERROR(scaler_->Stepped(!outcome_.skipped));
    return outcome_.skipped ? Status::Ok() : model_->ApplyGradients(part.step, part.update - skipped_);
  }

  Status Finish(DenseOutcome* outcome) override {
    *outcome = outcome_;
    return Status::Ok();
  }

  void Abort(const Status& reason) override {
    if (collective_ != nullptr) collective_->Abort(reason);
  }

 private:
  std::unique_ptr<Collective> collective_;
  Accumulator accumulator_;
  DenseOutcome outcome_;  // of the step that was started
};

// The model's whole steps, several at a time where it takes them: of a worker alone, or of models that sum by themselves.
// Finishing a step only waits for what was started: it takes no turn.
class WholeStepTraining final : public OwnModelTraining {
 public:
  WholeStepTraining(std::unique_ptr<DenseModel> model, std::shared_ptr<LossScaler> scaler)
      : OwnModelTraining(std::move(model), std::move(scaler)), steps_(model_->steps_in_flight()) {}

  uint32_t steps_in_flight() const override { return static_cast<uint32_t>(steps_.size()); }

  Status Start(const DensePart& part) override {
    std::lock_guard lock(mutex_);
    DenseStep& step = steps_[started_ % steps_.size()];
    step = {.step = part.step,
            .update = part.update - skipped_,
            .rows = part.rows,
            .global_rows = part.global_rows,
            .input = part.input,
            .labels = part.labels,
            .embedding_gradient = part.embedding_gradient,
            .loss_scale = scaler_->scale()};
    PERSIA_RETURN_IF_ERROR(model_->StartStep(&step));
    ++started_;
    return Status::Ok();
  }

  Status Finish(DenseOutcome* outcome) override {
    DenseStep& step = steps_[finished_++ % steps_.size()];
    PERSIA_RETURN_IF_ERROR(model_->FinishStep(&step));
    *outcome = {step.loss, step.skipped};
    skipped_ += step.skipped ? 1 : 0;
    return scaler_->Stepped(!step.skipped);
  }

  void Abort(const Status& reason) override { model_->AbortSums(reason); }

 private:
  std::vector<DenseStep> steps_;  // a ring of those started and not finished
  uint64_t started_ = 0, finished_ = 0;
};

class SharedStoreTraining final : public DenseTraining {
 public:
  SharedStoreTraining(std::unique_ptr<DenseModel> replica, std::shared_ptr<SharedDense> store,
                      std::shared_ptr<LossScaler> scaler, uint32_t accumulate)
      : replica_(std::move(replica)),
        store_(std::move(store)),
        scaler_(std::move(scaler)),
        accumulator_(*replica_, nullptr, accumulate) {}

  // Gradients, also those of the embeddings, are means over the worker's own rows: to it there are no others.
  Status Start(const DensePart& part) override {
    outcome_ = {};
    if (part.rows == 0) return Status::Ok();
    const Result<uint64_t> pulled = store_->Pull(*replica_);
    if (!pulled.ok()) return pulled.status();
    const float scale = scaler_->scale();
    PERSIA_RETURN_IF_ERROR(accumulator_.ForwardBackward(part, part.rows, scale, &outcome_.loss));
    outcome_.loss *= static_cast<double>(part.rows) / static_cast<double>(part.global_rows);
    outcome_.skipped = !replica_->UnscaleGradients(scale);
    PERSIA_RETURN_IF_ERROR(scaler_->Stepped(!outcome_.skipped));
    return outcome_.skipped ? Status::Ok() : store_->Push(part.step, replica_->Gradients(), pulled.value());
  }

  Status Finish(DenseOutcome* outcome) override {
    *outcome = outcome_;
    return Status::Ok();
  }

  void Abort(const Status&) override {}  // nobody waits

  Status Predict(uint32_t rows, const float* input, float* outputs) override {
    return store_->Predict(rows, input, outputs);
  }

  Status CopyWeights(DenseModel& to) override {
    const Result<uint64_t> updates = store_->Pull(to);
    return updates.ok() ? Status::Ok() : updates.status();
  }

  DenseModel& model() override { return store_->model() != nullptr ? *store_->model() : *replica_; }
  HostMemory* host_memory() override { return replica_->host_memory(); }

 private:
  std::unique_ptr<DenseModel> replica_;
  std::shared_ptr<SharedDense> store_;
  std::shared_ptr<LossScaler> scaler_;
  Accumulator accumulator_;
  DenseOutcome outcome_;  // of the step that was started
};

}  // namespace

std::unique_ptr<DenseTraining> MakeAllReduceTraining(std::unique_ptr<DenseModel> model,
                                                     std::unique_ptr<Collective> collective,
                                                     std::shared_ptr<LossScaler> scaler, uint32_t accumulate) {
  if (collective == nullptr && accumulate == 1) {
    return std::make_unique<WholeStepTraining>(std::move(model), std::move(scaler));
  }
  return std::make_unique<AllReduceTraining>(std::move(model), std::move(collective), std::move(scaler), accumulate);
}

std::unique_ptr<DenseTraining> MakeSharedStoreTraining(std::unique_ptr<DenseModel> replica,
                                                       std::shared_ptr<SharedDense> store,
                                                       std::shared_ptr<LossScaler> scaler, uint32_t accumulate) {
  return std::make_unique<SharedStoreTraining>(std::move(replica), std::move(store), std::move(scaler), accumulate);
}

Result<uint64_t> DenseStore::Pull(DenseModel& replica) {
  std::lock_guard lock(mutex_);
  PERSIA_RETURN_IF_ERROR(CopyTensors(*model_, replica));
  return updates_;
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
