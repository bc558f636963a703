// The ratios that we promise, from samples that alternate: every round takes one sample of each side and op, in swapped
// order from round to round, so that what disturbs the machine for a while disturbs all sides. A ratio is the median
// over the rounds' own ratios; beside it stands the ratio of the best samples, which foreign load can't lift.
#include <algorithm>
#include <cstdio>
#include <map>
#include <thread>
#include <utility>

#include "sampling.h"
#include "torch_peer.h"

namespace persia::bench {
namespace {

constexpr uint32_t kRounds = 15, kLeastRounds = 5;
constexpr double kSeconds = 0.2;  // of a sample: many short ones, as the machine's load comes and goes

using Rounds = std::map<std::pair<std::string, Op>, std::vector<double>>;  // rows/s by side and op

struct Ratio {
  Spread of_rounds;
  double of_best = 0;
};

// Ratio of two sides' rates in the same rounds, each (rounds).
Ratio RatioOf(const std::vector<double>& over, const std::vector<double>& under) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(over.size(), under.size()); ++i) ratios.push_back(over[i] / under[i]);
  return {SpreadOf(ratios), SpreadOf(over).high / SpreadOf(under).high};
}

// Prints a ratio beside what it should be (0: nothing was promised).
void PrintRatio(const Report& report, const std::string& name, const Ratio& ratio, double promised) {
  const Spread& rounds = ratio.of_rounds;
  std::printf("  %-36s %6.2f  (%.2f … %.2f)  best / best %6.2f", name.c_str(), rounds.median, rounds.low, rounds.high,
              ratio.of_best);
  if (promised > 0) std::printf("   promised %.2f", promised);
  std::printf("\n");
  report.Figures(name, {{"ratio", rounds.median}, {"min", rounds.low}, {"max", rounds.high},
                        {"bestOverBest", ratio.of_best}, {"promised", promised}});
}

void PrintRates(const Report& report, const Rounds& rounds) {
  std::printf("  %-10s %-16s %14s\n", "side", "op", "M rows/s, median (range)");
  for (const auto& [key, rates] : rounds) {
    const Spread rate = SpreadOf(rates);
    std::printf("  %-10s %-16s %8.2f (%.2f … %.2f)\n", key.first.c_str(), NameOf(key.second), rate.median / 1e6,
                rate.low / 1e6, rate.high / 1e6);
    report.Rate(key.first, NameOf(key.second), rate, rates.size());
  }
}

// As many kinds, in their order, as fit into memory together; the others are named.
std::vector<Filled> FillWhatFits(const SideOptions& options, uint64_t kept, const Settings& settings, uint32_t threads,
                                 const Report& report) {
  std::vector<Filled> sides;
  for (const SideKind& kind : SideKinds()) {
    if (kind.bytes(options) + kept > AvailableBytes()) {
      report.Skipped(kind.name + ": does not fit into memory beside the others");
      continue;
    }
    std::printf("  filling %s\n", kind.name.c_str());
    std::fflush(stdout);
    sides.push_back(Fill(kind, options, settings.batch, threads));
  }
  for (const std::string& peer : MissingPeers()) report.Skipped(peer);
  return sides;
}

void PrintBytes(const Report& report, const std::vector<Filled>& sides) {
  for (const Filled& filled : sides) {
    if (filled.side->is_bound()) {
      std::printf("  %-10s %.0f %% in huge pages\n", filled.name.c_str(), 100 * filled.huge_share);
      continue;
    }
    const double payload = 2.0 * filled.options.dim * sizeof(float);
    std::printf("  %-10s %6.1f bytes a row, %.1f beyond the payload", filled.name.c_str(), filled.bytes_per_row,
                filled.bytes_per_row - payload);
    if (filled.own_bytes_per_row > 0) std::printf(" (by its own count %.1f)", filled.own_bytes_per_row - payload);
    std::printf("; %.0f %% in huge pages; filled at %.2f M rows/s\n", 100 * filled.huge_share, filled.fill_rate / 1e6);
    report.Figures("bytes-" + filled.name, {{"bytesPerRow", filled.bytes_per_row}, {"payloadBytes", payload},
                                            {"ownBytesPerRow", filled.own_bytes_per_row},
                                            {"hugePagesShare", filled.huge_share},
                                            {"fillRowsPerSecond", filled.fill_rate}});
  }
}

