// Batcher and ChunkDecoder: what becomes of a chunk's values, which rows are refused, how rows become batches.
#include "batch/batcher.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/hash.h"
#include "batch/parse_number.h"

namespace persia {
namespace {

using Text = std::optional<std::string>;

// Owns vectors in the layout of DuckDB's and hands out views on them.
class Vectors {
 public:
  ColumnView Texts(const std::vector<Text>& values) {
    auto& records = records_.emplace_back(values.size());
    auto& bits = bits_.emplace_back(values.size() / 64 + 1, 0);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!values[i]) continue;
      bits[i / 64] |= uint64_t{1} << (i % 64);
      const std::string& text = texts_.emplace_back(*values[i]);
      records[i].length = static_cast<uint32_t>(text.size());
      if (text.size() <= TextRecord::kInlineBytes) {
        std::memcpy(reinterpret_cast<char*>(&records[i]) + 4, text.data(), text.size());
      } else {
        std::memcpy(records[i].inlined, text.data(), 4);
        records[i].pointer = text.data();
      }
    }
    return {ValueKind::kText, records.data(), bits.data(), values.size(), nullptr, nullptr};
  }

  ColumnView Numbers(std::vector<double> values) {
    const auto& kept = numbers_.emplace_back(std::move(values));
    return {ValueKind::kNumber, kept.data(), nullptr, kept.size(), nullptr, nullptr};
  }

  ColumnView Integers(std::vector<uint64_t> values) {
    const auto& kept = integers_.emplace_back(std::move(values));
    return {ValueKind::kInteger, kept.data(), nullptr, kept.size(), nullptr, nullptr};
  }

  // Makes lists of a column's values; entries are (first, count) pairs.
  ColumnView Lists(ColumnView values, std::vector<uint64_t> entries, uint64_t validity) {
    values.entries = integers_.emplace_back(std::move(entries)).data();
    values.entry_validity = integers_.emplace_back(1, validity).data();
    return values;
  }

 private:
  std::deque<std::vector<TextRecord>> records_;
  std::deque<std::vector<uint64_t>> bits_;
  std::deque<std::string> texts_;
  std::deque<std::vector<double>> numbers_;
  std::deque<std::vector<uint64_t>> integers_;
};

BatcherOptions IdsOnly(IdColumnOptions column, uint32_t batch_size = 100) {
  BatcherOptions options;
  options.columns.ids = {std::move(column)};
  options.columns.missing = {""};
  options.batch_size = batch_size;
  return options;
}

// The ids of each row of the first id column.
std::vector<std::vector<uint64_t>> Rows(const Batch& batch) {
  std::vector<std::vector<uint64_t>> rows;
  const IdColumn& column = batch.id_columns[0];
  for (uint32_t row = 0; row < batch.rows; ++row) {
    rows.emplace_back(column.ids.begin() + column.begin(row), column.ids.begin() + column.end(row));
  }
  return rows;
}

std::vector<std::vector<uint64_t>> IdsOf(IdColumnOptions options, const ColumnView& column, uint32_t rows) {
  Batcher batcher(IdsOnly(std::move(options)));
  CHECK(batcher.Push({rows, {column}, {}, {}}).bad_count == 0);
  return Rows(*batcher.Finish().at(0));
}

using Ids = std::vector<std::vector<uint64_t>>;

TEST_CASE("a text id is XXH64 of its bytes, whether DuckDB inlines the text or not") {
  Vectors vectors;
  Batcher batcher([] {
    BatcherOptions options = IdsOnly({"site", IdEncoding::kHash, ""});
    options.columns.missing.clear();
    return options;
  }());
  batcher.Push({5, {vectors.Texts({"", "a", "twelve bytes", "thirteen byte", "größer als zwölf"})}, {}, {}});
  CHECK(Rows(*batcher.Finish().at(0)) == Ids{{0xef46db3751d8e999ULL},
                                       {0xd24ec4f1a98c6e5bULL},
                                       {HashId("twelve bytes")},
                                       {HashId("thirteen byte")},
                                       {HashId("größer als zwölf")}});
}

