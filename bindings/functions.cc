// Small functions of the addon: hashing, checksums, formatting of predictions, what the machine has.
#include "functions.h"

#include <sys/file.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "base/hash.h"
#include "convert.h"
#include "dense/cuda_backend.h"
#include "net/process_transport.h"
#include "js_thread.h"
#include "snapshot_files.h"

namespace persia::bindings {
namespace {

// hashId(text: string): bigint
Napi::Value HashIdOf(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) throw Napi::TypeError::New(info.Env(), "hashId: a string is expected");
  return Napi::BigInt::New(info.Env(), HashId(info[0].As<Napi::String>().Utf8Value()));
}

// hashIds(texts: string[]): BigUint64Array
Napi::Value HashIdsOf(const Napi::CallbackInfo& info) {
  if (!info[0].IsArray()) throw Napi::TypeError::New(info.Env(), "hashIds: an array of strings is expected");
  const auto texts = info[0].As<Napi::Array>();
  Napi::BigUint64Array ids = Napi::BigUint64Array::New(info.Env(), texts.Length());
  for (uint32_t i = 0; i < texts.Length(); ++i) {
    const Napi::HandleScope scope(info.Env());
    const Napi::Value text = texts.Get(i);
    if (!text.IsString()) {
      throw Napi::TypeError::New(info.Env(), "hashIds: entry " + std::to_string(i) + " is not a string");
    }
    ids[i] = HashId(text.As<Napi::String>().Utf8Value());
  }
  return ids;
}

// checksum(bytes: Uint8Array): bigint — XXH64, seed 0
Napi::Value Checksum(const Napi::CallbackInfo& info) {
  const auto bytes = TypedArray<const uint8_t>(info[0], "bytes");
  return Napi::BigInt::New(info.Env(), Xxh64(bytes.data(), bytes.size()));
}

// verifySnapshot(directory: string, files: { name, bytes, checksum }[]): Promise<void>
Napi::Value VerifySnapshot(const Napi::CallbackInfo& info) {
  return RunInPool(info.Env(), [directory = info[0].As<Napi::String>().Utf8Value(),
                                files = FilesFromJs(info[1].As<Napi::Array>())] {
    for (const SnapshotFile& file : files) PERSIA_RETURN_IF_ERROR(SnapshotReader::Verify(directory, file));
    return Status::Ok();
  });
}

// tryLock(file: number): boolean
// An exclusive flock(2) of an open file, which ends when that is closed, if need be with the process. False: another open
// file of the same path, here or on another host, has it.
Napi::Value TryLock(const Napi::CallbackInfo& info) {
  if (flock(info[0].As<Napi::Number>().Int32Value(), LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
  const Napi::Error error = Napi::Error::New(info.Env(), std::string("flock: ") + std::strerror(errno));
  error.Set("code", "EFLOCK");
  throw error;
}

// formatOutputs(outputs: Float32Array, labels: string[] (as JSON text), style: 'csv' | 'json', firstRow: number):
//   Buffer
// One line a sample with the shortest decimals that read back as the same float32:
// `0.25,0.5` or `{"event":"prediction","row":17,"outputs":{"income":0.25}}`; rows count from firstRow.
Napi::Value FormatOutputs(const Napi::CallbackInfo& info) {
  const auto outputs = TypedArray<const float>(info[0], "outputs");
  const auto labels = info[1].As<Napi::Array>();
  const bool json = info[2].As<Napi::String>().Utf8Value() == "json";
  uint64_t row = static_cast<uint64_t>(info[3].As<Napi::Number>().Int64Value());
  std::vector<std::string> before(labels.Length());  // what stands in front of each value
  for (uint32_t t = 0; t < labels.Length(); ++t) {
    if (t > 0) before[t].push_back(',');
    if (json) before[t].append(labels.Get(t).As<Napi::String>().Utf8Value()).push_back(':');
  }
  std::string text;
  char number[32];
  for (size_t i = 0; i < outputs.size(); i += before.size(), ++row) {
    if (json) text.append("{\"event\":\"prediction\",\"row\":").append(std::to_string(row)).append(",\"outputs\":{");
    for (size_t t = 0; t < before.size(); ++t) {
      text += before[t];
      text.append(number, std::to_chars(number, number + sizeof(number), outputs[i + t]).ptr);
    }
    text += json ? "}}\n" : "\n";
  }
  return Napi::Buffer<char>::Copy(info.Env(), text.data(), text.size());
}

// machine(): { cores, avx2, avx512bf16, amx }, the latter with bf16 products
Napi::Value Machine(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("cores", static_cast<double>(std::thread::hardware_concurrency()));
  result.Set("avx2", HasAvx2());
  result.Set("avx512bf16", HasAvx512Bf16());
  result.Set("amx", HasAmxBf16());
  return result;
}

// cuda(): { path, devices, error }: where the CUDA backend was loaded from ("" if it wasn't), the GPUs it can use, and
// why there are none
Napi::Value Cuda(const Napi::CallbackInfo& info) {
  const auto devices = CudaDevices();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("path", CudaLibraryPath());
  result.Set("error", devices.ok() ? "" : devices.status().message());
  Napi::Array found = Napi::Array::New(info.Env());
  if (devices.ok()) {
    for (const CudaDevice& device : devices.value()) {
      Napi::Object entry = Napi::Object::New(info.Env());
      entry.Set("name", device.name);
      entry.Set("capability", std::to_string(device.major) + "." + std::to_string(device.minor));
      entry.Set("memoryBytes", static_cast<double>(device.memory_bytes));
      found.Set(found.Length(), entry);
    }
  }
  result.Set("devices", found);
  return result;
}

// describeTransports(): text, a line each
Napi::Value DescribeTransportsOf(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), DescribeTransports());
}

}  // namespace

void RegisterFunctions(Napi::Env env, Napi::Object exports) {
  exports.Set("hashId", Napi::Function::New(env, HashIdOf, "hashId"));
  exports.Set("hashIds", Napi::Function::New(env, HashIdsOf, "hashIds"));
  exports.Set("checksum", Napi::Function::New(env, Checksum, "checksum"));
  exports.Set("verifySnapshot", Napi::Function::New(env, VerifySnapshot, "verifySnapshot"));
  exports.Set("tryLock", Napi::Function::New(env, TryLock, "tryLock"));
  exports.Set("formatOutputs", Napi::Function::New(env, FormatOutputs, "formatOutputs"));
  exports.Set("cuda", Napi::Function::New(env, Cuda, "cuda"));
  exports.Set("describeTransports", Napi::Function::New(env, DescribeTransportsOf, "describeTransports"));
  exports.Set("machine", Napi::Function::New(env, Machine, "machine"));
}

}  // namespace persia::bindings