Rounds TakeRounds(std::vector<Filled>& sides, TorchPeer* torch, IdStreams& streams, uint32_t count, uint32_t threads,
                  double seconds) {
  Rounds rounds;
  const size_t all = sides.size() + (torch == nullptr ? 0 : 1);
  for (uint32_t round = 0; round < count; ++round) {
    for (const Op op : {Op::kGatherTrain, Op::kGatherRead, Op::kGatherApply}) {
      for (size_t turn = 0; turn < all; ++turn) {
        const size_t side = round % 2 == 0 ? turn : all - 1 - turn;
        if (torch != nullptr && side == sides.size()) {
          if (op == Op::kGatherTrain) continue;  // PyTorch's gather is the same in both modes
          const auto rate = torch->Sample(op, streams.ids(), threads, seconds);
          if (rate) rounds[{"torch", op}].push_back(*rate);
        } else if (!sides[side].side->is_bound() || op != Op::kGatherRead) {  // and so is a bound's
          rounds[{sides[side].name, op}].push_back(SampleRate(sides[side], op, streams, threads, seconds));
        }
      }
    }
  }
  return rounds;
}

void PrintRatios(const Report& report, const Rounds& rounds) {
  const auto print = [&](const std::string& name, Op op, const char* other, Op op_of_other, double promised) {
    const auto ours = rounds.find({"ours", op}), theirs = rounds.find({other, op_of_other});
    if (ours == rounds.end() || theirs == rounds.end()) return;  // that side was left out, and named
    PrintRatio(report, name, RatioOf(ours->second, theirs->second), promised);
  };
  print("gather / two-line bound", Op::kGatherTrain, "two-line", Op::kGatherTrain, 0.85);
  print("gather-readonly / two-line bound", Op::kGatherRead, "two-line", Op::kGatherTrain, 0.85);
  print("gather / one-line bound", Op::kGatherTrain, "one-line", Op::kGatherTrain, 0.45);
  print("gather-readonly / one-line bound", Op::kGatherRead, "one-line", Op::kGatherTrain, 0.45);
  print("gather+apply / two-line bound", Op::kGatherApply, "two-line", Op::kGatherApply, 0.75);
  for (const char* peer : {"tbb", "absl", "torch"}) {
    print(std::string("gather+apply / ") + peer, Op::kGatherApply, peer, Op::kGatherApply, 5);
  }
}

uint32_t RoundsOf(const Settings& settings) {
  if (settings.smoke) return 1;
  return settings.rounds > 0 ? std::max(settings.rounds, kLeastRounds) : kRounds;
}

// A size of the comparison of sizes: the two-line bound and ours, and their rounds.
struct SizeSide {
  SizeSide(const SideOptions& size, const Settings& settings, uint32_t threads)
      : options(size), streams(IdDistribution::kUniform, size.rows, settings.batch, threads) {
    for (const SideKind& kind : {TwoLineBound(), Ours()}) sides.push_back(Fill(kind, size, settings.batch, threads));
  }

  void TakeRound(uint32_t threads, double seconds) {
    for (auto& [key, rates] : TakeRounds(sides, nullptr, streams, 1, threads, seconds)) rounds[key].push_back(rates[0]);
  }

  SideOptions options;
  IdStreams streams;
  std::vector<Filled> sides;
  Rounds rounds;
};

