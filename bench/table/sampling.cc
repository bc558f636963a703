#include "sampling.h"

#include <malloc.h>

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/status.h"

namespace persia::bench {
namespace {

// A field of a file of lines "NAME:  N kB" (/proc/meminfo), in bytes; 0 when there is none.
uint64_t Field(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoull(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

struct Resident {
  double bytes, huge_bytes;
};

Resident ResidentMemory() {
  constexpr const char* kPath = "/proc/self/smaps_rollup";
  return {static_cast<double>(Field(kPath, "Rss")), static_cast<double>(Field(kPath, "AnonHugePages"))};
}

// Inserts ids k = thread, thread + threads, … in a shuffled order.
void FillPart(Side& side, const SideOptions& options, size_t batch, uint32_t thread, uint32_t threads) {
  CallBuffers buffers(batch, options.dim);
  std::vector<uint64_t> signs;
  for (uint64_t k = thread; k < options.rows; k += threads) {
    signs.push_back(SignOf(ShuffledId(k, options.rows)));
    if (signs.size() < batch && k + threads < options.rows) continue;
    side.Gather(signs, LookupMode::kTrain, buffers.out.data());
    signs.clear();
  }
}

}  // namespace

const char* NameOf(Op op) {
  switch (op) {
    case Op::kGatherTrain: return "gather";
    case Op::kGatherRead: return "gather-readonly";
    case Op::kGatherApply: return "gather+apply";
    case Op::kInsert: return "insert";
  }
  return "";
}

Filled Fill(const SideKind& kind, const SideOptions& options, size_t batch, uint32_t threads) {
  malloc_trim(0);  // else what an earlier side left in malloc's lists would be taken again and not be counted
  const Resident before = ResidentMemory();
  Filled filled{.name = kind.name, .side = kind.make(options), .options = options};
  if (!filled.side->is_bound()) {
    const double start = NowSeconds();
    std::vector<std::thread> filling;
    for (uint32_t t = 0; t < threads; ++t) {
      filling.emplace_back([&, t] { FillPart(*filled.side, options, batch, t, threads); });
    }
    for (std::thread& thread : filling) thread.join();
    filled.fill_rate = static_cast<double>(options.rows) / (NowSeconds() - start);
  }
  PERSIA_CHECK(filled.side->size() == options.rows);
  const double rows = static_cast<double>(options.rows);
  const Resident after = ResidentMemory();
  filled.bytes_per_row = (after.bytes - before.bytes) / rows;
  filled.huge_share = (after.huge_bytes - before.huge_bytes) / std::max(1.0, after.bytes - before.bytes);
  filled.own_bytes_per_row = static_cast<double>(filled.side->bytes()) / rows;
  return filled;
}

CallBuffers::CallBuffers(size_t batch, uint32_t dim) : out(batch * dim), gradients(batch * dim) {
  out.Fill(0.0f);
  gradients.Fill(0.01f);
}

void RunCall(Side& side, Op op, std::span<const uint64_t> signs, CallBuffers& buffers) {
  switch (op) {
    case Op::kGatherApply: return side.GatherApply(signs, buffers.gradients.data(), buffers.out.data());
    case Op::kGatherRead: return side.Gather(signs, LookupMode::kReadOnly, buffers.out.data());
    case Op::kGatherTrain:
    case Op::kInsert: return side.Gather(signs, LookupMode::kTrain, buffers.out.data());
  }
}

double SampleRate(Filled& filled, Op op, IdStreams& streams, uint32_t threads, double seconds) {
  std::vector<double> rates(threads);
  std::barrier start(threads);
  const auto sample = [&](uint32_t thread) {
    CallBuffers buffers(streams.batch(), filled.options.dim);
    for (int warm = 0; warm < 4; ++warm) RunCall(*filled.side, op, streams.Next(thread), buffers);
    start.arrive_and_wait();
    const double begin = NowSeconds();
    double now = begin;
    for (size_t rows = streams.batch(); now - begin < seconds; rows += streams.batch()) {
      RunCall(*filled.side, op, streams.Next(thread), buffers);
      now = NowSeconds();
      rates[thread] = static_cast<double>(rows) / (now - begin);
    }
  };
  std::vector<std::thread> team;
  for (uint32_t t = 0; t < threads; ++t) team.emplace_back(sample, t);
  for (std::thread& thread : team) thread.join();
  PERSIA_CHECK(filled.side->size() == filled.options.rows && filled.side->lost() == 0);
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

double Quantile(std::span<const double> sorted, double share) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(share * static_cast<double>(sorted.size())))];
}

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

uint64_t AvailableBytes() {
  constexpr uint64_t kReserve = uint64_t{1} << 30;  // for streams, the file cache and others on the machine
  const uint64_t available = Field("/proc/meminfo", "MemAvailable");
  return available > kReserve ? available - kReserve : 0;
}

void Report::At(uint32_t dim, uint64_t rows, const std::string& ids, uint32_t threads) {
  std::ostringstream at;
  at << "\"dim\":" << dim << ",\"rows\":" << rows << ",\"ids\":\"" << ids << "\",\"threads\":" << threads
     << ",\"batch\":" << settings_.batch;
  at_ = at.str();
}

void Report::Rate(const std::string& side, const std::string& op, const Spread& rate, size_t rounds) const {
  std::ostringstream fields;
  fields << at_ << ",\"side\":\"" << side << "\",\"op\":\"" << op << "\",\"rounds\":" << rounds
         << ",\"rowsPerSecond\":" << static_cast<uint64_t>(rate.median)
         << ",\"rowsPerSecondMin\":" << static_cast<uint64_t>(rate.low)
         << ",\"rowsPerSecondMax\":" << static_cast<uint64_t>(rate.high);
  Line(fields.str());
}

void Report::Figures(const std::string& name, const std::map<std::string, double>& figures) const {
  std::ostringstream fields;
  fields << at_ << ",\"figures\":\"" << name << '"';
  for (const auto& [key, value] : figures) fields << ",\"" << key << "\":" << value;
  Line(fields.str());
}

void Report::Skipped(const std::string& what) const {
  std::printf("skipped: %s\n", what.c_str());
  Line("\"skipped\":\"" + what + '"');
}

void Report::Line(const std::string& fields) const {
  std::fflush(stdout);
  if (settings_.out.empty()) return;
  std::ofstream file(settings_.out, std::ios::app);
  file << "{\"bench\":\"table-" << settings_.mode << "\"," << fields << "}\n";
  PERSIA_CHECK(file.good());
}

}  // namespace persia::bench