TEST_CASE("missing ids leave the sample without an id") {
  Vectors vectors;
  CHECK(IdsOf({"site", IdEncoding::kHash, ""}, vectors.Texts({"a", std::nullopt, "", "b"}), 4) ==
        Ids{{HashId("a")}, {}, {}, {HashId("b")}});
}

TEST_CASE("one id in every sample needs no offsets, anything else does") {
  Vectors vectors;
  Batcher batcher(IdsOnly({"site", IdEncoding::kHash, ""}, 2));
  const auto output = batcher.Push({4, {vectors.Texts({"a", "b", "c", std::nullopt})}, {}, {}});
  REQUIRE(output.batches.size() == 2);
  CHECK(output.batches[0]->id_columns[0].offsets.empty());
  CHECK(output.batches[1]->id_columns[0].offsets.size() == 3);
}

TEST_CASE("a separator makes several ids and drops empty parts") {
  Vectors vectors;
  CHECK(IdsOf({"tags", IdEncoding::kHash, "||"}, vectors.Texts({"a||b", "||a||||", "a|b", "", "||"}), 5) ==
        Ids{{HashId("a"), HashId("b")}, {HashId("a")}, {HashId("a|b")}, {}, {}});
}

TEST_CASE("integer ids keep their value, negative ones in two's complement") {
  Vectors vectors;
  CHECK(IdsOf({"user", IdEncoding::kInteger, " "}, vectors.Texts({"7", "-1", "18446744073709551615", "1 2 3"}), 4) ==
        Ids{{7}, {~uint64_t{0}}, {~uint64_t{0}}, {1, 2, 3}});
  CHECK(IdsOf({"user", IdEncoding::kInteger, ""}, vectors.Integers({5, 6}), 2) == Ids{{5}, {6}});
}

TEST_CASE("lists give several ids, missing lists and missing elements give none") {
  Vectors vectors;
  const ColumnView lists =
      vectors.Lists(vectors.Texts({"a", std::nullopt, "b", "c"}), {0, 3, 99, 99, 3, 1, 4, 0}, 0b1101);
  CHECK(IdsOf({"tags", IdEncoding::kHash, ""}, lists, 4) == Ids{{HashId("a"), HashId("b")}, {}, {HashId("c")}, {}});
}

TEST_CASE("dense values are transformed, missing ones replaced") {
  Vectors vectors;
  BatcherOptions options;
  options.batch_size = 3;
  options.columns.missing = {"?"};
  options.columns.dense = {{"plain", Transform::kNone, 0, 1, std::nullopt},
                           {"log", Transform::kLog1p, 0, 1, -3.0},
                           {"standard", Transform::kStandardize, 10, 2, std::nullopt},
                           {"constant", Transform::kStandardize, 10, 0, std::nullopt}};
  Batcher batcher(options);
  const ColumnView texts = vectors.Texts({" 12.5 ", "?", "-1e1"});
  const auto output = batcher.Push({3, {}, {texts, texts, texts, vectors.Numbers({10, 11, 9})}, {}});
  REQUIRE(output.batches.size() == 1);
  const float log_12 = static_cast<float>(std::log1p(12.5));
  const float log_3 = static_cast<float>(-std::log1p(3.0));
  const float log_10 = static_cast<float>(-std::log1p(10.0));
  const std::vector<float> expected = {12.5f, log_12, 1.25f, 0, 0, log_3, 0, 1, -10, log_10, -10, -1};
  CHECK(std::vector<float>(output.batches[0]->dense.begin(), output.batches[0]->dense.end()) == expected);
}

BatcherOptions WithLabel(LabelColumnOptions label, bool stop) {
  BatcherOptions options;
  options.columns.labels = {std::move(label)};
  options.columns.missing = {""};
  options.batch_size = 2;
  options.stop_at_bad_row = stop;
  return options;
}

