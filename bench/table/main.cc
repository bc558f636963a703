// The table's benchmark: our table beside other maps and the physical bounds, in one run.
//
//   persia_table_bench grid|show|growth|size [--dim N] [--rows N] [--batch N] [--threads N] [--rounds N] [--seconds S]
//                      [--depth N] [--peer 'python3 bench/peers/embedding_cpu.py'] [--out FILE] [--smoke]
//
//   grid    every op, size, distribution of ids and number of threads (google-benchmark)
//   show    the ratios that we promise: 20 M rows of dim 16, uniform ids, samples of all sides alternating
//   growth  latencies of training lookups while the table grows from empty; without --rounds, --seconds and --depth
//   size    10^8 rows beside 10^7
//
// `npm run bench -- table`, `table-show`, … build and run it; docs/benchmarks.md says how it measures.
#ifndef __OPTIMIZE__
#error "Benchmarks of an unoptimised build say nothing: use the release preset."
#endif

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sampling.h"

namespace persia::bench {
namespace {

const std::map<std::string, void (*)(const Settings&)> kModes = {
    {"grid", RunGrid}, {"show", RunShow}, {"growth", RunGrowth}, {"size", RunSize}};

[[noreturn]] void Refuse(const std::string& why) {
  std::fprintf(stderr,
               "%s\nUsage: persia_table_bench grid|show|growth|size [--dim N] [--rows N] [--batch N] [--threads N]\n"
               "       [--rounds N] [--seconds S] [--depth N] [--peer COMMAND] [--out FILE] [--smoke]\n",
               why.c_str());
  std::exit(2);
}

double NumberOf(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0) || std::isinf(value)) {
    Refuse(option + " wants a number above 0, not " + text);
  }
  return value;
}

// Also as 1e6.
template <typename Count>
Count CountOf(const std::string& option, const std::string& text) {
  const double value = NumberOf(option, text);
  if (value != std::floor(value) || value > std::numeric_limits<uint32_t>::max()) {
    Refuse(option + " wants a whole number from 1 to 2^32 - 1, not " + text);
  }
  return static_cast<Count>(value);
}

// Options that a mode would ignore. The growth of a table is one course from empty to full, without bounds beside it.
const std::map<std::string, std::set<std::string>> kIgnored = {{"growth", {"--rounds", "--seconds", "--depth"}}};

Settings Parse(int argc, char** argv) {
  Settings settings;
  const std::map<std::string, std::function<void(const std::string&)>> options = {
      {"--dim", [&](auto& text) { settings.dim = CountOf<uint32_t>("--dim", text); }},
      {"--rows", [&](auto& text) { settings.rows = CountOf<uint64_t>("--rows", text); }},
      {"--batch", [&](auto& text) { settings.batch = CountOf<size_t>("--batch", text); }},
      {"--threads", [&](auto& text) { settings.threads = CountOf<uint32_t>("--threads", text); }},
      {"--rounds", [&](auto& text) { settings.rounds = CountOf<uint32_t>("--rounds", text); }},
      {"--seconds", [&](auto& text) { settings.seconds = NumberOf("--seconds", text); }},
      {"--depth", [&](auto& text) { settings.depth = CountOf<uint32_t>("--depth", text); }},
      {"--peer", [&](auto& text) { settings.peer = text; }},
      {"--out", [&](auto& text) { settings.out = text; }},
  };
  std::vector<std::string> given;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--smoke") {
      settings.smoke = true;
    } else if (const auto option = options.find(word); option != options.end()) {
      if (++i == argc) Refuse(word + " wants a value");
      option->second(argv[i]);
      given.push_back(word);
    } else if (settings.mode.empty() && kModes.contains(word)) {
      settings.mode = word;
    } else {
      Refuse(word + " is no option and no mode");
    }
  }
  if (settings.mode.empty()) Refuse("which mode?");
  for (const std::string& option : given) {
    const auto ignored = kIgnored.find(settings.mode);
    if (ignored == kIgnored.end() || !ignored->second.contains(option)) continue;
    Refuse(settings.mode + " has no use for " + option);
  }
  const uint32_t dim = settings.dim;
  if (dim != 0 && dim != 8 && dim != 16 && dim != 64) Refuse("the other maps are compiled for --dim 8, 16 and 64");
  return settings;
}

// malloc takes huge pages only when the environment says so at start: start again with it. The peers live on malloc. It
// asks for them when it makes a heap, not when a heap grows, so heaps are made whole: top_pad.
void WantHugePages(char** argv) {
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return;
  setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864", 1);
  setenv("THP_MEM_ALLOC_ENABLE", "1", 1);  // the same for PyTorch's tensors
  execv("/proc/self/exe", argv);           // comes back only when it can't, and then pages stay small
}

}  // namespace
}  // namespace persia::bench

int main(int argc, char** argv) {
  persia::bench::WantHugePages(argv);
  const persia::bench::Settings settings = persia::bench::Parse(argc, argv);
  persia::bench::kModes.at(settings.mode)(settings);
}
