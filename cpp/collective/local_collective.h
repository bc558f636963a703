// The collective of several NN workers that are threads of one process.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "collective/collective.h"

namespace persia {

// A group of `ranks` (>= 1) collectives, the one of each rank in its place. The last one to go takes the group along.
std::vector<std::unique_ptr<Collective>> MakeLocalCollectives(uint32_t ranks, const CollectiveOptions& options = {});

}  // namespace persia
