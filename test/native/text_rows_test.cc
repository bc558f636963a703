// TextRows: how text becomes rows and fields, in pieces of any size.
#include "data/text_rows.h"

#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace persia {
namespace {

struct Split {
  std::vector<std::vector<std::string>> rows;
  std::vector<uint64_t> lines;
  std::vector<std::string> bad;  // "line: reason"
  uint64_t position = 0;
};

std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

void TakeAll(TextRows* text, Split* split) {
  for (;;) {
    const TextChunk& chunk = text->Next();
    if (chunk.rows() == 0 && chunk.bad.empty()) break;
    for (uint32_t row = 0; row < chunk.rows(); ++row) {
      split->rows.emplace_back();
      for (const auto& column : chunk.columns) split->rows.back().emplace_back(column[row].view());
      split->lines.push_back(chunk.lines[row]);
    }
    for (const BadLine& bad : chunk.bad) split->bad.push_back(std::to_string(bad.line) + ": " + bad.reason);
  }
}

Split SplitText(const std::string& whole, uint32_t columns, size_t piece = SIZE_MAX, char delimiter = ',') {
  TextFormat format{delimiter, columns, {}};
  for (uint32_t i = 0; i < columns; ++i) format.wanted.push_back(i);
  TextRows text(format, 0);
  Split split;
  for (size_t at = 0; at < whole.size(); at += std::min(piece, whole.size() - at)) {
    text.Push(BytesOf(std::string_view(whole).substr(at, piece)));
    TakeAll(&text, &split);
  }
  text.End();
  TakeAll(&text, &split);
  split.position = text.position();
  return split;
}

using Rows = std::vector<std::vector<std::string>>;

}  // namespace

TEST_CASE("text is split by RFC 4180, whatever the pieces that it comes in") {
  const std::string whole =
      "\xEF\xBB\xBF"
      "a,b\n"
      "\"x, y\",\"say \"\"hi\"\"\"\r\n"
      "\n"
      "a value of more than twelve bytes,\"line\nbreak\"\n"
      ",\n"
      "\"\",q\"r\n"
      "last,line";
  const Rows expected = {{"a", "b"},
                         {"x, y", "say \"hi\""},
                         {"a value of more than twelve bytes", "line\nbreak"},
                         {"", ""},
                         {"", "q\"r"},
                         {"last", "line"}};
  for (const size_t piece : {size_t{3}, size_t{5}, size_t{7}, size_t{64}, SIZE_MAX}) {
    const Split split = SplitText(whole, 2, piece);
    CHECK(split.rows == expected);
    CHECK(split.lines == std::vector<uint64_t>{1, 2, 4, 5, 6, 7});
    CHECK(split.bad.empty());
    CHECK(split.position == whole.size());
  }
}

TEST_CASE("a bad line is told with its number, and the next one is read as usual") {
  const std::string quote = "a quoted value does not end, or has text behind its closing quote";
  const Split split = SplitText("a,b\nonly\n1,2,3\n\"x\"y,b\nc,\xff\nd,\"open\ne,f\n", 2);
  CHECK(split.rows == Rows{{"a", "b"}, {"e", "f"}});
  CHECK(split.bad == std::vector<std::string>{"2: expected 2 columns, found 1", "3: expected 2 columns, found 3",
                                              "4: " + quote, "5: the text is not valid UTF-8", "6: " + quote});
}

TEST_CASE("a line of ten megabytes is one bad line and costs no memory for the rest") {
  const std::string whole = "a,b\n" + std::string(10'000'000, 'x') + ",y\nc,d\n";
  for (const size_t piece : {size_t{1} << 16, SIZE_MAX}) {
    const Split split = SplitText(whole, 2, piece);
    CHECK(split.rows == Rows{{"a", "b"}, {"c", "d"}});
    CHECK(split.bad == std::vector<std::string>{"2: the line is longer than 2 MB"});
    CHECK(split.lines == std::vector<uint64_t>{1, 3});
  }
}

TEST_CASE("overlong and surrogate forms are no UTF-8, umlauts and emoji are") {
  for (const char* good : {"\xC3\xBC", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBB\xBF" "x"}) {
    CHECK(SplitText(std::string("1,") + good + "\n", 2).rows.size() == 1);
  }
  for (const char* bad : {"\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\x80", "\xF0\x80\x80\xAF"}) {
    CHECK(SplitText(std::string("1,") + bad + "\n", 2).bad.size() == 1);
  }
}

TEST_CASE("in files of one column a blank line is an empty value") {
  CHECK(SplitText("a\n\nb\n", 1).rows == Rows{{"a"}, {""}, {"b"}});
  CHECK(SplitText("a\tb\n\n", 2, SIZE_MAX, '\t').rows == Rows{{"a", "b"}});
}

}  // namespace persia
