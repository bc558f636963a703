// Arrow files as sources of rows: the files that test/golden/arrow_golden.py wrote, whose values
// test/ts/data-arrow.test.ts checks one by one. Here: chunks of any size, and several readers at once.
#include "data/arrow_source.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace persia {
namespace {

std::string PathOf(const std::string& file) {
  const char* named = std::getenv("PERSIA_GOLDEN_DIR");
  return std::string(named != nullptr ? named : PERSIA_GOLDEN_DIR) + "/../fuzz/corpus/fuzz_arrow_file/" + file;
}

std::shared_ptr<ArrowSource> Open(const std::string& file) {
  auto source = ArrowSource::Open(PathOf(file), file);
  REQUIRE_MESSAGE(source.ok(), source.status().message());
  return *source;
}

// The columns user, city and tags, and item as a text.
const ArrowLayout kLayout{{{1, ValueKind::kText}, {2, ValueKind::kText}, {3, ValueKind::kText}, {4, ValueKind::kText}},
                          {{5, ValueKind::kNumber}},
                          {},
                          std::nullopt};

void AppendValue(const ColumnView& column, uint64_t i, std::string* out) {
  const bool is_there = ColumnView::Present(column.validity, i);
  out->append(is_there ? column.text(i) : "-").append(",");
}

// All rows as one text.
std::string ReadAll(const std::shared_ptr<ArrowSource>& source, uint32_t chunk_rows) {
  ArrowRows rows(source, kLayout);
  std::string all;
  for (uint64_t first = 0; first < source->rows(); first += chunk_rows) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(chunk_rows, source->rows() - first));
    const auto chunk = rows.Read(first, count);
    if (!chunk.ok()) return chunk.status().message();
    for (uint32_t row = 0; row < count; ++row) {
      for (const ColumnView& column : chunk.value()->ids) {
        if (column.entries == nullptr) {
          AppendValue(column, row, &all);
          continue;
        }
        const uint64_t first_value = column.entries[2 * row], values = column.entries[2 * row + 1];
        for (uint64_t i = 0; i < values; ++i) AppendValue(column, first_value + i, &all);
        all += ColumnView::Present(column.entry_validity, row) ? ";" : "none;";
      }
      const ColumnView& age = chunk.value()->dense[0];
      all += ColumnView::Present(age.validity, row) ? std::to_string(age.number(row)) : "-";
      all += "\n";
    }
  }
  return all;
}

}  // namespace

TEST_CASE("rows of an Arrow file are the same in chunks of any size and in every form of the file") {
  const std::string all = ReadAll(Open("plain.arrow"), 100);
  CHECK(all.starts_with("-,-,none;-5000000000000000,-\nuser-1-with-a-long-name,Bern,t1,;-4900000000000000,0.250000\n"));
  for (const char* file : {"plain.arrow", "lz4.arrow", "zstd.arrow", "stream.arrows", "replaced.arrows", "delta.arrows",
                           "polars.arrow", "polars-zstd.arrow"}) {
    for (const uint32_t chunk_rows : {1, 7, 30, 64, 100}) {
      CAPTURE(file);
      CAPTURE(chunk_rows);
      CHECK(ReadAll(Open(file), chunk_rows) == all);
    }
  }
}

TEST_CASE("several readers of one Arrow file get the same rows at once") {
  const auto source = Open("zstd.arrow");
  const std::string all = ReadAll(source, 100);
  std::vector<std::string> read(4);
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < read.size(); ++i) {
    readers.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) read[i] = ReadAll(source, 5 + i);
    });
  }
  for (std::thread& reader : readers) reader.join();
  for (const std::string& rows : read) CHECK(rows == all);
}

}  // namespace persia