TEST_CASE("a positive text makes labels of 1 and 0") {
  Vectors vectors;
  Batcher batcher(WithLabel({"income", ">50K", true}, false));
  const auto output = batcher.Push({3, {}, {}, {vectors.Texts({">50K", "<=50K", std::nullopt})}});
  REQUIRE(output.batches.size() == 1);
  CHECK(output.batches[0]->labels[0] == 1);
  CHECK(output.batches[0]->labels[1] == 0);
  REQUIRE(output.bad.size() == 1);
  CHECK(output.bad[0].row == 2);
  CHECK(output.bad[0].reason == "the label is missing");
}

TEST_CASE("bad rows are left out whole, counted all, and described in order up to the limit") {
  Vectors vectors;
  BatcherOptions options = WithLabel({"click", std::nullopt, true}, false);
  options.columns.ids = {{"user", IdEncoding::kInteger, ""}};
  options.columns.dense = {{"age", Transform::kNone, 0, 1, std::nullopt}};
  options.most_reports = 4;
  Batcher batcher(options);
  const auto output = batcher.Push({7,
                                    {vectors.Texts({"1", "x", "3", "4", "5", "6", "7"})},
                                    {vectors.Texts({"1", "2", "old", "4", "1e99", "6", "7"})},
                                    {vectors.Texts({"0", "1", "1", "1.5", "1", "yes", "1"})}});
  CHECK(output.bad_count == 5);
  REQUIRE(output.bad.size() == 4);
  CHECK(output.bad[0].row == 1);
  CHECK(output.bad[0].column == "user");
  CHECK(output.bad[0].reason == "\"x\" is not an integer of 64 bits");
  CHECK(output.bad[1].row == 2);
  CHECK(output.bad[1].reason == "\"old\" is not a number");
  CHECK(output.bad[2].row == 3);
  CHECK(output.bad[2].reason == "\"1.5\" is not between 0 and 1, as the loss bce needs");
  CHECK(output.bad[3].row == 4);
  CHECK(output.bad[3].column == "age");
  REQUIRE(output.batches.size() == 1);
  CHECK(Rows(*output.batches[0]) == Ids{{1}, {7}});
  CHECK(batcher.Finish().empty());
}

TEST_CASE("a text label without a positive text suggests one") {
  Vectors vectors;
  Batcher batcher(WithLabel({"income", std::nullopt, true}, true));
  const auto output = batcher.Push({1, {}, {}, {vectors.Texts({"<=50K"})}});
  REQUIRE(output.bad.size() == 1);
  CHECK(output.bad[0].reason.find("labels: [{column: income, positive: \"<=50K\"}]") != std::string::npos);
}

TEST_CASE("stopping at a bad row keeps the rows before it and nothing behind it") {
  Vectors vectors;
  Batcher batcher(WithLabel({"y", std::nullopt, false}, true));
  const auto output = batcher.Push({6, {}, {}, {vectors.Texts({"1", "2", "3", "bad", "5", "6"})}});
  CHECK(output.batches.size() == 1);
  CHECK(output.bad.at(0).row == 3);
  CHECK(batcher.Finish().at(0)->rows == 1);
}

TEST_CASE("batches are of equal size whatever the chunks are, and skipped rows shift them") {
  for (const uint64_t skip : {0, 4, 5, 11, 40}) {
    Vectors vectors;
    BatcherOptions options = IdsOnly({"user", IdEncoding::kInteger, ""}, 4);
    options.skip_rows = skip;
    Batcher batcher(options);
    std::vector<uint64_t> seen;
    std::vector<std::shared_ptr<const Batch>> batches;
    uint64_t next = 0;
    for (const uint32_t rows : {3u, 1u, 10u, 0u, 7u}) {
      std::vector<uint64_t> values(rows);
      for (uint64_t& value : values) value = next++;
      for (auto& batch : batcher.Push({rows, {vectors.Integers(values)}, {}, {}}).batches) batches.push_back(batch);
    }
    for (const auto& batch : batches) CHECK(batch->rows == 4);
    for (auto& last : batcher.Finish()) batches.push_back(last);
    for (const auto& batch : batches) {
      for (const auto& row : Rows(*batch)) seen.push_back(row.at(0));
    }
    std::vector<uint64_t> expected;
    for (uint64_t value = skip; value < 21; ++value) expected.push_back(value);
    CHECK(seen == expected);
  }
}

