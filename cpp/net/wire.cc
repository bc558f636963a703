#include "net/wire.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <lz4.h>
#include <zstd.h>

#include "base/copy.h"
#include "base/cpu.h"
#include "base/finite.h"
#include "table/row_format.h"

namespace persia {
namespace {

constexpr int kZstdLevel = 1;
constexpr std::array kFormatNames = {"fp32", "fp16", "bf16", "int8"};
constexpr std::array kCodecNames = {"raw", "lz4", "zstd"};

StorageType HalfType(WireFormat format) {
  return format == WireFormat::kFp16 ? StorageType::kFp16 : StorageType::kBf16;
}

// One row of int8: `out` is its scale and dim bytes.
struct QuantizeRow {
  static PERSIA_ALWAYS_INLINE void Run(const float* row, uint32_t dim, std::byte* out) {
    float largest = 0;
    for (uint32_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(row[i]));
    float scale = largest / 127.0f;
    if (!AllFinite({row, dim})) scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(out, &scale, sizeof(scale));
    auto* bytes = reinterpret_cast<int8_t*>(out + sizeof(scale));
    // A scale that is zero or whose inverse overflows: all values are zero, or so small that the bytes are.
    const float inverse = scale > std::numeric_limits<float>::min() ? 1.0f / scale : 0.0f;
    for (uint32_t i = 0; i < dim; ++i) {
      // Adding 1.5 · 2^23 rounds to the nearest integer, ties to even, into the low bits.
      const float shifted = row[i] * inverse + 12582912.0f;
      bytes[i] = static_cast<int8_t>(std::bit_cast<int32_t>(shifted) - 0x4b400000);
    }
  }
};

struct RestoreRow {
  static PERSIA_ALWAYS_INLINE void Run(const std::byte* in, uint32_t dim, float* row) {
    float scale;
    std::memcpy(&scale, in, sizeof(scale));
    const auto* bytes = reinterpret_cast<const int8_t*>(in + sizeof(scale));
    for (uint32_t i = 0; i < dim; ++i) row[i] = static_cast<float>(bytes[i]) * scale;
  }
};

struct QuantizeRows {
  static PERSIA_ALWAYS_INLINE void Run(const float* rows, size_t count, uint32_t dim, std::byte* out) {
    for (size_t i = 0; i < count; ++i) QuantizeRow::Run(rows + i * dim, dim, out + i * (dim + sizeof(float)));
  }
};

struct RestoreRows {
  static PERSIA_ALWAYS_INLINE void Run(const std::byte* in, size_t count, uint32_t dim, float* rows) {
    for (size_t i = 0; i < count; ++i) RestoreRow::Run(in + i * (dim + sizeof(float)), dim, rows + i * dim);
  }
};

// Calls run(begin, count) for parts of `values` that a uint32_t counts.
template <typename F>
void InParts(size_t values, const F& run) {
  constexpr size_t kPart = size_t{1} << 20;
  for (size_t begin = 0; begin < values; begin += kPart) run(begin, static_cast<uint32_t>(std::min(kPart, values - begin)));
}

// Eight planes: the i-th has byte i of all ids.
Buffer ToPlanes(std::span<const uint64_t> ids) {
  Buffer planes(ids.size() * 8);
  for (size_t plane = 0; plane < 8; ++plane) {
    std::byte* out = planes.data() + plane * ids.size();
    for (size_t i = 0; i < ids.size(); ++i) out[i] = static_cast<std::byte>(ids[i] >> (8 * plane));
  }
  return planes;
}

void FromPlanes(const Buffer& planes, std::span<uint64_t> ids) {
  std::fill(ids.begin(), ids.end(), 0);
  for (size_t plane = 0; plane < 8; ++plane) {
    const std::byte* in = planes.data() + plane * ids.size();
    for (size_t i = 0; i < ids.size(); ++i) ids[i] |= static_cast<uint64_t>(in[i]) << (8 * plane);
  }
}

// Bytes written to `out`; 0 when they are no fewer than the planes'.
size_t Pack(IdCodec codec, const Buffer& planes, std::span<std::byte> out) {
  if (codec == IdCodec::kZstd) {
    const size_t bytes = ZSTD_compress(out.data(), out.size(), planes.data(), planes.size(), kZstdLevel);
    return ZSTD_isError(bytes) ? 0 : bytes;
  }
  return static_cast<size_t>(LZ4_compress_default(reinterpret_cast<const char*>(planes.data()),
                                                  reinterpret_cast<char*>(out.data()), static_cast<int>(planes.size()),
                                                  static_cast<int>(out.size())));
}

bool Unpack(IdCodec codec, Bytes packed, Buffer* planes) {
  if (codec == IdCodec::kZstd) {
    return ZSTD_decompress(planes->data(), planes->size(), packed.data(), packed.size()) == planes->size();
  }
  const int bytes = LZ4_decompress_safe(reinterpret_cast<const char*>(packed.data()),
                                        reinterpret_cast<char*>(planes->data()), static_cast<int>(packed.size()),
                                        static_cast<int>(planes->size()));
  return bytes >= 0 && static_cast<size_t>(bytes) == planes->size();
}

constexpr size_t kMostPackedBytes = LZ4_MAX_INPUT_SIZE;  // larger lists go raw

}  // namespace

size_t WireRowBytes(WireFormat format, size_t count, uint32_t dim) {
  switch (format) {
    case WireFormat::kFp32: return count * dim * sizeof(float);
    case WireFormat::kFp16:
    case WireFormat::kBf16: return count * dim * 2;
    case WireFormat::kInt8: return count * (dim + sizeof(float));
  }
  PERSIA_CHECK(false);
}

Status CheckAnswerBytes(size_t bytes) {
  constexpr size_t kMost = MessageLimits{}.max_payload_bytes;
  if (bytes <= kMost) return Status::Ok();
  return Status(ErrorCode::kProtocol, "a request asks for " + std::to_string(bytes) + " bytes, at most " +
                                          std::to_string(kMost) + " fit into an answer");
}

std::byte* WireWriter::Extend(size_t bytes) {
  if (size_ + bytes > buffer_.size()) Reserve(std::max<size_t>(size_ + bytes, 2 * buffer_.size()) - size_);
  std::byte* at = buffer_.data() + size_;
  size_ += bytes;
  return at;
}

void WireWriter::Reserve(size_t bytes) {
  if (size_ + bytes <= buffer_.size()) return;
  Buffer larger(std::max<size_t>(size_ + bytes, 256));
  CopyBytes(larger.data(), buffer_.data(), size_);
  buffer_ = std::move(larger);
}

Buffer WireWriter::Take() {
  Buffer taken = std::move(buffer_);
  taken.Truncate(size_);
  buffer_ = Buffer();
  size_ = 0;
  return taken;
}

void WireWriter::Text(std::string_view text) {
  Value(static_cast<uint32_t>(text.size()));
  Raw({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

void WireWriter::Raw(Bytes bytes) { CopyBytes(Extend(bytes.size()), bytes.data(), bytes.size()); }

void WireWriter::Rows(WireFormat format, const float* rows, size_t count, uint32_t dim) {
  const size_t bytes = WireRowBytes(format, count, dim);
  std::byte* out = Extend(bytes);
  if (format == WireFormat::kFp32) return CopyBytes(out, rows, bytes);
  if (format == WireFormat::kInt8) return RunBestSimd<QuantizeRows>(rows, count, dim, out);
  InParts(count * dim, [&](size_t begin, uint32_t values) {
    RowFormat(HalfType(format), values, 0).EncodeNearest(rows + begin, out + 2 * begin);
  });
}

void WireWriter::Ids(IdCodec codec, std::span<const uint64_t> ids) {
  const size_t raw_bytes = ids.size() * sizeof(uint64_t);
  Value(static_cast<uint32_t>(ids.size()));
  if (codec != IdCodec::kRaw && raw_bytes > 0 && raw_bytes <= kMostPackedBytes) {
    const Buffer planes = ToPlanes(ids);
    const size_t start = size_;
    std::byte* at = Extend(sizeof(uint32_t) + raw_bytes - 1);
    const size_t packed = Pack(codec, planes, {at + sizeof(uint32_t), raw_bytes - 1});
    const auto length = static_cast<uint32_t>(packed);
    std::memcpy(at, &length, sizeof(length));
    size_ = start + (packed > 0 ? sizeof(uint32_t) + packed : 0);
    if (packed > 0) return;
  }
  Value(static_cast<uint32_t>(raw_bytes));
  Raw({reinterpret_cast<const std::byte*>(ids.data()), raw_bytes});
}

Bytes WireReader::Take(size_t bytes) {
  if (bytes > left_.size()) {
    Fail("ends too early: " + std::to_string(bytes) + " bytes are wanted, " + std::to_string(left_.size()) + " left");
    return {};
  }
  const Bytes taken = left_.first(bytes);
  left_ = left_.subspan(bytes);
  return taken;
}

void WireReader::Fail(const std::string& what) {
  if (status_.ok()) status_ = Status(ErrorCode::kProtocol, "a message " + what);
  left_ = {};
}

Status WireReader::End() {
  if (status_.ok() && !left_.empty()) Fail("has " + std::to_string(left_.size()) + " bytes too many");
  return status_;
}

std::string WireReader::Text(size_t most_bytes) {
  const auto length = Value<uint32_t>();
  if (length > most_bytes) {
    Fail("has a text of " + std::to_string(length) + " bytes, at most " + std::to_string(most_bytes) + " are allowed");
    return {};
  }
  const Bytes bytes = Take(length);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void WireReader::Rows(WireFormat format, size_t count, uint32_t dim, float* out) {
  const size_t bytes = WireRowBytes(format, count, dim);
  const Bytes in = Take(bytes);
  if (in.size() != bytes) {
    std::fill_n(out, count * dim, 0.0f);
    return;
  }
  if (format == WireFormat::kFp32) return CopyBytes(out, in.data(), bytes);
  if (format == WireFormat::kInt8) return RunBestSimd<RestoreRows>(in.data(), count, dim, out);
  InParts(count * dim, [&](size_t begin, uint32_t values) {
    RowFormat(HalfType(format), values, 0).DecodeEmbedding(in.data() + 2 * begin, out + begin);
  });
}

std::vector<uint64_t> WireReader::Ids(IdCodec codec, size_t most) {
  const size_t count = Value<uint32_t>(), bytes = Value<uint32_t>(), raw_bytes = count * sizeof(uint64_t);
  if (count > most) Fail("has " + std::to_string(count) + " ids, at most " + std::to_string(most) + " are allowed");
  if (bytes > raw_bytes || (codec == IdCodec::kRaw && bytes != raw_bytes)) Fail("has ids of a wrong length");
  const Bytes in = Take(bytes);
  if (!status_.ok()) return {};
  if (bytes == raw_bytes) {
    std::vector<uint64_t> ids(count);
    CopyBytes(ids.data(), in.data(), bytes);
    return ids;
  }
  if (raw_bytes > unpackable_) {
    Fail("has ids that unpack to " + std::to_string(raw_bytes) + " bytes, " + std::to_string(unpackable_) + " are allowed");
    return {};
  }
  unpackable_ -= raw_bytes;
  Buffer planes(raw_bytes);
  if (!Unpack(codec, in, &planes)) {
    Fail("has ids that do not unpack");
    return {};
  }
  std::vector<uint64_t> ids(count);
  FromPlanes(planes, ids);
  return ids;
}

const char* WireFormatName(WireFormat format) { return kFormatNames[static_cast<size_t>(format)]; }
const char* IdCodecName(IdCodec codec) { return kCodecNames[static_cast<size_t>(codec)]; }

Result<WireFormat> ParseWireFormat(std::string_view name) {
  for (size_t i = 0; i < kFormatNames.size(); ++i) {
    if (name == kFormatNames[i]) return WireFormat(i);
  }
  return Status(ErrorCode::kUsage, std::string(name) + " is no wire format: expected fp32, fp16, bf16 or int8");
}

Result<IdCodec> ParseIdCodec(std::string_view name) {
  for (size_t i = 0; i < kCodecNames.size(); ++i) {
    if (name == kCodecNames[i]) return IdCodec(i);
  }
  return Status(ErrorCode::kUsage, std::string(name) + " is no codec of ids: expected raw, lz4 or zstd");
}

}  // namespace persia
