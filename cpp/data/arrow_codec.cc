#include "data/arrow_codec.h"

#include <lz4frame.h>
#include <zstd.h>

namespace persia {
namespace {

bool DecompressLz4(std::span<const uint8_t> bytes, std::span<uint8_t> values) {
  LZ4F_dctx* context = nullptr;
  if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION))) return false;
  size_t left = 1;  // 0: the frame has ended
  size_t read = 0, written = 0;
  while (left != 0) {
    size_t from = bytes.size() - read, to = values.size() - written;
    left = LZ4F_decompress(context, values.data() + written, &to, bytes.data() + read, &from, nullptr);
    if (LZ4F_isError(left) || (left != 0 && from == 0 && to == 0)) break;
    read += from;
    written += to;
  }
  LZ4F_freeDecompressionContext(context);
  return left == 0 && read == bytes.size() && written == values.size();
}

}  // namespace

bool DecompressBuffer(ArrowCodec codec, std::span<const uint8_t> bytes, std::span<uint8_t> values) {
  if (codec == ArrowCodec::kLz4) return DecompressLz4(bytes, values);
  const size_t written = ZSTD_decompress(values.data(), values.size(), bytes.data(), bytes.size());
  return !ZSTD_isError(written) && written == values.size();
}

}  // namespace persia
