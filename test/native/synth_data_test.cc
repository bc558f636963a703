// Synthetic data: rows of (seed, number) alone, with the skew, the missing values and the click rate that were asked
// for, and labels whose best AUC is known.
#include "data/synth_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace persia {
namespace {

std::shared_ptr<const SynthGenerator> Generator(const std::string& name, uint64_t seed = 1, double ids = 0) {
  SynthSpec spec;
  REQUIRE(MakeSynthSpec(name, ids, &spec));
  return std::make_shared<SynthGenerator>(spec, seed);
}

SynthData AllColumns(const std::shared_ptr<const SynthGenerator>& generator, uint64_t rows, uint32_t batch_size) {
  SynthOptions options;
  options.rows = rows;
  options.batch_size = batch_size;
  for (uint32_t i = 0; i < generator->spec().fields.size(); ++i) options.ids.push_back(i);
  for (uint32_t i = 0; i < generator->spec().dense.size(); ++i) {
    options.dense.push_back(i);
    options.transforms.push_back({"", Transform::kNone, 0, 1, std::nullopt});
  }
  return {generator, options};
}

// All ids, dense values and labels of a batch as one text.
std::string Content(const Batch& batch) {
  std::string content;
  const auto append = [&](const void* data, size_t bytes) { content.append(static_cast<const char*>(data), bytes); };
  for (const IdColumn& column : batch.id_columns) {
    append(column.ids.data(), column.ids.size_bytes());
    append(column.offsets.data(), column.offsets.size_bytes());
  }
  append(batch.dense.data(), batch.dense.size_bytes());
  append(batch.labels.data(), batch.labels.size_bytes());
  return content;
}

}  // namespace

TEST_CASE("a synthetic row depends on the seed and its number, not on batches and threads") {
  for (const char* name : kSynthNames) {
    const auto generator = Generator(name);
    const SynthData one = AllColumns(generator, 3000, 3000);
    const SynthData many = AllColumns(Generator(name), 3000, 500);
    std::vector<std::string> parts(6);
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < 6; ++i) {
      threads.emplace_back([&, i] { parts[i] = Content(**&many.Read(i).value()); });
    }
    for (auto& thread : threads) thread.join();
    const auto whole = *one.Read(0);
    for (uint32_t i = 0; i < 6; ++i) {
      Batch part = PartOf(*whole, i * 500, 500);
      std::vector<std::vector<uint32_t>> offsets;  // that begin with 0
      for (IdColumn& column : part.id_columns) {
        auto& own = offsets.emplace_back(column.offsets.begin(), column.offsets.end());
        for (size_t at = own.size(); at-- > 0;) own[at] -= own[0];
        column.offsets = own;
      }
      CHECK_MESSAGE(Content(part) == parts[i], name);
    }
    CHECK(Content(**&AllColumns(Generator(name, 2), 3000, 3000).Read(0).value()) != Content(*whole));
  }
}

TEST_CASE("synthetic data has the skew, the gaps and the click rate of the real one") {
  const auto generator = Generator("criteo");
  constexpr uint64_t kRows = 40'000;
  const auto& fields = generator->spec().fields;
  std::vector<std::map<int64_t, int>> counts(fields.size());
  SynthRow row;
  double clicks = 0;
  uint64_t missing_together = 0;
  for (uint64_t i = 0; i < kRows; ++i) {
    generator->Make(i, &row);
    for (size_t f = 0; f < fields.size(); ++f) ++counts[f][row.ranks[f]];
    clicks += row.click;
    missing_together += (row.ranks[2] < 0) != (row.ranks[3] < 0);
    CHECK((std::isnan(row.dense[0])) == std::isnan(row.dense[9]));
  }
  CHECK(missing_together == 0);
  CHECK(clicks / kRows == doctest::Approx(0.2562).epsilon(0.05));
  for (size_t f = 0; f < fields.size(); ++f) {
    const double missing = counts[f].count(-1) ? counts[f][-1] : 0;
    CHECK(std::fabs(missing / kRows - fields[f].missing) < 0.01);
    const double there = kRows - missing;
    double top10 = 0;
    for (const auto& [rank, count] : counts[f]) top10 += rank >= 0 && rank < 10 ? count : 0;
    CHECK_MESSAGE(std::fabs(counts[f][0] / there - fields[f].top1) < 0.02, fields[f].name);
    CHECK_MESSAGE(std::fabs(top10 / there - fields[f].top10) < 0.03, fields[f].name);
    CHECK(counts[f].rbegin()->first < fields[f].distinct);
  }
}

TEST_CASE("the ceiling is what the true probabilities reach, and lies where published models do") {
  const std::map<std::string, std::pair<double, double>> expected = {
      {"criteo", {0.80, 0.83}}, {"avazu", {0.77, 0.81}}, {"taobao", {0.62, 0.67}}, {"criteo-syn", {0.80, 0.83}}};
  for (const auto& [name, bounds] : expected) {
    const auto generator = Generator(name);
    const auto ceiling = generator->FindCeiling();
    CHECK_MESSAGE(ceiling.auc > bounds.first, name, " ", ceiling.auc);
    CHECK_MESSAGE(ceiling.auc < bounds.second, name, " ", ceiling.auc);
    // The AUC of the true probability over drawn labels.
    std::vector<std::pair<double, bool>> scores(30'000);
    SynthRow row;
    for (uint64_t i = 0; i < scores.size(); ++i) {
      scores[i].first = generator->Make(i, &row);
      scores[i].second = row.click;
    }
    std::sort(scores.begin(), scores.end());
    double positives = 0, negatives = 0, ordered = 0;
    for (const auto& [score, click] : scores) {
      ordered += click ? negatives : 0;
      (click ? positives : negatives) += 1;
    }
    CHECK(std::fabs(ordered / (positives * negatives) - ceiling.auc) < 0.02);
  }
}

TEST_CASE("ids scale to any number, and hardly ever meet") {
  const auto generator = Generator("criteo-syn", 1, 1e12);
  double distinct = 0;
  for (const SynthField& field : generator->spec().fields) distinct += field.distinct;
  CHECK(distinct == doctest::Approx(1e12).epsilon(0.001));
  SynthRow row;
  std::set<uint64_t> ids;
  std::set<std::pair<size_t, int64_t>> values;
  for (uint64_t i = 0; i < 5000; ++i) {
    generator->Make(i, &row);
    for (size_t f = 0; f < row.ranks.size(); ++f) {
      if (row.ranks[f] < 0) continue;
      values.emplace(f, row.ranks[f]);
      ids.insert(generator->IdOf(f, row.ranks[f]));
    }
  }
  CHECK(ids.size() == values.size());
}

TEST_CASE("histories are those of the user, with the ids of the field that they are about") {
  const auto generator = Generator("taobao", 1, 3000);
  SynthRow row;
  std::map<int64_t, std::vector<int64_t>> past;
  size_t again = 0;
  for (uint64_t i = 0; i < 20'000; ++i) {
    generator->Make(i, &row);
    const auto [at, is_new] = past.emplace(row.ranks[0], row.histories[16]);
    again += !is_new;
    CHECK(at->second == row.histories[16]);
  }
  CHECK(again > 1000);
  CHECK(generator->IdOf(16, 5) == generator->IdOf(10, 5));
  CHECK(generator->IdOf(15, 5) != generator->IdOf(10, 5));
}

}  // namespace persia
