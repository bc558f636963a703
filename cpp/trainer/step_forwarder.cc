#include "trainer/step_forwarder.h"

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "batch/mask.h"
#include "trainer/nn_messages.h"
#include "worker/embedding_messages.h"

namespace persia {

Status StepForwarder::Forward(const std::shared_ptr<const Batch>& batch, uint64_t step) const {
  PERSIA_RETURN_IF_ERROR(HoldIds(*batch, step));
  return SendParts(batch, step);
}

Status StepForwarder::HoldIds(const Batch& batch, uint64_t step) const {
  const uint32_t holders = embedding_workers_.size();
  std::vector<std::optional<Payload>> requests(holders);
  for (uint32_t holder = 0; holder < holders; ++holder) {
    std::vector<uint32_t> ranks;
    for (uint32_t rank = 0; rank < config_.nn_workers; ++rank) {
      if (EmbeddingWorkerOf({step, rank}, holders) == holder) ranks.push_back(rank);
    }
    if (ranks.empty()) continue;
    WireWriter writer;
    writer.Value(static_cast<uint32_t>(ranks.size()));
    for (const uint32_t rank : ranks) {
      const PartRows rows = PartOfWorker(batch.rows, rank, config_.nn_workers);
      WritePart(writer, {{step, rank}, rows.rows});
      WriteIds(writer, codec_, PartOf(batch, rows.begin, rows.rows));
    }
    requests[holder] = Payload(writer.Take());
  }
  const RoleCall call{embedding_request::kHold, {WireFormat::kFp32, codec_}};
  return embedding_workers_.CallMany(call, std::move(requests)).status();
}

Status StepForwarder::SendParts(const std::shared_ptr<const Batch>& batch, uint64_t step) const {
  std::vector<std::optional<Payload>> requests;
  for (uint32_t rank = 0; rank < config_.nn_workers; ++rank) {
    const PartRows rows = PartOfWorker(batch->rows, rank, config_.nn_workers);
    const Batch part = PartOf(*batch, rows.begin, rows.rows);
    const auto filled = std::make_shared<const std::vector<uint32_t>>(FilledPlaces(part, config_.schema));
    WireWriter writer;
    WriteStepPart(writer, {step, rows.begin, rows.rows, batch->rows});
    Payload payload(writer.Take());
    payload.Add(std::as_bytes(part.dense), batch)
        .Add(std::as_bytes(part.labels), batch)
        .Add(std::as_bytes(std::span(*filled)), filled);
    requests.push_back(std::move(payload));
  }
  return nn_workers_.CallMany({nn_request::kPart}, std::move(requests)).status();
}

}  // namespace persia
