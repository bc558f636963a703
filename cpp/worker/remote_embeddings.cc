#include "worker/remote_embeddings.h"

#include <utility>

#include "base/copy.h"
#include "worker/embedding_messages.h"

namespace persia {
namespace {

class RemoteEmbeddings final : public StepEmbeddings {
 public:
  RemoteEmbeddings(uint32_t rank, uint32_t width, const RoleClients& workers, WireFormat format)
      : rank_(rank), width_(width), workers_(workers), format_(format) {}

  Status Lookup(uint64_t step, uint32_t rows, float* pooled, size_t stride) override {
    const RoleCall call{embedding_request::kLookup, {format_}};
    WireWriter writer;
    WritePart(writer, {{step, rank_}, rows});
    const auto response = workers_.Call(WorkerOf(step), call, Payload(writer.Take()));
    if (!response.ok()) return response.status();
    WireReader reader(response.value().payload.bytes());
    for (size_t row = 0; row < rows; ++row) {
      reader.Rows(response.value().flags.format, 1, width_, pooled + row * stride);
    }
    return reader.End();
  }

  Status Update(uint64_t step, uint32_t rows, const float* gradients, size_t stride) override {
    const RoleCall call{embedding_request::kUpdate, {format_}};
    WireWriter writer;
    writer.Reserve(WireRowBytes(format_, rows, width_) + 64);
    WritePart(writer, {{step, rank_}, rows});
    for (size_t row = 0; row < rows; ++row) writer.Rows(format_, gradients + row * stride, 1, width_);
    return workers_.Call(WorkerOf(step), call, Payload(writer.Take())).status();
  }

  Status Skip(uint64_t step, uint32_t rows) override {
    WireWriter writer;
    WritePart(writer, {{step, rank_}, rows});
    return workers_.Call(WorkerOf(step), {embedding_request::kSkip}, Payload(writer.Take())).status();
  }

  void Leave() override {
    const RoleCall call{embedding_request::kLeave, {}, true};
    // Of those that answer: the driver tells the parameter servers too.
    (void)workers_.CallAll(call, [this] {
      WireWriter writer;
      writer.Value(rank_);
      return Payload(writer.Take());
    });
  }

 private:
  uint32_t WorkerOf(uint64_t step) const { return EmbeddingWorkerOf({step, rank_}, workers_.size()); }

  const uint32_t rank_, width_;
  const RoleClients& workers_;
  const WireFormat format_;
};

}  // namespace

std::unique_ptr<StepEmbeddings> MakeRemoteEmbeddings(uint32_t rank, uint32_t embedding_width,
                                                     const RoleClients& workers, WireFormat format) {
  return std::make_unique<RemoteEmbeddings>(rank, embedding_width, workers, format);
}

}  // namespace persia