// Rows numbered from 0 in `chunks` of some size, every fifth positive; the ids that a batcher takes of them, batch by
// batch.
Ids TakeNumbered(const std::optional<NegativeSampling>& sampling, uint32_t chunk_rows, uint64_t skip_rows = 0) {
  constexpr uint32_t kRows = 2000;
  BatcherOptions options = IdsOnly({"user", IdEncoding::kInteger, ""}, 64);
  options.columns.labels = {{"click", std::nullopt, true}};
  options.sampling = sampling;
  options.skip_rows = skip_rows;
  Batcher batcher(options);
  Ids batches;
  const auto take = [&](const Batch& batch) {
    batches.emplace_back(batch.id_columns[0].ids.begin(), batch.id_columns[0].ids.end());
  };
  for (uint32_t first = 0; first < kRows; first += chunk_rows) {
    Vectors vectors;
    std::vector<uint64_t> ids;
    std::vector<double> labels;
    for (uint32_t row = first; row < std::min(first + chunk_rows, kRows); ++row) {
      ids.push_back(row);
      labels.push_back(row % 5 == 0 ? 1 : 0);
    }
    const auto rows = static_cast<uint32_t>(ids.size());
    const auto output = batcher.Push({rows, {vectors.Integers(ids)}, {}, {vectors.Numbers(labels)}});
    for (const auto& batch : output.batches) take(*batch);
  }
  for (const auto& last : batcher.Finish()) take(*last);
  return batches;
}

std::vector<uint64_t> Joined(const Ids& batches) {
  std::vector<uint64_t> joined;
  for (const auto& batch : batches) joined.insert(joined.end(), batch.begin(), batch.end());
  return joined;
}

TEST_CASE("negative sampling keeps all positives and the share of the negatives, in order") {
  const std::vector<uint64_t> taken = Joined(TakeNumbered(NegativeSampling{0, 0.25, 1}, 100));
  CHECK(std::is_sorted(taken.begin(), taken.end()));
  const auto positives = std::count_if(taken.begin(), taken.end(), [](uint64_t id) { return id % 5 == 0; });
  CHECK(positives == 400);
  const double negatives = static_cast<double>(taken.size()) - 400;
  CHECK(std::abs(negatives - 0.25 * 1600) < 4 * std::sqrt(1600 * 0.25 * 0.75));
}

TEST_CASE("which negatives stay follows from the key, not from chunks or skipped rows") {
  const NegativeSampling sampling{0, 0.25, 1};
  const Ids batches = TakeNumbered(sampling, 100);
  CHECK(TakeNumbered(sampling, 7) == batches);
  CHECK(TakeNumbered(sampling, 2000) == batches);
  CHECK(TakeNumbered(NegativeSampling{0, 0.25, 2}, 100) != batches);
  CHECK(TakeNumbered(sampling, 100, 3 * 64) == Ids(batches.begin() + 3, batches.end()));
  CHECK(TakeNumbered(NegativeSampling{0, 1.0, 1}, 100) == TakeNumbered(std::nullopt, 100));
}

