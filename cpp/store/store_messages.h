// What embedding workers and drivers say to a parameter server: types and payloads of its requests, for both ends
// (remote_store.h, parameter_server.h). Writers and readers are inverse to each other; all readers check what they read
// and take memory only for what is there.
//
// Rows of a training step travel in the format and signs with the codec of the message's WireFlags; whole rows (with the
// state of their optimizer) always as f32.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "net/wire.h"
#include "store/parameter_store.h"
#include "store/row_staleness.h"

namespace persia {

// Types of requests; below 0x200 those of parameter servers.
namespace store_request {
inline constexpr uint16_t kLookup = 0x100;    // Step, mode u8, signs by class -> rows of the same
inline constexpr uint16_t kApply = 0x101;     // Step, signs and gradients by class -> nothing, when they are applied
inline constexpr uint16_t kLeave = 0x102;     // rank u32: NN worker that brings nothing more
inline constexpr uint16_t kWrite = 0x103;     // class u32, signs, whole rows, ages
inline constexpr uint16_t kRead = 0x104;      // class u32, signs -> found u8…, whole rows
inline constexpr uint16_t kScan = 0x105;      // class u32 -> scan u64
inline constexpr uint16_t kScanNext = 0x106;  // scan u64 -> as kWrite; no signs: the end
inline constexpr uint16_t kClear = 0x107;
inline constexpr uint16_t kRowCount = 0x108;  // class u32 -> rows u64
inline constexpr uint16_t kCounters = 0x109;  // -> StoreCounters
inline constexpr uint16_t kSaveState = 0x10a;     // class u32 -> words
inline constexpr uint16_t kRestoreState = 0x10b;  // class u32, words -> taken u8
inline constexpr uint16_t kApplied = 0x10c;           // -> request ids
inline constexpr uint16_t kRestoreApplied = 0x10d;    // request ids
}  // namespace store_request

// The most that a list in a message may have: a bound on memory, far above any batch.
inline constexpr size_t kMostListed = size_t{1} << 26;

// Signs of one row class with their rows, in memory of its own.
struct ClassRows {
  uint32_t row_class = 0;
  std::vector<uint64_t> signs;
  std::vector<float> rows;
};

// Signs by class; `classes` is the number that there are. With rows in the format if `dims` is not empty.
void WriteSigns(WireWriter& writer, WireFlags flags, uint32_t row_class, std::span<const uint64_t> signs);
std::vector<ClassRows> ReadSigns(WireReader& reader, WireFlags flags, std::span<const uint32_t> dims, bool with_rows);

// Whole rows of one class.
struct WholeRows {
  uint32_t row_class = 0;
  std::vector<uint64_t> signs;
  std::vector<float> rows;    // (n, row width)
  std::vector<RowAge> ages;   // (n) or none
};
Buffer EncodeWholeRows(uint32_t row_class, std::span<const uint64_t> signs, std::span<const float> rows,
                       std::span<const RowAge> ages, WireFlags flags);
// `widths` by row class.
Result<WholeRows> DecodeWholeRows(Bytes bytes, WireFlags flags, std::span<const uint32_t> widths);

// What a parameter server has counted.
struct StoreCounters {
  std::vector<std::vector<TableCounters>> classes;  // by row class: the table, then its groups
  RowStaleness::Totals row_staleness;
};
Buffer EncodeCounters(const StoreCounters& counters);
Result<StoreCounters> DecodeCounters(Bytes bytes);
// Adds up counters and totals of several servers.
void AddCounters(const TableCounters& more, TableCounters* sum);
void AddStaleness(const RowStaleness::Totals& more, RowStaleness::Totals* sum);

Buffer EncodeRequestIds(std::span<const RequestId> ids);
Result<std::vector<RequestId>> DecodeRequestIds(Bytes bytes);

}  // namespace persia
