#include "snapshot_files.h"

#include "convert.h"

namespace persia::bindings {

Napi::Value FilesToJs(Napi::Env env, const std::vector<SnapshotFile>& files) {
  Napi::Array result = Napi::Array::New(env, files.size());
  for (uint32_t i = 0; i < files.size(); ++i) {
    Napi::Object file = Napi::Object::New(env);
    file.Set("name", files[i].name);
    file.Set("bytes", static_cast<double>(files[i].bytes));
    file.Set("checksum", Napi::BigInt::New(env, files[i].checksum));
    result.Set(i, file);
  }
  return result;
}

std::vector<SnapshotFile> FilesFromJs(const Napi::Array& files) {
  std::vector<SnapshotFile> result;
  for (uint32_t i = 0; i < files.Length(); ++i) {
    const auto file = files.Get(i).As<Napi::Object>();
    bool lossless = false;
    result.push_back({String(file, "name"), Uint64(file, "bytes"),
                      Field(file, "checksum").As<Napi::BigInt>().Uint64Value(&lossless)});
  }
  return result;
}

}  // namespace persia::bindings
