// What libFuzzer calls, of a target that checks an input as a whole and makes its own seeds (seeds.h):
//
//   void CheckInput(Bytes input)
//   Seeds MakeSeeds()
//
// Such a target includes this at its end: behind these two, which it has in namespace persia.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seeds.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  persia::WriteSeedsIfAsked(*argc, *argv, persia::MakeSeeds);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  persia::CheckInput({reinterpret_cast<const std::byte*>(data), bytes});
  return 0;
}
