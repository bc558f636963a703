// Every op at every size, with google-benchmark: repetitions of all sides and ops are interleaved at random.
//
// The sides of a size live together as far as memory allows; what does not fit beside the others is measured after
// them, and what does not fit at all is named and left out.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <thread>
#include <tuple>

#include "base/clock.h"
#include "base/status.h"
#include "sampling.h"
#include "torch_peer.h"

namespace persia::bench {
namespace {

constexpr uint32_t kRounds = 5;
constexpr size_t kBurst = 16;  // calls of new ids that are inserted, timed, and then erased, untimed

struct Key {
  Op op;
  IdDistribution ids;
  uint32_t threads;
  std::string side;
  auto operator<=>(const Key&) const = default;
};
using Rates = std::map<Key, std::vector<double>>;  // rows/s of the repetitions

// Keeps the rates of the repetitions; the tables are printed once a size is done.
class RateKeeper : public benchmark::BenchmarkReporter {
 public:
  RateKeeper(const std::map<std::string, Key>& keys, Rates& rates) : keys_(keys), rates_(rates) {}
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      rates_[keys_.at(run.run_name.function_name)].push_back(run.counters.at("items_per_second"));
    }
  }

 private:
  const std::map<std::string, Key>& keys_;
  Rates& rates_;
};

void TimeCalls(benchmark::State& state, Filled& filled, Op op, IdStreams& streams) {
  CallBuffers buffers(streams.batch(), filled.options.dim);
  for (auto _ : state) RunCall(*filled.side, op, streams.Next(static_cast<uint32_t>(state.thread_index())), buffers);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(streams.batch()));
}

void TimeInserts(benchmark::State& state, Filled& filled, size_t batch) {
  CallBuffers buffers(batch, filled.options.dim);
  std::vector<uint64_t> signs(kBurst * batch);
  std::iota(signs.begin(), signs.end(), filled.options.rows + static_cast<size_t>(state.thread_index()) * signs.size());
  for (uint64_t& sign : signs) sign = SignOf(sign);
  for (auto _ : state) {
    const double start = NowSeconds();
    for (size_t i = 0; i < signs.size(); i += batch) RunCall(*filled.side, Op::kInsert, {&signs[i], batch}, buffers);
    state.SetIterationTime(NowSeconds() - start);
    filled.side->Erase(signs);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(signs.size()));
}

struct Size {
  uint32_t dim;
  uint64_t rows;
};

std::vector<uint32_t> TeamsOf(const Settings& settings) {
  if (settings.threads > 0) return {settings.threads};
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<uint32_t> teams;
  for (uint32_t team = 1; team < cores; team *= 2) teams.push_back(team);
  teams.push_back(cores);
  return teams;
}

// One size, from filling to its printed tables.
class GridSize {
 public:
  GridSize(const Settings& settings, Size size)
      : settings_(settings), report_(settings), teams_(TeamsOf(settings)) {
    options_.dim = size.dim;
    options_.rows = size.rows;
    options_.headroom = std::max(size.rows / 16, uint64_t{2} * teams_.back() * kBurst * settings.batch);
    options_.depth = settings.depth;
  }

  void Run() {
    report_.At(options_.dim, options_.rows, "any", teams_.back());
    if (settings_.batch > options_.rows / 4) return report_.Skipped(Name() + ": calls of " +
                                                                    std::to_string(settings_.batch) + " are too large");
    std::vector<SideKind> left = SideKinds();
    std::erase_if(left, [&](const SideKind& kind) { return !Fits(kind) && SkipSide(kind); });
    if (left.empty()) return;
    for (const IdDistribution ids : {IdDistribution::kUniform, IdDistribution::kZipf}) {
      streams_.emplace_back(ids, options_.rows, settings_.batch, teams_.back());
    }
    while (!left.empty()) RunTogether(left);
    RunTorch();
    Print();
  }

 private:
  std::string Name() const {
    char text[60];
    std::snprintf(text, sizeof text, "%.0e rows of dim %u", static_cast<double>(options_.rows), options_.dim);
    return text;
  }

