#include "data/arrow_values.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/utf8.h"

namespace persia {
namespace {

// A double as a word of numbers.
uint64_t WordOf(double value) { return std::bit_cast<uint64_t>(value); }

double FromHalf(uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 1023;
  const double sign = (half >> 15) != 0 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

// As DuckDB writes floating-point numbers, the shortest digits that give the value back: 12.0, 1e-05, 1.5e+16. (Of one
// in a hundred random 32-bit values it takes more digits than are needed; that is not repeated here.)
template <typename T>
char* WriteFloat(char* out, T value) {
  if (std::isnan(value)) return std::copy_n("nan", 3, out);
  if (std::isinf(value)) return value < 0 ? std::copy_n("-inf", 4, out) : std::copy_n("inf", 3, out);
  char scientific[40];  // 1.25e+03
  const std::string text(
      scientific, std::to_chars(scientific, scientific + sizeof(scientific), value, std::chars_format::scientific).ptr);
  const size_t mark = text.find('e');
  const int exponent = std::atoi(text.c_str() + mark + 1);
  if (exponent < -4 || exponent >= 16) return std::copy(text.begin(), text.end(), out);
  std::string digits;
  for (const char c : std::string_view(text).substr(0, mark)) {
    if (c >= '0' && c <= '9') digits.push_back(c);
  }
  const auto whole = static_cast<size_t>(std::max(exponent, 0) + 1);
  if (exponent < 0) digits.insert(0, static_cast<size_t>(-exponent), '0');
  if (digits.size() < whole + 1) digits.resize(whole + 1, '0');
  digits.insert(whole, 1, '.');
  if (text[0] == '-') digits.insert(0, 1, '-');
  return std::copy(digits.begin(), digits.end(), out);
}

// The date of a day after 1970-01-01, in the Gregorian calendar (Howard Hinnant's civil_from_days).
char* WriteDate(char* out, size_t room, int64_t day) {
  const int64_t z = day + 719'468, era = (z >= 0 ? z : z - 146'096) / 146'097;
  const int64_t of_era = z - era * 146'097;
  const int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36'524 - of_era / 146'096) / 365;
  const int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted = (5 * of_year + 2) / 153, month = shifted < 10 ? shifted + 3 : shifted - 9;
  const int64_t day_of_month = of_year - (153 * shifted + 2) / 5 + 1;
  const int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  return out + std::snprintf(out, room, "%04lld-%02lld-%02lld", static_cast<long long>(year),
                             static_cast<long long>(month), static_cast<long long>(day_of_month));
}

// Units of a second by Arrow's TimeUnit: seconds, milli-, micro-, nanoseconds.
int64_t UnitsOfSecond(uint32_t unit) {
  return unit == 0 ? 1 : unit == 1 ? 1000 : unit == 2 ? 1'000'000 : 1'000'000'000;
}

int64_t FloorDivide(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
int64_t FloorRest(int64_t a, int64_t b) { return a % b + (a % b < 0 ? b : 0); }

// 2024-03-01 10:20:30.25: without zeros at the end.
char* WriteTimestamp(char* out, size_t room, int64_t value, uint32_t unit) {
  const int64_t units = UnitsOfSecond(unit), seconds = FloorDivide(value, units);
  const int64_t day = FloorDivide(seconds, 86'400), second = FloorRest(seconds, 86'400);
  char* end = WriteDate(out, room, day);
  const auto left = [&] { return room - static_cast<size_t>(end - out); };
  end += std::snprintf(end, left(), " %02d:%02d:%02d", static_cast<int>(second / 3600),
                       static_cast<int>(second / 60 % 60), static_cast<int>(second % 60));
  const int64_t parts = FloorRest(value, units);
  if (parts == 0) return end;
  end += std::snprintf(end, left(), ".%09d", static_cast<int>(parts * (1'000'000'000 / units)));
  while (end[-1] == '0') --end;
  return end;
}

template <typename T>
T Load(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

uint64_t PlaceAt(const ArrowField& field, const ArrowColumn& column, uint64_t i) {
  switch (field.index_bits) {
    case 8: return column.values_as<uint8_t>()[i];
    case 16: return column.values_as<uint16_t>()[i];
    case 32: return column.values_as<uint32_t>()[i];
    default: return column.values_as<uint64_t>()[i];
  }
}

}  // namespace

bool ArrowValues::CanRead(const ArrowField& field, ValueKind kind) {
  switch (field.type) {
    case ArrowTypeId::kNull:
    case ArrowTypeId::kInt:
      return true;
    case ArrowTypeId::kFloat:
    case ArrowTypeId::kBool:
      return kind != ValueKind::kInteger;
    case ArrowTypeId::kUtf8:
    case ArrowTypeId::kLargeUtf8:
    case ArrowTypeId::kUtf8View:
    case ArrowTypeId::kDate:
      return kind == ValueKind::kText;
    case ArrowTypeId::kTimestamp:
      return kind == ValueKind::kText && !field.has_zone;
    default:
      return false;
  }
}

void ArrowValues::Clear(ValueKind kind) {
  kind_ = kind;
  words_.clear();
  present_.Clear();
  made_.clear();
}

bool ArrowValues::Append(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count) {
  PERSIA_CHECK(CanRead(field, kind_) && begin + count <= column.rows);
  MadeText text;
  switch (field.type) {
    case ArrowTypeId::kNull:
      for (uint64_t i = 0; i < count; ++i) PutMissing();
      return true;
    case ArrowTypeId::kUtf8:
      return AppendTexts<int32_t>(column, begin, count);
    case ArrowTypeId::kLargeUtf8:
      return AppendTexts<int64_t>(column, begin, count);
    case ArrowTypeId::kUtf8View:
      return AppendViews(column, begin, count);
    case ArrowTypeId::kInt:
      return AppendIntegers(field, column, begin, count);
    case ArrowTypeId::kFloat:
      return AppendFloats(field, column, begin, count);
    case ArrowTypeId::kBool:
      return Each(column, begin, count,
                  [&](uint64_t i) { return PutBool(((column.values[i / 8] >> (i % 8)) & 1) != 0); });
    case ArrowTypeId::kDate:
      return Each(column, begin, count, [&](uint64_t i) {
        const int64_t day = field.unit == 0 ? column.values_as<int32_t>()[i]
                                            : FloorDivide(column.values_as<int64_t>()[i], 86'400'000);
        PutMade(text, WriteDate(text.data(), text.size(), day));
        return true;
      });
    default:
      return Each(column, begin, count, [&](uint64_t i) {
        PutMade(text, WriteTimestamp(text.data(), text.size(), column.values_as<int64_t>()[i], field.unit));
        return true;
      });
  }
}

bool ArrowValues::AppendFrom(const ArrowValues& dictionary, const ArrowField& field, const ArrowColumn& column,
                             uint64_t begin, uint64_t count) {
  PERSIA_CHECK(dictionary.kind_ == kind_);
  return Each(column, begin, count, [&](uint64_t i) {
    const uint64_t place = PlaceAt(field, column, i);  // a negative one is far outside
    if (place >= dictionary.size()) return false;
    for (size_t word = 0; word < width(); ++word) words_.push_back(dictionary.words_[place * width() + word]);
    present_.Append(dictionary.present_[place]);
    return true;
  });
}

template <typename Put>
bool ArrowValues::Each(const ArrowColumn& column, uint64_t begin, uint64_t count, Put put) {
  bool good = true;
  for (uint64_t i = begin; i < begin + count && good; ++i) {
    if (column.is_null(i)) {
      PutMissing();
    } else {
      good = put(i);
    }
  }
  return good;
}

template <typename Offset>
bool ArrowValues::AppendTexts(const ArrowColumn& column, uint64_t begin, uint64_t count) {
  const auto* ends = column.offsets_as<Offset>();
  const auto* characters = column.values_as<char>();
  return Each(column, begin, count, [&](uint64_t i) {
    return PutText({characters + ends[i], static_cast<size_t>(ends[i + 1] - ends[i])});
  });
}

// A view is [i32 bytes | text[12]], or of a longer text [i32 bytes | prefix[4] | i32 piece | i32 place in it].
bool ArrowValues::AppendViews(const ArrowColumn& column, uint64_t begin, uint64_t count) {
  return Each(column, begin, count, [&](uint64_t i) {
    const uint8_t* view = column.values.data() + i * sizeof(TextRecord);
    const auto bytes = Load<uint32_t>(view);
    if (bytes <= TextRecord::kInlineBytes) return PutText({reinterpret_cast<const char*>(view) + 4, bytes});
    const auto piece = Load<uint32_t>(view + 8), place = Load<uint32_t>(view + 12);
    if (piece >= column.pieces.size()) return false;
    const std::span<const uint8_t> characters = column.pieces[piece];
    if (place > characters.size() || bytes > characters.size() - place) return false;
    return PutText({reinterpret_cast<const char*>(characters.data()) + place, bytes});
  });
}

bool ArrowValues::AppendIntegers(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count) {
  const auto as = [&]<typename T>(T) {
    return Each(column, begin, count, [&](uint64_t i) { return PutInteger(column.values_as<T>()[i]); });
  };
  switch (field.bits) {
    case 8: return field.is_signed ? as(int8_t{}) : as(uint8_t{});
    case 16: return field.is_signed ? as(int16_t{}) : as(uint16_t{});
    case 32: return field.is_signed ? as(int32_t{}) : as(uint32_t{});
    default: return field.is_signed ? as(int64_t{}) : as(uint64_t{});
  }
}

bool ArrowValues::AppendFloats(const ArrowField& field, const ArrowColumn& column, uint64_t begin, uint64_t count) {
  return Each(column, begin, count, [&](uint64_t i) {
    switch (field.bits) {
      case 16: return PutFloat(static_cast<float>(FromHalf(column.values_as<uint16_t>()[i])));
      case 32: return PutFloat(column.values_as<float>()[i]);
      default: return PutFloat(column.values_as<double>()[i]);
    }
  });
}

void ArrowValues::PutMissing() {
  words_.insert(words_.end(), width(), 0);
  present_.Append(false);
}

void ArrowValues::PutWord(uint64_t word) {
  words_.push_back(word);
  present_.Append(true);
}

bool ArrowValues::PutText(std::string_view text) {
  if (text.size() > UINT32_MAX || !IsUtf8(text)) return false;
  TextRecord record{};
  record.length = static_cast<uint32_t>(text.size());
  uint64_t words[2];
  if (text.size() <= TextRecord::kInlineBytes) {
    std::memcpy(words, &record, sizeof(record));
    std::memcpy(reinterpret_cast<char*>(words) + sizeof(record.length), text.data(), text.size());
  } else {
    std::memcpy(record.inlined, text.data(), sizeof(record.inlined));
    record.pointer = text.data();
    std::memcpy(words, &record, sizeof(record));
  }
  words_.insert(words_.end(), words, words + 2);
  present_.Append(true);
  return true;
}

void ArrowValues::PutMade(const MadeText& text, const char* end) {
  const auto bytes = static_cast<size_t>(end - text.data());
  const MadeText& kept = bytes <= TextRecord::kInlineBytes ? text : made_.emplace_back(text);
  PutText({kept.data(), bytes});
}

template <typename T>
bool ArrowValues::PutInteger(T value) {
  if (kind_ == ValueKind::kNumber) {
    PutWord(WordOf(static_cast<double>(value)));
  } else if (kind_ == ValueKind::kInteger) {
    PutWord(static_cast<uint64_t>(value));  // negative ones in two's complement
  } else {
    MadeText text;
    PutMade(text, std::to_chars(text.data(), text.data() + text.size(), value).ptr);
  }
  return true;
}

template <typename T>
bool ArrowValues::PutFloat(T value) {
  if (kind_ == ValueKind::kNumber) {
    PutWord(WordOf(static_cast<double>(value)));
  } else {
    MadeText text;
    PutMade(text, WriteFloat(text.data(), value));
  }
  return true;
}

bool ArrowValues::PutBool(bool value) {
  if (kind_ != ValueKind::kNumber) return PutText(value ? "true" : "false");
  PutWord(WordOf(value ? 1 : 0));
  return true;
}

}  // namespace persia
