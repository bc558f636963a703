#include "trainer/remote_dense.h"

#include <vector>

#include "trainer/nn_messages.h"

namespace persia {
namespace {

class RemoteDense final : public SharedDense {
 public:
  explicit RemoteDense(const RoleClients& workers) : workers_(workers) {}

  Status Pull(DenseModel& replica, uint64_t* pulled) override {
    const auto response = workers_.Call(0, {nn_request::kPull}, Payload());
    if (!response.ok()) return response.status();
    WireReader reader(response.value().payload.bytes());
    *pulled = reader.Value<uint64_t>();
    for (const NamedTensor& tensor : replica.Tensors()) {
      reader.Rows(WireFormat::kFp32, tensor.values.size(), 1, tensor.values.data());
    }
    PERSIA_RETURN_IF_ERROR(reader.End());
    return replica.WriteTensors();
  }

  Status Push(uint64_t step, std::span<const std::span<float>> gradients, uint64_t pulled) override {
    WireWriter writer;
    writer.Value(step);
    writer.Value(pulled);
    for (const std::span<float> bucket : gradients) writer.Raw(std::as_bytes(bucket));
    return workers_.Call(0, {nn_request::kPush}, Payload(writer.Take())).status();
  }

  Status Predict(uint32_t, const float*, float*) override {
    return Status(ErrorCode::kUsage, "predictions are made by NN worker 0");
  }

  DenseModel* model() override { return nullptr; }

 private:
  const RoleClients& workers_;
};

}  // namespace

std::shared_ptr<SharedDense> MakeRemoteDense(const RoleClients& nn_workers) {
  return std::make_shared<RemoteDense>(nn_workers);
}

Result<Buffer> DenseService::Pull() {
  std::lock_guard lock(mutex_);
  uint64_t updates = 0;
  PERSIA_RETURN_IF_ERROR(store_->Pull(*replica_, &updates));
  WireWriter writer;
  writer.Value(updates);
  for (const NamedTensor& tensor : replica_->Tensors()) writer.Raw(std::as_bytes(tensor.values));
  return writer.Take();
}

Status DenseService::Push(Bytes request) {
  WireReader reader(request);
  const auto step = reader.Value<uint64_t>();
  const auto pulled = reader.Value<uint64_t>();
  std::vector<float> values;
  std::vector<std::span<float>> buckets;
  size_t total = 0;
  for (const std::span<float> bucket : store_->model()->Gradients()) total += bucket.size();
  if (reader.left() != total * sizeof(float)) reader.Fail("gradients of another model");
  PERSIA_RETURN_IF_ERROR(reader.status());
  values.resize(total);
  reader.Rows(WireFormat::kFp32, total, 1, values.data());
  PERSIA_RETURN_IF_ERROR(reader.End());
  float* next = values.data();
  for (const std::span<float> bucket : store_->model()->Gradients()) {
    buckets.push_back({next, bucket.size()});
    next += bucket.size();
  }
  return store_->Push(step, buckets, pulled);
}

}  // namespace persia
