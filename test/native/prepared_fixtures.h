// Prepared shards in a folder of their own, made of generated text, for the tests of cpp/data.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include <doctest/doctest.h>

#include "data/part_writer.h"
#include "data/prepared_data.h"

namespace persia {

class Folder {
 public:
  Folder() {
    REQUIRE(mkdtemp(path_.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_ = "/tmp/persia-data-XXXXXX";
};

inline void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// Columns: click, user (an id, missing in every 7th row), tags (several), age (missing in every 5th row).
// The id of a user is its number, so that a row shows where it comes from.
inline std::string Line(uint64_t row) {
  const std::string n = std::to_string(row);
  std::string tags;
  for (uint64_t i = 0; i < row % 4; ++i) tags.append(i > 0 ? "|" : "").append(std::to_string(100 + i));
  return std::to_string(row % 3 == 0) + "," + (row % 7 == 0 ? "" : n) + "," + tags + "," +
         (row % 5 == 0 ? "" : std::to_string(row % 1000)) + "\n";
}

inline PartOptions ClickPart(std::string train, std::string test = "") {
  PartOptions options;
  options.columns.ids = {{"user", IdEncoding::kInteger, ""}, {"tags", IdEncoding::kInteger, "|"}};
  options.columns.dense = {{"age", Transform::kNone, 0, 1, std::nullopt}};
  options.columns.labels = {{"click", std::nullopt, true}};
  options.columns.missing = {""};
  options.shard_columns = {{{"user", false}, {"tags", true}}, {"age"}, {"click"}};
  options.train_path = std::move(train);
  options.test_path = std::move(test);
  return options;
}

inline TextFormat ClickFormat() { return {',', 4, {1, 2, 3, 0}}; }

}  // namespace persia
