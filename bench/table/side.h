// What the benchmark measures side by side: our table, other maps with the same rows, and the physical bounds.
//
// All hold `rows` rows of an embedding and its Adagrad state in float32 and are asked for the same calls of distinct
// signs. The maps run the same arithmetic (table/row_optimizer.h, table/initializer.h), so that only the maps differ.
// The bounds keep no signs: what they find for a sign is some row, always the same one.
//
// Thread-safety: internally synchronised, but for the bounds, which let two threads that meet in a row race: what they
// write means nothing, and not to guard it is what makes them bounds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "table/table.h"

namespace persia::bench {

class Side {
 public:
  virtual ~Side() = default;

  // Copies the embeddings of `signs` (n) to `out` (n, dim) f32; kTrain inserts those that are new.
  virtual void Gather(std::span<const uint64_t> signs, LookupMode mode, float* out) = 0;
  // Gather (kTrain) of a call, then the optimizer on the same rows with `gradients` (n, dim) f32. For a bound: one
  // read-modify-write of each whole row, which is what the memory has to do for both.
  virtual void GatherApply(std::span<const uint64_t> signs, const float* gradients, float* out) = 0;
  // Maps only.
  virtual void Erase(std::span<const uint64_t> signs) = 0;
  virtual uint64_t size() const = 0;
  virtual uint64_t bytes() const { return 0; }  // as it counts itself; 0: it doesn't
  virtual uint64_t lost() const { return 0; }   // rows evicted: a measurement that loses rows is void
  virtual bool is_bound() const { return false; }
};

struct SideOptions {
  uint32_t dim = 16;      // 8, 16 or 64: the peers have the row width at compile time
  uint64_t rows = 0;      // filled in before timing
  uint64_t headroom = 0;  // rows that may come on top
  uint32_t depth = 16;    // of the bounds: how many rows ahead they prefetch
};

struct SideKind {
  std::string name;
  std::function<uint64_t(const SideOptions&)> bytes;  // of memory that it will take, at most
  std::function<std::unique_ptr<Side>(const SideOptions&)> make;
};

// One-line bound, two-line bound, ours, then the peers that this build has.
std::vector<SideKind> SideKinds();
// "NAME: why" of each peer that it lacks.
std::vector<std::string> MissingPeers();

SideKind OneLineBound();  // random rows
SideKind TwoLineBound();  // a random index line, and the row that it names
SideKind Ours();
std::vector<SideKind> PeerMaps();

// The table under test: default options, room for `capacity_rows`.
TableOptions OptionsOfOurs(uint32_t dim, uint64_t capacity_rows);

}  // namespace persia::bench
