// Fuzz target of TextRows: any bytes are split into rows or told as bad lines, and the same whatever the pieces that they
// come in.
//
// An input is the size of the pieces, the number of columns, and the text.
#include <algorithm>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/text_rows.h"

namespace persia {
namespace {

// What a text is split into, as one text.
std::string SplitText(std::span<const uint8_t> whole, uint32_t columns, size_t piece) {
  TextFormat format{',', columns, {}};
  for (uint32_t i = 0; i < columns; ++i) format.wanted.push_back(i);
  TextRows text(format, 0);
  std::string split, bad;
  const auto take = [&] {
    for (;;) {
      const TextChunk& chunk = text.Next();
      if (chunk.rows() == 0 && chunk.bad.empty()) return;
      for (uint32_t row = 0; row < chunk.rows(); ++row) {
        split.append(std::to_string(chunk.lines[row])).push_back(':');
        for (const auto& column : chunk.columns) split.append(column[row].view()).push_back('\x1f');
      }
      for (const BadLine& line : chunk.bad) bad.append(std::to_string(line.line)).append(line.reason);
    }
  };
  for (size_t at = 0; at < whole.size(); at += std::min(piece, whole.size() - at)) {
    text.Push(whole.subspan(at, std::min(piece, whole.size() - at)));
    take();
  }
  text.End();
  take();
  PERSIA_CHECK(text.position() == whole.size());
  return split.append(bad);
}

}  // namespace
}  // namespace persia

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  if (bytes < 2) return 0;
  const std::span<const uint8_t> text(data + 2, bytes - 2);
  // A byte order mark is only known at once.
  if (!text.empty() && text[0] == 0xEF) return 0;
  const uint32_t columns = 1 + data[1] % 4;
  PERSIA_CHECK(persia::SplitText(text, columns, 1 + data[0]) == persia::SplitText(text, columns, bytes));
  return 0;
}
