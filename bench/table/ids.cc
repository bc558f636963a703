#include "ids.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <thread>

#include "base/rng.h"
#include "base/status.h"

namespace persia::bench {
namespace {

constexpr double kZipfExponent = 1.05;
constexpr uint64_t kStreamIds = uint64_t{1} << 22;  // 512 MB of 128-byte rows

// Zipf by rejection-inversion (Hörmann and Derflinger 1996): P(k) ~ k^-s for k in [1, n].
class Zipf {
 public:
  explicit Zipf(uint64_t n)
      : n_(static_cast<double>(n)), low_(Integral(1.5) - 1), high_(Integral(n_ + 0.5)),
        accepted_(2 - Inverse(Integral(2.5) - std::pow(2.0, -kZipfExponent))) {}

  uint64_t Draw(Rng& rng) const {
    for (;;) {
      const double u = high_ + rng.Uniform() * (low_ - high_), x = Inverse(u);
      const double k = std::clamp(std::round(x), 1.0, n_);
      if (k - x <= accepted_ || u >= Integral(k + 0.5) - std::pow(k, -kZipfExponent)) return static_cast<uint64_t>(k);
    }
  }

 private:
  static constexpr double kOneMinusS = 1 - kZipfExponent;
  static double Integral(double x) { return std::pow(x, kOneMinusS) / kOneMinusS; }
  static double Inverse(double y) { return std::pow(y * kOneMinusS, 1 / kOneMinusS); }

  double n_, low_, high_, accepted_;
};

// Tells the ids of a call apart; a call's entries are void in the next, without clearing.
class SeenInCall {
 public:
  explicit SeenInCall(size_t batch) : entries_(std::bit_ceil(4 * batch)) {}

  void NextCall() { ++call_; }
  bool Add(uint64_t id) {
    for (size_t i = Mix64(id);; ++i) {
      Entry& entry = entries_[i & (entries_.size() - 1)];
      if (entry.call == call_ && entry.id == id) return false;
      if (entry.call == call_) continue;
      entry = {id, call_};
      return true;
    }
  }

 private:
  struct Entry {
    uint64_t id = 0, call = 0;
  };
  std::vector<Entry> entries_;
  uint64_t call_ = 0;
};

// Calls of distinct ids; `seed` is the thread's number.
std::vector<uint64_t> DrawIds(IdDistribution ids, uint64_t rows, size_t batch, size_t calls, uint64_t seed) {
  PERSIA_CHECK(batch <= rows / 4);  // else a call of distinct ids takes for ever to draw
  const Zipf zipf(rows);
  SeenInCall seen(batch);
  Rng rng(RandomKey(3, seed));
  std::vector<uint64_t> drawn;
  drawn.reserve(calls * batch);
  for (size_t call = 0; call < calls; ++call) {
    seen.NextCall();
    while (drawn.size() < (call + 1) * batch) {
      const uint64_t id = ids == IdDistribution::kZipf ? zipf.Draw(rng) - 1 : rng.Next() % rows;
      if (seen.Add(id)) drawn.push_back(id);
    }
  }
  return drawn;
}

}  // namespace

IdStreams::IdStreams(IdDistribution ids, uint64_t rows, size_t batch, uint32_t threads)
    : ids_(ids), rows_(rows), batch_(batch), calls_(std::min(kStreamIds, 4 * rows) / batch), streams_(threads) {
  std::vector<std::thread> drawing;
  for (uint32_t t = 0; t < threads; ++t) {
    drawing.emplace_back([this, t] {
      streams_[t].signs = DrawIds(ids_, rows_, batch_, calls_, t);
      for (uint64_t& sign : streams_[t].signs) sign = SignOf(sign);
    });
  }
  for (std::thread& thread : drawing) thread.join();
}

void IdStreams::Write(const std::string& path) const {
  const std::vector<uint64_t> ids = DrawIds(ids_, rows_, batch_, calls_, 0);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(ids[0])));
  file.close();
  PERSIA_CHECK(file.good());
}

}  // namespace persia::bench