TEST_CASE("jagged ids keep to their rows across chunk and batch borders and around bad rows") {
  Vectors vectors;
  BatcherOptions options = IdsOnly({"user", IdEncoding::kInteger, " "}, 3);
  Batcher batcher(options);
  Ids seen;
  const auto take = [&](const Batch& batch) {
    for (auto& row : Rows(batch)) seen.push_back(std::move(row));
  };
  for (const auto& batch : batcher.Push({4, {vectors.Texts({"1 2", "", "3 x 4", "5"})}, {}, {}}).batches) take(*batch);
  for (const auto& batch : batcher.Push({3, {vectors.Texts({"x", "6 7 8", "9"})}, {}, {}}).batches) take(*batch);
  take(*batcher.Finish().at(0));
  CHECK(seen == Ids{{1, 2}, {}, {5}, {6, 7, 8}, {9}});
}

TEST_CASE("moments are those of the present values of good rows") {
  Vectors vectors;
  BatcherOptions options = WithLabel({"y", std::nullopt, false}, false);
  options.columns.dense = {{"x", Transform::kStandardize, 0, 1, std::nullopt}};
  options.collect_moments = true;
  Batcher batcher(options);
  batcher.Push({6, {}, {vectors.Texts({"2", "4", "", "1000", "bad", "9"})},
                {vectors.Texts({"1", "1", "1", "no", "1", "1"})}});
  const Moments& moments = batcher.moments().at(0);
  CHECK(moments.count == 3);
  CHECK(moments.mean == doctest::Approx(5));
  CHECK(moments.m2 == doctest::Approx(9 + 1 + 16));
}

TEST_CASE("numbers are read alike everywhere") {
  CHECK(ParseNumber("+1.5") == 1.5);
  CHECK(ParseNumber(" -2e3\t") == -2000);
  CHECK(ParseNumber("1e-999") == 0);
  CHECK(std::isinf(*ParseNumber("1e999")));
  for (const char* text : {"", " ", "1,5", "0x10", "1 2", "+-1", "++1", "12px", "-"}) {
    CAPTURE(text);
    CHECK(!ParseNumber(text));
    CHECK(!ParseInteger(text));
  }
  CHECK(ParseInteger("-9223372036854775808") == uint64_t{1} << 63);
  CHECK(!ParseInteger("-9223372036854775809"));
  CHECK(!ParseInteger("18446744073709551616"));
  CHECK(!ParseInteger("1.0"));
}

}  // namespace
TEST_CASE("rows are shuffled within windows, each once, the same for a key, and skipped in their new order") {
  constexpr uint32_t kRows = 2500;
  const auto read = [&](uint64_t key, uint64_t skip) {
    BatcherOptions options;
    options.columns.ids = {{"id", IdEncoding::kInteger, ""}};
    options.batch_size = 300;
    options.skip_rows = skip;
    options.shuffle = {1000, key};
    Batcher batcher(options);
    Vectors vectors;
    std::vector<uint64_t> ids;
    const auto take = [&](const std::vector<std::shared_ptr<const Batch>>& batches) {
      for (const auto& batch : batches) {
        ids.insert(ids.end(), batch->id_columns[0].ids.begin(), batch->id_columns[0].ids.end());
      }
    };
    for (uint32_t first = 0; first < kRows; first += 250) {
      std::vector<uint64_t> values(250);
      for (uint32_t i = 0; i < 250; ++i) values[i] = first + i;
      take(batcher.Push({250, {vectors.Integers(values)}, {}, {}}).batches);
    }
    take(batcher.Finish());
    return ids;
  };
  const auto once = read(1, 0);
  CHECK(once == read(1, 0));
  CHECK(once != read(2, 0));
  auto sorted = once;
  for (const auto& [first, last] : {std::pair(0, 1000), std::pair(1000, 2000), std::pair(2000, 2500)}) {
    std::sort(sorted.begin() + first, sorted.begin() + last);
  }
  for (uint32_t i = 0; i < kRows; ++i) CHECK(sorted[i] == i);
  CHECK(once[0] != 0);
  CHECK(read(1, 1700) == std::vector<uint64_t>(once.begin() + 1700, once.end()));
}

}  // namespace persia
