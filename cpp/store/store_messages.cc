#include "store/store_messages.h"

#include <algorithm>

namespace persia {
namespace {

// In the order of TableCounters.
template <typename Counters, typename Use>
void ForCounters(Counters& counters, Use use) {
  for (auto* value : {&counters.rows, &counters.bytes, &counters.lanes, &counters.hits, &counters.misses,
                      &counters.inserts, &counters.evictions, &counters.expired, &counters.refused,
                      &counters.missed_updates, &counters.non_finite_skipped}) {
    use(*value);
  }
}

size_t CheckedCount(WireReader& reader, uint64_t count, size_t bytes_each) {
  if (count <= reader.left() / bytes_each) return count;
  reader.Fail("a list of " + std::to_string(count) + " entries in " + std::to_string(reader.left()) + " bytes");
  return 0;
}

}  // namespace

// ---- signs and rows of steps ----------------------------------------------------------------------------------------

void WriteSigns(WireWriter& writer, WireFlags flags, uint32_t row_class, std::span<const uint64_t> signs) {
  writer.Value(row_class);
  writer.Ids(flags.codec, signs);
}

std::vector<ClassRows> ReadSigns(WireReader& reader, WireFlags flags, std::span<const uint32_t> dims, bool with_rows) {
  std::vector<ClassRows> classes;
  const size_t count = CheckedCount(reader, reader.Value<uint32_t>(), sizeof(uint32_t));
  for (size_t i = 0; i < count && reader.status().ok(); ++i) {
    ClassRows& one = classes.emplace_back();
    one.row_class = reader.Value<uint32_t>();
    one.signs = reader.Ids(flags.codec, kMostListed);
    if (one.row_class >= dims.size()) {
      reader.Fail("row class " + std::to_string(one.row_class) + " of " + std::to_string(dims.size()));
      break;
    }
    const uint32_t dim = dims[one.row_class];
    if (!with_rows) continue;
    if (WireRowBytes(flags.format, one.signs.size(), dim) > reader.left()) {
      reader.Fail(std::to_string(one.signs.size()) + " rows of " + std::to_string(dim) + " in " +
                  std::to_string(reader.left()) + " bytes");
      break;
    }
    one.rows.resize(one.signs.size() * dim);
    reader.Rows(flags.format, one.signs.size(), dim, one.rows.data());
  }
  return classes;
}

// ---- whole rows -----------------------------------------------------------------------------------------------------

Buffer EncodeWholeRows(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                       std::span<const RowAge> ages, WireFlags flags) {
  WireWriter writer;
  WriteSigns(writer, flags, row_class, signs);
  writer.Value(static_cast<uint8_t>(ages.empty() ? 0 : 1));
  for (const RowAge& age : ages) {
    writer.Value(age.ticks);
    writer.Value(age.idle_ms);
  }
  writer.Raw(std::as_bytes(rows));
  return writer.Take();
}

Result<WholeRows> DecodeWholeRows(Bytes bytes, WireFlags flags, std::span<const uint32_t> widths) {
  WireReader reader(bytes);
  WholeRows result;
  result.row_class = reader.Value<uint32_t>();
  result.signs = reader.Ids(flags.codec, kMostListed);
  const size_t count = result.signs.size();
  if (reader.Value<uint8_t>() != 0) {
    result.ages.resize(CheckedCount(reader, count, sizeof(uint32_t) + sizeof(uint64_t)));
    for (RowAge& age : result.ages) {
      age.ticks = reader.Value<uint32_t>();
      age.idle_ms = reader.Value<uint64_t>();
    }
  }
  if (result.row_class >= widths.size()) reader.Fail("row class " + std::to_string(result.row_class));
  const uint32_t width = reader.status().ok() ? widths[result.row_class] : 1;
  result.rows.resize(CheckedCount(reader, count, width * sizeof(float)) * width);
  reader.Rows(WireFormat::kFp32, result.rows.size() / width, width, result.rows.data());
  PERSIA_RETURN_IF_ERROR(reader.End());
  return result;
}

// ---- counters -------------------------------------------------------------------------------------------------------

Buffer EncodeCounters(const StoreCounters& counters) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(counters.classes.size()));
  for (const auto& tables : counters.classes) {
    writer.Value(static_cast<uint32_t>(tables.size()));
    for (const TableCounters& table : tables) ForCounters(table, [&](uint64_t value) { writer.Value(value); });
  }
  writer.Value(counters.row_staleness.samples);
  writer.Value(counters.row_staleness.sum);
  writer.Value(counters.row_staleness.most);
  for (const uint64_t count : counters.row_staleness.histogram) writer.Value(count);
  return writer.Take();
}

Result<StoreCounters> DecodeCounters(Bytes bytes) {
  WireReader reader(bytes);
  StoreCounters counters;
  counters.classes.resize(CheckedCount(reader, reader.Value<uint32_t>(), sizeof(uint32_t)));
  for (auto& tables : counters.classes) {
    tables.resize(CheckedCount(reader, reader.Value<uint32_t>(), 11 * sizeof(uint64_t)));
    for (TableCounters& table : tables) {
      ForCounters(table, [&](uint64_t& value) { value = reader.Value<uint64_t>(); });
    }
  }
  counters.row_staleness.samples = reader.Value<uint64_t>();
  counters.row_staleness.sum = reader.Value<uint64_t>();
  counters.row_staleness.most = reader.Value<uint64_t>();
  for (uint64_t& count : counters.row_staleness.histogram) count = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return counters;
}

void AddCounters(const TableCounters& more, TableCounters* sum) {
  std::vector<uint64_t> values;
  ForCounters(more, [&](uint64_t value) { values.push_back(value); });
  auto next = values.begin();
  ForCounters(*sum, [&](uint64_t& value) { value += *next++; });
}

void AddStaleness(const RowStaleness::Totals& more, RowStaleness::Totals* sum) {
  sum->samples += more.samples;
  sum->sum += more.sum;
  sum->most = std::max(sum->most, more.most);
  for (size_t i = 0; i < sum->histogram.size(); ++i) sum->histogram[i] += more.histogram[i];
}

// ---- request ids ----------------------------------------------------------------------------------------------------

Buffer EncodeRequestIds(std::span<const RequestId> ids) {
  WireWriter writer;
  writer.Value(static_cast<uint32_t>(ids.size()));
  for (const RequestId& id : ids) {
    writer.Value(id.worker);
    writer.Value(id.sequence);
  }
  return writer.Take();
}

Result<std::vector<RequestId>> DecodeRequestIds(Bytes bytes) {
  WireReader reader(bytes);
  std::vector<RequestId> ids(CheckedCount(reader, reader.Value<uint32_t>(), 2 * sizeof(uint64_t)));
  for (RequestId& id : ids) {
    id.worker = reader.Value<uint64_t>();
    id.sequence = reader.Value<uint64_t>();
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  return ids;
}

}  // namespace persia
