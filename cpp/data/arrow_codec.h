// The codecs of compressed Arrow buffers: frames of LZ4 and of Zstandard.
//
// Thread-safety: stateless.
#pragma once

#include <cstdint>
#include <span>

#include "data/arrow_file.h"

namespace persia {

// Whether `bytes` decompress to exactly as many bytes as `values` has. Nothing is written outside of it.
bool DecompressBuffer(ArrowCodec codec, std::span<const uint8_t> bytes, std::span<uint8_t> values);

}  // namespace persia
