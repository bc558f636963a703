// Where this code lies on disk: what belongs to it is looked for beside it.
#pragma once

#include <string>

namespace persia {

// The folder of the shared object or program that this was linked into, "." where that is not known.
std::string OwnFolder();

}  // namespace persia
