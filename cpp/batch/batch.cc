#include "batch/batch.h"

#include <cmath>
#include <string>

#include "base/finite.h"

namespace persia {
namespace {

Status Invalid(const std::string& message) { return Status(ErrorCode::kBatchInvalid, message); }

Status InvalidColumn(const std::string& feature, const std::string& message) {
  return Invalid("Feature \"" + feature + "\": " + message).With("feature", feature);
}

Status ValidateOffsets(const IdColumn& column, const std::string& feature, uint32_t rows) {
  const auto offsets = column.offsets;
  if (offsets.size() != size_t{rows} + 1) {
    return InvalidColumn(feature, "a batch of " + std::to_string(rows) + " samples needs " +
                                      std::to_string(size_t{rows} + 1) + " offsets, got " +
                                      std::to_string(offsets.size()) + ".");
  }
  if (offsets[0] != 0) {
    return InvalidColumn(feature, "offsets start with 0, got " + std::to_string(offsets[0]) + " at sample 0.");
  }
  for (uint32_t row = 0; row < rows; ++row) {
    if (offsets[row + 1] < offsets[row]) {
      return InvalidColumn(feature, "offsets must not fall, but sample " + std::to_string(row) + " goes from " +
                                        std::to_string(offsets[row]) + " to " + std::to_string(offsets[row + 1]) + ".")
          .With("sample", std::to_string(row));
    }
  }
  if (offsets[rows] != column.ids.size()) {
    return InvalidColumn(feature, "the last offset is " + std::to_string(offsets[rows]) + ", but there are " +
                                      std::to_string(column.ids.size()) + " ids.");
  }
  return Status::Ok();
}

Status ValidateIds(const Batch& batch, const FeatureSchema& schema) {
  if (batch.id_columns.size() != schema.features.size()) {
    return Invalid("The model has " + std::to_string(schema.features.size()) + " id features, the batch has " +
                   std::to_string(batch.id_columns.size()) + ".");
  }
  size_t occurrences = 0;
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const IdColumn& column = batch.id_columns[f];
    const std::string& feature = schema.features[f].name;
    if (!column.offsets.empty()) {
      PERSIA_RETURN_IF_ERROR(ValidateOffsets(column, feature, batch.rows));
    } else if (column.ids.size() != batch.rows) {
      return InvalidColumn(feature, "without offsets each of the " + std::to_string(batch.rows) +
                                        " samples has one id, got " + std::to_string(column.ids.size()) + " ids.");
    }
    occurrences += column.ids.size() * schema.features[f].rows_per_id();
  }
  if (occurrences > UINT32_MAX) {
    return Invalid("A batch holds at most 2^32 - 1 ids (those of a hash stack count once a round), got " +
                   std::to_string(occurrences) + ".");
  }
  return Status::Ok();
}

// `values` is (rows, columns); `what` names it in messages: "dense", "label".
Status ValidateMatrix(std::span<const float> values, uint32_t rows, uint32_t columns, const std::string& what) {
  if (values.size() != size_t{rows} * columns) {
    return Invalid("The " + what + " matrix of " + std::to_string(rows) + " samples and " + std::to_string(columns) +
                   " columns has " + std::to_string(size_t{rows} * columns) + " values, got " +
                   std::to_string(values.size()) + ".");
  }
  if (AllFinite(values)) return Status::Ok();
  size_t at = 0;
  while (std::isfinite(values[at])) ++at;
  const std::string row = std::to_string(at / columns), column = std::to_string(at % columns);
  return Invalid("The " + what + " value of sample " + row + ", column " + column + " is " +
                 std::to_string(values[at]) + "; values must be finite.")
      .With("sample", row)
      .With("column", column);
}

}  // namespace

Status ValidateBatch(const Batch& batch, const FeatureSchema& schema, uint32_t dense_count, uint32_t label_count) {
  if (batch.dense_count != dense_count) {
    return Invalid("The model has " + std::to_string(dense_count) + " dense columns, the batch has " +
                   std::to_string(batch.dense_count) + ".");
  }
  // Labels may come along where none are asked for (prediction on a labelled set).
  if (label_count != 0 && batch.label_count != label_count) {
    return Invalid("The model has " + std::to_string(label_count) + " label columns, the batch has " +
                   std::to_string(batch.label_count) + ".");
  }
  if (label_count != 0 && batch.rows == 0) {
    return Invalid("A batch with labels needs at least 1 sample, got 0.");
  }
  PERSIA_RETURN_IF_ERROR(ValidateIds(batch, schema));
  PERSIA_RETURN_IF_ERROR(ValidateMatrix(batch.dense, batch.rows, batch.dense_count, "dense"));
  return ValidateMatrix(batch.labels, batch.rows, batch.label_count, "label");
}

Batch PartOf(const Batch& batch, uint32_t begin, uint32_t rows) {
  PERSIA_CHECK(uint64_t{begin} + rows <= batch.rows);
  Batch part;
  part.rows = rows;
  part.dense_count = batch.dense_count;
  part.label_count = batch.label_count;
  part.dense = batch.dense.subspan(size_t{begin} * batch.dense_count, size_t{rows} * batch.dense_count);
  part.labels = batch.labels.subspan(size_t{begin} * batch.label_count, size_t{rows} * batch.label_count);
  for (const IdColumn& column : batch.id_columns) {
    const uint32_t from = column.begin(begin), to = column.begin(begin + rows);
    const auto offsets = column.offsets.empty() ? column.offsets : column.offsets.subspan(begin, size_t{rows} + 1);
    part.id_columns.push_back({offsets, column.ids.subspan(from, to - from)});
  }
  part.owner = batch.owner;
  return part;
}

}  // namespace persia