  uint32_t Rounds() const { return settings_.smoke ? 1 : settings_.rounds > 0 ? settings_.rounds : kRounds; }
  double Seconds() const { return settings_.seconds > 0 ? settings_.seconds : settings_.smoke ? 0.001 : 0.1; }

  bool Fits(const SideKind& kind) const { return kind.bytes(options_) <= AvailableBytes(); }

  bool SkipSide(const SideKind& kind) const {
    report_.Skipped(kind.name + ": " + Name() + " don't fit into memory");
    return true;
  }

  // Takes as many sides from `left` as fit into memory, at least one, and measures them.
  void RunTogether(std::vector<SideKind>& left) {
    std::vector<Filled> sides;
    std::erase_if(left, [&](const SideKind& kind) {
      if (!Fits(kind)) return sides.empty() && SkipSide(kind);
      sides.push_back(Fill(kind, options_, settings_.batch, teams_.back()));
      return true;
    });
    for (const Filled& filled : sides) {
      bytes_[filled.name] = filled.bytes_per_row;
      if (filled.own_bytes_per_row > 0) bytes_["ours, own count"] = filled.own_bytes_per_row;
    }
    std::map<std::string, Key> keys;
    for (Filled& filled : sides) Register(filled, keys);
    RateKeeper keeper(keys, rates_);
    benchmark::RunSpecifiedBenchmarks(&keeper);
    benchmark::ClearRegisteredBenchmarks();
    for (const Filled& filled : sides) {
      PERSIA_CHECK(filled.side->size() == options_.rows && filled.side->lost() == 0);
    }
  }

  void Register(Filled& filled, std::map<std::string, Key>& keys) {
    const auto add = [&](const Key& key, const auto& body) {
      const std::string name =
          filled.name + "/" + NameOf(key.op) + "/" + NameOf(key.ids) + "/" + std::to_string(key.threads);
      keys.emplace(name, key);
      return benchmark::RegisterBenchmark(name.c_str(), body)
          ->Threads(static_cast<int>(key.threads))
          ->MinTime(Seconds())
          ->Repetitions(static_cast<int>(Rounds()));
    };
    for (const uint32_t threads : teams_) {
      for (IdStreams& streams : streams_) {
        for (const Op op : {Op::kGatherTrain, Op::kGatherRead, Op::kGatherApply}) {
          if (filled.side->is_bound() && op == Op::kGatherRead) continue;  // the same as the other gather
          add({op, streams.ids(), threads, filled.name},
              [&filled, op, &streams](benchmark::State& state) { TimeCalls(state, filled, op, streams); })
              ->UseRealTime();
        }
      }
      if (filled.side->is_bound()) continue;
      add({Op::kInsert, IdDistribution::kUniform, threads, filled.name},
          [&filled, batch = settings_.batch](benchmark::State& state) { TimeInserts(state, filled, batch); })
          ->UseManualTime();
    }
  }

  void RunTorch() {
    TorchPeer torch(settings_, options_.dim, options_.rows, streams_);
    if (!torch.why_not().empty()) return report_.Skipped(torch.why_not());
    for (uint32_t round = 0; round < Rounds(); ++round) {
      for (const IdStreams& streams : streams_) {
        for (const uint32_t threads : teams_) {
          for (const Op op : {Op::kGatherRead, Op::kGatherApply}) {
            const auto rate = torch.Sample(op, streams.ids(), threads, Seconds());
            if (rate) rates_[{op, streams.ids(), threads, "torch"}].push_back(*rate);
          }
        }
      }
    }
  }

