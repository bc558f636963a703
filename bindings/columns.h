// Conversions that the batcher and the sources of prepared data share: options of columns, chunks of a reader.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <napi.h>

#include "batch/batcher.h"
#include "batch/chunk.h"
#include "batch/chunk_decoder.h"
#include "convert.h"

namespace persia::bindings {

std::optional<std::string> OptionalString(const Napi::Object& object, const char* name);

// The elements of array `name`, each turned into a T.
template <typename T, typename Convert>
std::vector<T> List(const Napi::Object& object, const char* name, Convert convert) {
  const Napi::Array array = Array(object, name);
  std::vector<T> list;
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(convert(Napi::Value(array.Get(i))));
  return list;
}

std::vector<std::string> Texts(const Napi::Object& object, const char* name);
std::vector<uint32_t> Numbers(const Napi::Object& object, const char* name);

DenseColumnOptions ToDenseColumn(const Napi::Value& value);
// { ids, dense, labels, missing, split? }
DecoderOptions ToDecoderOptions(const Napi::Object& object);
// { label, keep, seed, epoch }
NegativeSampling ToSampling(const Napi::Object& object);
// { testShare, seed, stream }: the key is drawn from seed and stream
ShareSplit ToShareSplit(const Napi::Object& object);

// Views on the memory of DuckDB's vectors: ts/data/native-batcher.ts.
ChunkView ToChunkView(const Napi::Object& object);

}  // namespace persia::bindings
