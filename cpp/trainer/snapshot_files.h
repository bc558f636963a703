// The files of a snapshot, how a trainer becomes them and comes back: one file for the pipeline, one for the network, one for each row class.
//
//   pipeline.bin     step u64 | samples u64 | applied requests: count u32, (worker u64, sequence u64)… |
//                    in flight: 2^31 + count u32,
//                      (step u64, rows of the step u32, first row u32, rows u32, embedding width u32, pooled f32…)… |
//                    seen ids: features u32, (registers of a HyperLogLog u8…)… |
//                    updates of the dense optimizer u64 | NN workers u32 |
//                    loss scale f32 | good steps since it changed u32 | skipped steps u64
//   dense.bin        tensors: count u32, (name, dimensions u32, sizes u64…, values f32…)…
//   embedding-C.bin  layout u32 | row class u32 | dim u32 | row width u32 | storage type u32 |
//                    state of the table: count u64, u64… | rows u64 | (sign u64, ticks u32, idle ms u64, row f32…)…
//
// The layout of embedding-C.bin is 2^31 + 2. The first release wrote no layout, storage type, state and ages: its files
// begin with the row class, which is below 2^31, and are still read; each of their rows, least recent first, counts as
// just looked up. It wrote no seen ids either: where pipeline.bin ends before them, counting them starts anew. Files of
// one NN worker only have no mark on the number of lookups in flight, which are (step, rows, width, pooled…), and end
// with the seen ids. Others end before the loss scale: then it starts as configured.
//
// Nothing in a snapshot depends on the number of NN workers but the order of its lookups in flight: those of a step are
// put together and shared out among the workers that there are.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "batch/feature_schema.h"
#include "checkpoint/snapshot.h"
#include "dense/dense_model.h"
#include "dense/loss_scaler.h"
#include "store/parameter_store.h"
#include "trainer/nn_worker.h"

namespace persia {

// pipeline.bin as it is written: `in_flight` by step, then by row; its memory stays until it is written.
struct PipelineState {
  uint64_t steps = 0, samples = 0;
  std::vector<RequestId> applied;
  std::vector<InFlight> in_flight;
  std::vector<std::vector<uint8_t>> seen;  // by feature
  uint64_t dense_updates = 0;
  uint32_t workers = 1;
  LossScaler::State scaling;
};

// A lookup of a step that was in flight, put together from the parts that workers had.
struct RestoredLookup {
  uint64_t step = 0;
  uint32_t global_rows = 0;
  AlignedBuffer<float> pooled;  // (global_rows, embedding_width)
  std::vector<bool> known;      // by row

  // The part of one of `workers`; nothing where rows are missing: they are looked up again.
  std::optional<AlignedBuffer<float>> PartOf(uint32_t rank, uint32_t workers) const;
};

// pipeline.bin as it is read.
struct RestoredPipeline {
  uint64_t steps = 0, samples = 0;
  std::vector<RestoredLookup> lookups;
  std::vector<std::vector<uint8_t>> seen;  // by feature; empty where the file has none
  uint64_t dense_updates = 0;
  std::optional<LossScaler::State> scaling;  // nothing where the file has none
};

Result<SnapshotFile> WritePipeline(const std::string& directory, const PipelineState& state, uint32_t embedding_width);
// kCheckpointDamaged, kCheckpointMismatch: as of all that read.
Result<RestoredPipeline> ReadPipeline(const std::string& directory, const FeatureSchema& schema);
Status ImpossibleSeen();  // registers that no HyperLogLog takes

Result<SnapshotFile> WriteDense(const std::string& directory, std::span<const NamedTensor> tensors);
Status ReadDense(const std::string& directory, std::span<const NamedTensor> tensors);

Result<SnapshotFile> WriteClass(const std::string& directory, const ParameterStore& store, uint32_t row_class,
                                const TableOptions& table);
Status ReadClass(const std::string& directory, ParameterStore& store, uint32_t row_class, uint32_t dim);

}  // namespace persia
