// How values, rows of floats and lists of ids are written into messages.
//
// WireWriter and WireReader: little-endian values one after another, no padding. A reader never reads past its end: what
// does not fit fails it, for good, and gives zeros; so a decoder reads all its fields and asks status() once.
//
// Rows (n, dim) f32 are written as
//   fp32   n · dim · 4 bytes
//   fp16   n · dim · 2 bytes, rounded to nearest even, finite numbers beyond the largest finite one become that one
//   bf16   the same
//   int8   n · (4 + dim) bytes: for each row its scale f32 and dim bytes. A value is byte · scale; the scale is the
//          largest magnitude of the row / 127. Not finite numbers have no byte: a row with any is written with the scale
//          NaN, and comes out as NaN, so that who checks for finite gradients finds it.
//
// Ids (n) u64 are written as count u32, bytes u32, then the ids: raw, or packed by LZ4 or Zstandard. Before packing they
// are laid out as eight planes (all lowest bytes, then all next ones, …), because signs of a feature group share their
// upper bytes. What packs to no less than it was is written raw, which the length tells.
//
// Thread-safety: pure functions; readers and writers are thread-confined.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "net/message.h"

namespace persia {

class WireWriter {
 public:
  template <typename T>
  void Value(T value) {
    static_assert(std::is_trivially_copyable_v<T> && (std::is_arithmetic_v<T> || std::is_enum_v<T>));
    std::memcpy(Extend(sizeof(T)), &value, sizeof(T));
  }
  void Text(std::string_view text);  // length u32, bytes
  void Raw(Bytes bytes);
  void Rows(WireFormat format, const float* rows, size_t count, uint32_t dim);
  void Ids(IdCodec codec, std::span<const uint64_t> ids);

  // So many uninitialised bytes at the end, to be filled at once.
  std::byte* Extend(size_t bytes);
  // Makes room ahead of time.
  void Reserve(size_t bytes);
  size_t size() const { return size_; }
  // What was written; the writer is empty afterwards.
  Buffer Take();

 private:
  Buffer buffer_;
  size_t size_ = 0;
};

class WireReader {
 public:
  explicit WireReader(Bytes bytes) : left_(bytes) {}

  template <typename T>
  T Value() {
    static_assert(std::is_trivially_copyable_v<T> && std::is_arithmetic_v<T>);
    T value{};
    const Bytes bytes = Take(sizeof(T));
    if (bytes.size() == sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  std::string Text(size_t most_bytes);
  // So many bytes, or none when there are fewer.
  Bytes Raw(size_t bytes) { return Take(bytes); }
  // `out` is (count, dim) f32; zeros when they are not there.
  void Rows(WireFormat format, size_t count, uint32_t dim, float* out);
  // A list of at most `most` ids: no memory is taken for a longer one, nor for what packed lists of this message would
  // come to above the size that an unpacked message may have.
  std::vector<uint64_t> Ids(IdCodec codec, size_t most);

  size_t left() const { return left_.size(); }
  // For what a decoder of its own finds wrong.
  void Fail(const std::string& what);
  // kProtocol, saying what was wrong first.
  const Status& status() const { return status_; }
  // The same, and kProtocol when bytes are left over.
  Status End();

 private:
  Bytes Take(size_t bytes);

  Bytes left_;
  size_t unpackable_ = MessageLimits{}.max_payload_bytes;
  Status status_;
};

// Bytes of so many rows.
size_t WireRowBytes(WireFormat format, size_t count, uint32_t dim);

// Whether a message may have so many bytes: for who answers a short request with a long list, before it takes memory.
// kProtocol.
Status CheckAnswerBytes(size_t bytes);

// "fp32", "fp16", "bf16", "int8"; "raw", "lz4", "zstd".
const char* WireFormatName(WireFormat format);
const char* IdCodecName(IdCodec codec);
// The format of a name; kUsage, listing the names.
Result<WireFormat> ParseWireFormat(std::string_view name);
Result<IdCodec> ParseIdCodec(std::string_view name);

}  // namespace persia
