// Gloo's ring all-reduce over TCP on loopback, as the peer of our ring. Compiled apart: its headers know none of our flags.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace persia::bench {

class GlooRing {
 public:
  // Ranks find each other by files in `folder`.
  GlooRing(uint32_t rank, uint32_t ranks, const std::string& folder);
  ~GlooRing();

  // Replaces `values` (count) f32 by their sum over all ranks.
  void Sum(float* values, size_t count);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace persia::bench
