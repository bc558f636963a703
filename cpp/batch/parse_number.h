// Reads numbers from text, the same on every platform and locale.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace persia {

// A decimal number such as "12", "-0.5", "1e-3"; also "inf" and "nan". Blanks around it and a leading + are allowed.
std::optional<double> ParseNumber(std::string_view text);

// A decimal integer from -2^63 to 2^64 - 1; negative ones in two's complement. Blanks and a leading + are allowed.
std::optional<uint64_t> ParseInteger(std::string_view text);

}  // namespace persia
