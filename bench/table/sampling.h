// What the modes of the table benchmark share: settings, how a side is built and filled, one timed sample, the report.
//
// Thread-safety: all of it is for the main thread; Fill and SampleRate start and join their own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "ids.h"
#include "side.h"

namespace persia::bench {

struct Settings {
  std::string mode;               // grid, show, growth or size
  uint32_t dim = 0;               // 0: what the mode takes by itself; so below
  uint64_t rows = 0;
  size_t batch = 1024;
  uint32_t threads = 0;
  uint32_t rounds = 0;
  double seconds = 0;             // of a sample
  uint32_t depth = 16;            // of the bounds' prefetches
  std::string peer;               // command of bench/peers/embedding_cpu.py; empty: without PyTorch
  std::string out;                // file of JSON lines; empty: none
  bool smoke = false;             // small and short
};

enum class Op { kGatherTrain, kGatherRead, kGatherApply, kInsert };
const char* NameOf(Op op);

// A side that holds its rows, all touched.
struct Filled {
  std::string name;
  std::unique_ptr<Side> side;
  SideOptions options;
  double bytes_per_row = 0;  // resident memory it took; of the bounds too
  double own_bytes_per_row = 0;  // as it counts itself, 0 if it doesn't
  double huge_share = 0;     // of that memory in huge pages
  double fill_rate = 0;      // rows/s of filling it from empty, first touch of its memory included; 0 of a bound
};

// Ends the process when the side doesn't hold all rows afterwards.
Filled Fill(const SideKind& kind, const SideOptions& options, size_t batch, uint32_t threads);

// What a thread of a sample reads and writes beside the side: its own buffers for a call.
struct CallBuffers {
  CallBuffers(size_t batch, uint32_t dim);
  AlignedBuffer<float> out, gradients;
};
void RunCall(Side& side, Op op, std::span<const uint64_t> signs, CallBuffers& buffers);

// Rows/s of `op` (not kInsert) on `threads` threads, each on its own stream for `seconds`.
double SampleRate(Filled& filled, Op op, IdStreams& streams, uint32_t threads, double seconds);

// Middle and range of the rounds' figures.
struct Spread {
  double median = 0, low = 0, high = 0;
};
Spread SpreadOf(std::vector<double> values);
// The value below which a share of `sorted` (not empty) lies.
double Quantile(std::span<const double> sorted, double share);

uint64_t AvailableBytes();  // of memory, for new structures: MemAvailable less a reserve

// A figure's place in the report, a JSON line in `out`.
class Report {
 public:
  explicit Report(const Settings& settings) : settings_(settings) {}

  // Starts the lines of one setting: `ids` "uniform" or "zipf".
  void At(uint32_t dim, uint64_t rows, const std::string& ids, uint32_t threads);
  void Rate(const std::string& side, const std::string& op, const Spread& rows_per_second, size_t rounds) const;
  void Figures(const std::string& name, const std::map<std::string, double>& figures) const;
  // Something that was left out: printed too.
  void Skipped(const std::string& what) const;

 private:
  void Line(const std::string& fields) const;

  const Settings& settings_;
  std::string at_;
};

// The modes; each prints its figures.
void RunGrid(const Settings& settings);
void RunShow(const Settings& settings);
void RunGrowth(const Settings& settings);
void RunSize(const Settings& settings);

}  // namespace persia::bench
