#include "batch/parse_number.h"

#include <charconv>
#include <limits>

namespace persia {
namespace {

// The text without blanks around it and without one leading +.
std::string_view Strip(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  const bool signed_twice = text.size() > 1 && (text[1] == '-' || text[1] == '+');
  if (text[0] == '+' && !signed_twice) text.remove_prefix(1);
  return text;
}

// What most numbers in data are: an integer that a double holds exactly, nothing around it.
std::optional<double> ParsePlainInteger(std::string_view text) {
  constexpr size_t kMostDigits = 15;
  const bool is_negative = !text.empty() && text[0] == '-';
  const std::string_view digits = text.substr(is_negative ? 1 : 0);
  if (digits.empty() || digits.size() > kMostDigits) return std::nullopt;
  int64_t value = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    value = 10 * value + (digit - '0');
  }
  return is_negative ? -static_cast<double>(value) : static_cast<double>(value);
}

}  // namespace

std::optional<double> ParseNumber(std::string_view text) {
  if (const std::optional<double> plain = ParsePlainInteger(text)) return plain;
  text = Strip(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || text.empty()) return std::nullopt;
  // Out of range is either far too large, which is no finite number, or too small to differ from zero.
  if (error == std::errc::result_out_of_range) {
    const size_t exponent = text.find_last_of("eE");
    const bool tiny = exponent != std::string_view::npos && text.find('-', exponent) != std::string_view::npos;
    return tiny ? 0 : std::numeric_limits<double>::infinity();
  }
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::optional<uint64_t> ParseInteger(std::string_view text) {
  text = Strip(text);
  const char* const last = text.data() + text.size();
  if (!text.empty() && text[0] == '-') {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), last, value);
    return error == std::errc() && end == last ? std::optional(static_cast<uint64_t>(value)) : std::nullopt;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), last, value);
  return error == std::errc() && end == last ? std::optional(value) : std::nullopt;
}

}  // namespace persia
