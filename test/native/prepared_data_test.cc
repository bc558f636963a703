// Prepared shards: what is written is what is read, in any order, in batches of any size; damage is found.
#include "data/prepared_data.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "prepared_fixtures.h"

namespace persia {
namespace {

constexpr uint64_t kRows = 150'000;  // in two shards, of two blocks each

struct Shards {
  Folder folder;
  PreparedOptions options;

  explicit Shards(uint64_t rows = kRows) {
    uint64_t row = 0;
    for (const char* name : {"0.arrow", "1.arrow"}) {
      std::string text;
      for (const uint64_t end = row + rows / 2; row < end; ++row) text += Line(row);
      WriteText(folder / "x.csv", text);
      PartOptions part = ClickPart(folder / name);
      PartWriter writer(part);
      REQUIRE(writer.PushFile(folder / "x.csv", ClickFormat(), 0, UINT64_MAX, true, 0).ok());
      REQUIRE(writer.Finish().ok());
      CHECK(writer.bad_count() == 0);
      options.shards.push_back({folder / name, writer.shard(PartWriter::kTrain)});
      options.columns = part.shard_columns;
    }
    options.ids = {0, 1};
    options.dense = {0};
    options.transforms = {{"age", Transform::kLog1p, 0, 1, 7.0}};
    options.labels = {0};
    options.batch_size = 1000;
  }
};

// The number of the row that a sample is; rows with a missing user are told by 0.
uint64_t UserOf(const Batch& batch, uint32_t row) {
  const IdColumn& users = batch.id_columns[0];
  return users.begin(row) == users.end(row) ? 0 : users.ids[users.begin(row)];
}

void CheckSample(const Batch& batch, uint32_t row, uint64_t number) {
  CHECK(UserOf(batch, row) == (number % 7 == 0 ? 0 : number));
  const IdColumn& tags = batch.id_columns[1];
  REQUIRE(tags.end(row) - tags.begin(row) == number % 4);
  for (uint32_t i = 0; i < number % 4; ++i) CHECK(tags.ids[tags.begin(row) + i] == 100 + i);
  const double age = number % 5 == 0 ? 7.0 : static_cast<double>(number % 1000);
  CHECK(batch.dense[row] == static_cast<float>(std::log1p(age)));
  CHECK(batch.labels[row] == (number % 3 == 0 ? 1.0f : 0.0f));
}

std::unique_ptr<PreparedData> Open(const PreparedOptions& options) {
  auto data = PreparedData::Open(options);
  REQUIRE_MESSAGE(data.ok(), data.status().message());
  return std::move(*data);
}

// The users of a pass, in order.
std::vector<uint64_t> UsersOf(const PreparedData& data) {
  std::vector<uint64_t> users;
  for (uint64_t i = 0; i < data.batches(); ++i) {
    const auto batch = data.Read(i);
    REQUIRE(batch.ok());
    for (uint32_t row = 0; row < batch.value()->rows; ++row) users.push_back(UserOf(*batch.value(), row));
  }
  return users;
}

}  // namespace

TEST_CASE("prepared samples come back whole and in order, across blocks and shards") {
  const Shards shards;
  for (const uint32_t batch_size : {1000u, 4096u, 70'001u}) {
    PreparedOptions options = shards.options;
    options.batch_size = batch_size;
    const auto data = Open(options);
    CHECK(data->rows() == kRows);
    uint64_t number = 0;
    for (uint64_t i = 0; i < data->batches(); ++i) {
      const auto batch = data->Read(i);
      REQUIRE(batch.ok());
      for (uint32_t row = 0; row < batch.value()->rows; row += 97) CheckSample(*batch.value(), row, number + row);
      number += batch.value()->rows;
    }
    CHECK(number == kRows);
  }
}

TEST_CASE("a batch outlives the data that it came from") {
  const Shards shards(2000);
  std::shared_ptr<const Batch> batch;
  {
    const auto data = Open(shards.options);
    batch = *data->Read(1);
  }
  CheckSample(*batch, 999, 1999);
}

TEST_CASE("a shuffled pass has every row once, another order for each key, and any batch by itself") {
  const Shards shards;
  PreparedOptions options = shards.options;
  const auto ordered = UsersOf(*Open(options));
  options.shuffle = {true, 10'000, 1};
  const auto data = Open(options);
  const auto once = UsersOf(*data);
  CHECK(once != ordered);
  CHECK(UsersOf(*Open(options)) == once);
  const auto batch = data->Read(77);
  for (uint32_t row = 0; row < 1000; ++row) CHECK(UserOf(*batch.value(), row) == once[77'000 + row]);
  options.shuffle->key = 2;
  CHECK(UsersOf(*Open(options)) != once);
  for (auto users : {once, UsersOf(*Open(options))}) {
    std::sort(users.begin(), users.end());
    auto all = ordered;
    std::sort(all.begin(), all.end());
    CHECK(users == all);
  }
}

TEST_CASE("negative sampling keeps all positives and a share of the others, in any order") {
  const Shards shards;
  PreparedOptions options = shards.options;
  options.sampling = {0, 0.25, 9};
  const auto data = Open(options);
  const double expected = kRows / 3.0 + kRows * 2 / 3.0 * 0.25;
  CHECK(std::fabs(static_cast<double>(data->rows()) - expected) < 0.02 * expected);
  auto kept = UsersOf(*data);
  CHECK(kept.size() == data->rows());
  options.shuffle = {false, 10'000, 1};
  auto shuffled = UsersOf(*Open(options));
  CHECK(shuffled != kept);
  std::sort(kept.begin(), kept.end());
  std::sort(shuffled.begin(), shuffled.end());
  CHECK(shuffled == kept);
}

TEST_CASE("a flipped bit, a shorter file and another one's shard are refused") {
  const Shards shards(2000);
  const std::string path = shards.folder / "0.arrow";
  const auto size = std::filesystem::file_size(path);
  for (uint64_t at = 0; at < size; at += 131) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 4));
    file.flush();
    const auto data = PreparedData::Open(shards.options);
    const bool found = !data.ok() || !data.value()->Read(0).ok();
    CHECK_MESSAGE(found, "byte ", at);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  }
  Open(shards.options);
  std::filesystem::resize_file(path, size - 1);
  CHECK(PreparedData::Open(shards.options).status().code() == ErrorCode::kDataUnreadable);
  std::filesystem::remove(path);
  CHECK(PreparedData::Open(shards.options).status().code() == ErrorCode::kDataNotFound);
}

TEST_CASE("parts that split a file anywhere have its lines once each") {
  const Folder folder;
  std::string text;
  for (uint64_t row = 0; row < 3000; ++row) text += Line(row);
  WriteText(folder / "x.csv", text);
  for (const uint64_t part_bytes : {7ull, 1000ull, 4096ull, 1'000'000ull}) {
    uint64_t rows = 0, next = 0;
    for (uint64_t begin = 0; begin < text.size() && begin / part_bytes < 50; begin += part_bytes) {
      PartWriter part(ClickPart(folder / "p.arrow"));
      REQUIRE(part.PushFile(folder / "x.csv", ClickFormat(), begin, begin + part_bytes, begin == 0, 0).ok());
      CHECK(part.begin() == next);
      next = part.end();
      rows += part.rows();
      CHECK(part.bad_count() == 0);
      CHECK(part.lines() == part.rows());
    }
    CHECK(rows == static_cast<uint64_t>(std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(next), '\n')));
  }
}

TEST_CASE("test rows go to a shard of their own: by share, by value, by time") {
  const Folder folder;
  std::string text;
  for (uint64_t row = 0; row < 5000; ++row) text += Line(row);
  WriteText(folder / "x.csv", text);
  const auto counts = [&](PartOptions options, TextFormat format) {
    PartWriter part(std::move(options));
    REQUIRE(part.PushFile(folder / "x.csv", format, 0, UINT64_MAX, true, 0).ok());
    REQUIRE(part.Finish().ok());
    return std::pair(part.shard(PartWriter::kTrain).rows, part.shard(PartWriter::kTest).rows);
  };
  PartOptions share = ClickPart(folder / "a.arrow", folder / "b.arrow");
  share.share = {0.2, 5};
  const auto [train, test] = counts(share, ClickFormat());
  CHECK(train + test == 5000);
  CHECK(std::abs(static_cast<int>(test) - 1000) < 100);

  PartOptions time = ClickPart(folder / "a.arrow", folder / "b.arrow");
  time.columns.split = {"user", SplitOptions::By::kTime, 0, 0, 4000.0, ""};
  TextFormat format = ClickFormat();
  format.wanted.push_back(1);
  const auto late = counts(time, format);
  CHECK(late.second == 1000 - 1000 / 7 - 1);  // those without a user are bad
  CHECK(late.first == 4000 - 4000 / 7 - 1);

  PartOptions hash = ClickPart(folder / "a.arrow", folder / "b.arrow");
  hash.columns.split = {"age", SplitOptions::By::kHash, 0.5, 1, std::nullopt, ""};
  format.wanted.back() = 3;
  const auto by_age = counts(hash, format);
  CHECK(by_age.first + by_age.second == 5000);
  CHECK(by_age.second % 5 == 0);  // rows of one age are on one side: 5 each, but for the missing ones (1000)
}

}  // namespace persia
