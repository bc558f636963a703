// Options of the cluster's roles, as ts/native-types.ts has them, for the core.
#pragma once

#include <napi.h>

#include "trainer/cluster_roles.h"

namespace persia::bindings {

// Of NativeRoleOptions or NativeClusterOptions: net, wire and rank. Throws a JavaScript error for names that don't exist.
RoleOptions ReadRoleOptions(const Napi::Object& options);
ClusterPeers ReadPeers(const Napi::Object& peers);

}  // namespace persia::bindings
