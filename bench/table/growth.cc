// Latencies of training lookups of new ids while the table grows from empty: a rehash that waits for nobody shows here.
//
// Growing takes fresh memory, whose first touch the kernel makes us wait for: what one huge page costs stands beside.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "sampling.h"

namespace persia::bench {
namespace {

struct Latencies {
  double median_us, p99_us, p999_us, worst_us;
};

Latencies LatenciesOf(std::vector<double>& seconds) {
  std::sort(seconds.begin(), seconds.end());
  const auto microseconds = [&](double share) { return Quantile(seconds, share) * 1e6; };
  return {microseconds(0.5), microseconds(0.99), microseconds(0.999), microseconds(1)};
}

// The times of first touching a huge page after another.
std::vector<double> TouchHugePages() {
  constexpr size_t kHugePage = size_t{2} << 20, kPages = 64;
  AlignedBuffer<char> fresh(kHugePage * kPages);
  std::vector<double> seconds;
  for (size_t page = 0; page < kPages; ++page) {
    const double start = NowSeconds();
    static_cast<volatile char*>(fresh.data())[page * kHugePage] = 1;
    seconds.push_back(NowSeconds() - start);
  }
  return seconds;
}

// The times of the calls that insert ids thread, thread + threads, …
std::vector<double> Grow(Side& side, const SideOptions& options, size_t batch, uint32_t thread, uint32_t threads) {
  CallBuffers buffers(batch, options.dim);
  std::vector<uint64_t> signs(batch);
  std::vector<double> seconds;
  seconds.reserve(options.rows / batch / threads + 1);
  for (uint64_t call = thread; (call + 1) * batch <= options.rows; call += threads) {
    for (size_t i = 0; i < batch; ++i) signs[i] = SignOf(call * batch + i);
    const double start = NowSeconds();
    side.Gather(signs, LookupMode::kTrain, buffers.out.data());
    seconds.push_back(NowSeconds() - start);
  }
  return seconds;
}

void GrowWith(uint32_t threads, const Settings& settings, const SideOptions& options, Report& report) {
  const std::unique_ptr<Side> side = Ours().make(options);
  std::vector<std::vector<double>> parts(threads);
  std::vector<std::thread> team;
  const double start = NowSeconds();
  for (uint32_t t = 0; t < threads; ++t) {
    team.emplace_back([&, t] { parts[t] = Grow(*side, options, settings.batch, t, threads); });
  }
  for (std::thread& thread : team) thread.join();
  const double rate = static_cast<double>(side->size()) / (NowSeconds() - start);
  PERSIA_CHECK(side->size() == options.rows / settings.batch * settings.batch && side->lost() == 0);

  std::vector<double> seconds;
  for (const std::vector<double>& part : parts) seconds.insert(seconds.end(), part.begin(), part.end());
  const Latencies calls = LatenciesOf(seconds);
  std::printf("  %u thread%s  median %.1f us, p99 %.1f, p99.9 %.1f, max %.1f; p99.9 / median %.1f; %.2f M rows/s\n",
              threads, threads == 1 ? "" : "s", calls.median_us, calls.p99_us, calls.p999_us, calls.worst_us,
              calls.p999_us / calls.median_us, rate / 1e6);
  report.At(options.dim, options.rows, "new", threads);
  report.Figures("growth", {{"medianUs", calls.median_us}, {"p99Us", calls.p99_us}, {"p999Us", calls.p999_us},
                            {"maxUs", calls.worst_us}, {"p999OverMedian", calls.p999_us / calls.median_us},
                            {"rowsPerSecond", rate}});
}

}  // namespace

void RunGrowth(const Settings& settings) {
  SideOptions options;
  options.dim = settings.dim > 0 ? settings.dim : 16;
  options.rows = settings.rows > 0 ? settings.rows : settings.smoke ? 200000 : 20000000;
  options.headroom = options.rows / 8;
  Report report(settings);
  std::printf("table growth: 0 to %.3g rows of dim %u in calls of %zu new ids\n", static_cast<double>(options.rows),
              options.dim, settings.batch);
  if (Ours().bytes(options) > AvailableBytes()) return report.Skipped("growth: it does not fit into memory");
  std::vector<double> touches = TouchHugePages();
  const Latencies touch = LatenciesOf(touches);
  std::printf("  first touch of a huge page (physical bound of the worst): median %.1f us, max %.1f us\n",
              touch.median_us, touch.worst_us);
  report.At(options.dim, options.rows, "none", 1);
  report.Figures("first-touch", {{"medianUs", touch.median_us}, {"maxUs", touch.worst_us}});
  std::vector<uint32_t> teams = {1, 2};
  if (settings.threads > 0) teams = {settings.threads};
  for (const uint32_t threads : teams) GrowWith(threads, settings, options, report);
}

}  // namespace persia::bench