// The larger size: dim 16, or 8 where memory demands it; dim 0 when nothing fits.
SideOptions LargeOf(const Settings& settings, const Report& report) {
  SideOptions large{.dim = settings.dim > 0 ? settings.dim : 16,
                    .rows = settings.rows > 0 ? settings.rows : settings.smoke ? 100000 : 100000000,
                    .depth = settings.depth};
  large.headroom = large.rows / 16;
  const auto fits = [&] {  // with a tenth for the smaller size
    return (Ours().bytes(large) + TwoLineBound().bytes(large)) / 10 * 11 <= AvailableBytes();
  };
  if (!fits() && settings.dim == 0) {
    report.Skipped("size: dim 16 does not fit into memory beside its bound; dim 8 instead");
    large.dim = 8;
  }
  if (!fits()) {
    report.Skipped("size: it does not fit into memory");
    large.dim = 0;
  }
  return large;
}

void PrintSize(Report& report, const SizeSide& size, uint32_t threads) {
  report.At(size.options.dim, size.options.rows, NameOf(IdDistribution::kUniform), threads);
  std::printf("%.3g rows:\n", static_cast<double>(size.options.rows));
  PrintRates(report, size.rounds);
  PrintBytes(report, size.sides);
}

}  // namespace

void RunShow(const Settings& settings) {
  SideOptions options;
  options.dim = settings.dim > 0 ? settings.dim : 16;
  options.rows = settings.rows > 0 ? settings.rows : settings.smoke ? 50000 : 20000000;
  options.headroom = options.rows / 16;
  options.depth = settings.depth;
  const uint32_t threads = settings.threads > 0 ? settings.threads : 2, count = RoundsOf(settings);
  const double seconds = settings.seconds > 0 ? settings.seconds : settings.smoke ? 0.01 : kSeconds;
  Report report(settings);
  report.At(options.dim, options.rows, NameOf(IdDistribution::kUniform), threads);
  std::printf("table show: %.3g rows of dim %u, uniform ids, calls of %zu, %u threads, %u rounds\n",
              static_cast<double>(options.rows), options.dim, settings.batch, threads, count);

  IdStreams streams(IdDistribution::kUniform, options.rows, settings.batch, threads);
  const uint64_t kept = settings.peer.empty() ? 0 : TorchPeer::Bytes(options.dim, options.rows);
  std::vector<Filled> sides = FillWhatFits(options, kept, settings, threads, report);
  TorchPeer torch(settings, options.dim, options.rows, {&streams, 1});
  if (!torch.why_not().empty()) report.Skipped(torch.why_not());
  const Rounds rounds = TakeRounds(sides, torch.why_not().empty() ? &torch : nullptr, streams, count, threads, seconds);
  PrintRates(report, rounds);
  PrintBytes(report, sides);
  PrintRatios(report, rounds);
}

void RunSize(const Settings& settings) {
  const uint32_t threads = settings.threads > 0 ? settings.threads : std::max(1u, std::thread::hardware_concurrency());
  const double seconds = settings.seconds > 0 ? settings.seconds : settings.smoke ? 0.01 : kSeconds;
  Report report(settings);
  report.At(settings.dim, settings.rows, NameOf(IdDistribution::kUniform), threads);
  const SideOptions large_options = LargeOf(settings, report);
  if (large_options.dim == 0) return;
  SideOptions small_options = large_options;
  small_options.rows /= 10;
  small_options.headroom /= 10;
  std::printf("table size: %.3g beside %.3g rows of dim %u, uniform ids, calls of %zu, %u threads\n",
              static_cast<double>(large_options.rows), static_cast<double>(small_options.rows), large_options.dim,
              settings.batch, threads);

  SizeSide large(large_options, settings, threads), small(small_options, settings, threads);
  for (uint32_t round = 0; round < RoundsOf(settings); ++round) {
    for (SizeSide* size : {round % 2 == 0 ? &small : &large, round % 2 == 0 ? &large : &small}) {
      size->TakeRound(threads, seconds);
    }
  }
  PrintSize(report, small, threads);
  PrintSize(report, large, threads);
  for (const auto& [key, rates] : large.rounds) {
    const std::string name = key.first + " " + NameOf(key.second) + ", large / small";
    PrintRatio(report, name, RatioOf(rates, small.rounds[key]), key.first == "ours" ? 0.9 : 0);
  }
}

}  // namespace persia::bench