  void Print() {
    constexpr const char* kSides[] = {"ours", "one-line", "two-line", "tbb", "absl", "torch"};
    std::printf("\n%s, calls of %zu, M rows/s (median of %zu; x: ours / it)\n  %-16s %-8s %7s", Name().c_str(),
                settings_.batch, rates_.begin()->second.size(), "op", "ids", "threads");
    for (const char* side : kSides) std::printf("  %15s", side);
    for (const Op op : {Op::kGatherTrain, Op::kGatherRead, Op::kGatherApply, Op::kInsert}) {
      for (const IdDistribution ids : {IdDistribution::kUniform, IdDistribution::kZipf}) {
        for (const uint32_t threads : teams_) {
          if (op == Op::kInsert && ids == IdDistribution::kZipf) continue;
          std::printf("\n  %-16s %-8s %7u", NameOf(op), op == Op::kInsert ? "new" : NameOf(ids), threads);
          report_.At(options_.dim, options_.rows, op == Op::kInsert ? "new" : NameOf(ids), threads);
          for (const char* side : kSides) PrintRate({op, ids, threads, side});
        }
      }
    }
    std::printf("\n  bytes a row:");
    for (const auto& [side, bytes] : bytes_) std::printf("  %s %.1f", side.c_str(), bytes);
    std::printf("\n\n");
    report_.At(options_.dim, options_.rows, "any", teams_.back());
    report_.Figures("bytes-per-row", bytes_);
  }

  // The rates that stand for (op, side); gathers of bounds and PyTorch are the same in both modes, and an insert writes
  // an index line and a row.
  const std::vector<double>* RatesOf(Key key) const {
    if (key.op == Op::kGatherRead && (key.side == "one-line" || key.side == "two-line")) key.op = Op::kGatherTrain;
    if (key.op == Op::kGatherTrain && key.side == "torch") key.op = Op::kGatherRead;
    if (key.op == Op::kInsert && key.side == "two-line") key.op = Op::kGatherApply;
    const auto found = rates_.find(key);
    return found == rates_.end() ? nullptr : &found->second;
  }

  void PrintRate(const Key& key) const {
    const std::vector<double>* rates = RatesOf(key);
    if (rates == nullptr) {
      std::printf("  %15s", "-");
      return;
    }
    const Spread rate = SpreadOf(*rates);
    const std::vector<double>* ours = RatesOf({key.op, key.ids, key.threads, "ours"});
    if (key.side == "ours" || ours == nullptr) {
      std::printf("  %8.2f       ", rate.median / 1e6);
    } else {
      std::printf("  %8.2f %5.2fx", rate.median / 1e6, SpreadOf(*ours).median / rate.median);
    }
    if (rates_.contains(key)) report_.Rate(key.side, NameOf(key.op), rate, rates->size());
  }

  const Settings& settings_;
  Report report_;
  std::vector<uint32_t> teams_;
  SideOptions options_;
  std::vector<IdStreams> streams_;
  Rates rates_;
  std::map<std::string, double> bytes_;
};

std::vector<Size> SizesOf(const Settings& settings) {
  std::vector<uint32_t> dims = {16, 64};
  std::vector<uint64_t> rows = {100000, 1000000, 10000000, 100000000};
  if (settings.smoke) rows = {20000};
  if (settings.dim > 0) dims = {settings.dim};
  if (settings.rows > 0) rows = {settings.rows};
  std::vector<Size> sizes;
  for (const uint32_t dim : dims) {
    for (const uint64_t count : rows) sizes.push_back({dim, count});
  }
  // Where the largest table of dim 16 does not fit beside its bound, dim 8 tells how speed changes with size.
  SideOptions largest{.dim = 16, .rows = 100000000};
  const bool crowded = Ours().bytes(largest) + TwoLineBound().bytes(largest) > AvailableBytes();
  if (crowded && settings.dim == 0 && settings.rows == 0 && !settings.smoke) {
    sizes.push_back({8, 10000000});
    sizes.push_back({8, 100000000});
  }
  return sizes;
}

}  // namespace

void RunGrid(const Settings& settings) {
  char program[] = "persia_table_bench", interleave[] = "--benchmark_enable_random_interleaving=true";
  char* arguments[] = {program, interleave, nullptr};
  int count = 2;
  benchmark::Initialize(&count, arguments);
  Report report(settings);
  report.At(0, 0, "any", 0);
  for (const std::string& peer : MissingPeers()) report.Skipped(peer);
  for (const Size size : SizesOf(settings)) GridSize(settings, size).Run();
}

}  // namespace persia::bench
