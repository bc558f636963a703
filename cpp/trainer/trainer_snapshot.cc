// Saving and restoring a trainer of this process: snapshot_files.h has the formats.
#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "trainer/snapshot_files.h"
#include "trainer/trainer.h"

namespace persia {

// By step, then by row. At rest nothing changes what they point to.
std::vector<InFlight> Trainer::InFlightLookups() const {
  std::vector<InFlight> all;
  for (const auto& worker : workers_) std::ranges::copy(worker->in_flight(), std::back_inserter(all));
  std::ranges::stable_sort(all, {}, &InFlight::step);
  return all;
}

Result<PipelineState> Trainer::StateOfPipeline() const {
  const TrainerProgress totals = progress();
  Result<std::vector<RequestId>> applied = store_->AppliedRequests();
  if (!applied.ok()) return applied.status();
  PipelineState state{totals.steps, totals.samples, std::move(*applied), InFlightLookups(), {}, 0, workers(),
                      scalers_[0]->state()};
  for (size_t f = 0; f < config_.schema.features.size(); ++f) state.seen.push_back(worker_.SaveSeen(f));
  const uint64_t skipped = state.scaling.skipped - skipped_before_;
  state.dense_updates =
      dense_store_ != nullptr ? dense_store_->updates() : totals.steps + static_cast<uint64_t>(dense_ahead_) - skipped;
  return state;
}

Status Trainer::RestorePipeline(const RestoredPipeline& state) {
  for (const RestoredLookup& lookup : state.lookups) {
    for (uint32_t rank = 0; rank < workers(); ++rank) {
      auto part = lookup.PartOf(rank, workers());
      if (part) workers_[rank]->RestoreLookup(lookup.step, lookup.global_rows, std::move(*part));
    }
  }
  for (size_t f = 0; f < state.seen.size(); ++f) {
    if (!worker_.RestoreSeen(f, state.seen[f])) return ImpossibleSeen();
  }
  if (state.scaling) {
    for (const auto& scaler : scalers_) scaler->Restore(*state.scaling);
    skipped_before_ = state.scaling->skipped;
  }
  PERSIA_RETURN_IF_ERROR(StartAfter(state.steps, state.dense_updates));
  totals_.StartAt(state.samples);
  return Status::Ok();
}

Status Trainer::StartAfter(uint64_t step, uint64_t dense_updates) {
  std::vector<RequestId> applied;
  const uint32_t senders = config_.mode == TrainerMode::kAsync ? workers() : 1;  // else parts are applied together
  for (uint32_t rank = 0; step > 0 && rank < senders; ++rank) applied.push_back({rank, step});
  PERSIA_RETURN_IF_ERROR(store_->RestoreAppliedRequests(applied));
  step_store_.StartAfter(step);
  prepared_ = step;
  turns_.StartAt((step + 1) * workers());
  dense_ahead_ = static_cast<int64_t>(dense_updates - step);
  if (dense_store_ != nullptr) dense_store_->RestoreUpdates(dense_updates);
  for (const auto& worker : workers_) worker->StartAfter(step, dense_ahead_);
  return Status::Ok();
}

Result<std::vector<SnapshotFile>> Trainer::Save(const std::string& directory) {
  if (Status status = failure(); !status.ok()) return status;
  if (!at_rest()) return Status(ErrorCode::kUsage, "a trainer can be saved only while it is at rest");
  std::vector<SnapshotFile> files;
  auto add = [&](Result<SnapshotFile> file) {
    if (file.ok()) files.push_back(*file);
    return file.status();
  };
  Result<PipelineState> state = StateOfPipeline();
  if (!state.ok()) return state.status();
  PERSIA_RETURN_IF_ERROR(add(WritePipeline(directory, *state, config_.schema.embedding_width)));
  DenseModel& model = workers_[0]->dense().model();
  PERSIA_RETURN_IF_ERROR(model.ReadTensors());
  PERSIA_RETURN_IF_ERROR(add(WriteDense(directory, model.Tensors())));
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(add(WriteClass(directory, *store_, c, config_.tables[c])));
  }
  return files;
}

Status Trainer::Restore(const std::string& directory, const std::vector<SnapshotFile>& files) {
  for (const SnapshotFile& file : files) PERSIA_RETURN_IF_ERROR(SnapshotReader::Verify(directory, file));
  PERSIA_RETURN_IF_ERROR(store_->Clear());
  for (const auto& worker : workers_) {
    DenseModel& model = worker->dense().model();
    PERSIA_RETURN_IF_ERROR(ReadDense(directory, model.Tensors()));
    PERSIA_RETURN_IF_ERROR(model.WriteTensors());
    if (config_.mode == TrainerMode::kAsync) break;  // the workers have one model
  }
  for (uint32_t c = 0; c < store_->row_class_count(); ++c) {
    PERSIA_RETURN_IF_ERROR(ReadClass(directory, *store_, c, config_.schema.row_class_dims[c]));
  }
  if (predictor_) predictor_->Forget();
  Result<RestoredPipeline> state = ReadPipeline(directory, config_.schema);
  return state.ok() ? RestorePipeline(*state) : state.status();
}

}  // namespace persia
