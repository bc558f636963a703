// The list of a checkpoint's files between JavaScript ({ name, bytes, checksum }[]) and the core.
#pragma once

#include <vector>

#include <napi.h>

#include "checkpoint/snapshot.h"

namespace persia::bindings {

Napi::Value FilesToJs(Napi::Env env, const std::vector<SnapshotFile>& files);
std::vector<SnapshotFile> FilesFromJs(const Napi::Array& files);

}  // namespace persia::bindings
