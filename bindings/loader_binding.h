// Data loaders in JavaScript's hands: the queue of one that reads for the driver, and the others as the driver sees
// them.
#pragma once

#include <memory>

#include <napi.h>

#include "trainer/loader_clients.h"
#include "trainer/loader_queue.h"

namespace persia::bindings {

std::shared_ptr<LoaderQueue> LoaderQueueOf(const Napi::Value& value);
Napi::Object LoadersToJs(Napi::Env env, std::shared_ptr<LoaderClients> loaders);

void RegisterLoaders(Napi::Env env, Napi::Object exports);

}  // namespace persia::bindings
