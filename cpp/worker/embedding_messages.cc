#include "worker/embedding_messages.h"

#include "base/hyperloglog.h"

namespace persia {
namespace {

constexpr size_t kMostIds = size_t{1} << 28;  // of a feature in a batch: a bound on memory

}  // namespace

void WritePart(WireWriter& writer, const PartHead& part) {
  writer.Value(part.ref.step);
  writer.Value(part.ref.rank);
  writer.Value(part.rows);
}

PartHead ReadPart(WireReader& reader) {
  PartHead part;
  part.ref.step = reader.Value<uint64_t>();
  part.ref.rank = reader.Value<uint32_t>();
  part.rows = reader.Value<uint32_t>();
  return part;
}

void WriteIds(WireWriter& writer, IdCodec codec, const Batch& batch) {
  for (const IdColumn& column : batch.id_columns) {
    writer.Value(static_cast<uint8_t>(column.offsets.empty() ? 0 : 1));
    for (size_t row = 1; row < column.offsets.size(); ++row) {
      writer.Value(column.offsets[row] - column.offsets[row - 1]);
    }
    writer.Ids(codec, column.ids);
  }
}

std::unique_ptr<IdBatch> ReadIds(WireReader& reader, IdCodec codec, uint32_t rows, size_t features) {
  auto result = std::make_unique<IdBatch>();
  result->columns.resize(features);
  for (IdBatch::Column& column : result->columns) {
    if (reader.Value<uint8_t>() != 0) {
      if (rows > reader.left() / sizeof(uint32_t)) reader.Fail("offsets that are cut off");
      if (!reader.status().ok()) break;
      column.offsets.push_back(0);
      for (uint32_t row = 0; row < rows; ++row) {
        column.offsets.push_back(column.offsets.back() + reader.Value<uint32_t>());
      }
    }
    column.ids = reader.Ids(codec, kMostIds);
  }
  result->batch.rows = rows;
  for (const IdBatch::Column& column : result->columns) {
    result->batch.id_columns.push_back({column.offsets, column.ids});
  }
  return result;
}

Buffer EncodeSeen(const std::vector<std::vector<uint8_t>>& seen) {
  WireWriter writer;
  for (const auto& registers : seen) writer.Raw(std::as_bytes(std::span<const uint8_t>(registers)));
  return writer.Take();
}

Result<std::vector<std::vector<uint8_t>>> DecodeSeen(Bytes bytes, size_t features) {
  WireReader reader(bytes);
  std::vector<std::vector<uint8_t>> seen;
  for (size_t f = 0; f < features; ++f) {
    const Bytes registers = reader.Raw(HyperLogLog::kRegisters);
    const auto* first = reinterpret_cast<const uint8_t*>(registers.data());
    seen.emplace_back(first, first + registers.size());
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return seen;
}

}  // namespace persia
