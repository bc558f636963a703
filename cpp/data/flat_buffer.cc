#include "data/flat_buffer.h"

#include <algorithm>

namespace persia {

// Pads so that what comes `ahead` bytes later is aligned.
void FlatWriter::Align(size_t to, size_t ahead) {
  while ((bytes_.size() + ahead) % to != 0) bytes_.push_back(0);
}

std::vector<FlatWriter::Place> FlatWriter::Table(Place from, std::initializer_list<uint8_t> sizes) {
  constexpr size_t kHeadBytes = sizeof(uint16_t);
  const size_t vtable_bytes = 2 * kHeadBytes + sizes.size() * sizeof(uint16_t);
  Align(8, vtable_bytes);
  const Place vtable = bytes_.size();
  bytes_.resize(vtable + vtable_bytes);
  const Place table = bytes_.size();
  PointTo(from);
  size_t end = sizeof(int32_t);
  std::vector<Place> places;
  for (const uint8_t size : sizes) {
    if (size > 0) end = (end + size - 1) / size * size;
    const Place slot = vtable + 2 * kHeadBytes + places.size() * sizeof(uint16_t);
    Put(slot, static_cast<uint16_t>(size > 0 ? end : 0));
    places.push_back(table + end);
    end += size;
  }
  bytes_.resize(table + end);
  Put(vtable, static_cast<uint16_t>(vtable_bytes));
  Put(vtable + kHeadBytes, static_cast<uint16_t>(end));
  Put(table, static_cast<int32_t>(table - vtable));
  return places;
}

FlatWriter::Place FlatWriter::Vector(Place from, size_t count, size_t element_bytes) {
  Align(8, sizeof(uint32_t));
  PointTo(from);
  const Place at = bytes_.size();
  bytes_.resize(at + sizeof(uint32_t) + count * element_bytes);
  Put(at, static_cast<uint32_t>(count));
  return at + sizeof(uint32_t);
}

void FlatWriter::Text(Place from, std::string_view text) {
  const Place first = Vector(from, text.size(), 1);
  std::copy(text.begin(), text.end(), bytes_.begin() + static_cast<ptrdiff_t>(first));
  bytes_.push_back(0);
}

FlatTable FlatTable::Root(std::span<const uint8_t> bytes, bool* broken) { return At(bytes, 0, broken); }

FlatTable FlatTable::At(std::span<const uint8_t> bytes, size_t offset_at, bool* broken) {
  FlatTable table(bytes, broken);
  const size_t at = table.Follow(offset_at);
  if (!table.Within(at, sizeof(int32_t))) return table;
  const int64_t vtable = static_cast<int64_t>(at) - table.Load<int32_t>(at);
  if (vtable < 0 || !table.Within(static_cast<size_t>(vtable), 2 * sizeof(uint16_t))) {
    *broken = true;
    return table;
  }
  table.vtable_ = static_cast<size_t>(vtable);
  table.vtable_bytes_ = table.Load<uint16_t>(table.vtable_);
  if (table.Within(table.vtable_, table.vtable_bytes_)) table.table_ = at;
  return table;
}

FlatTable FlatTable::Table(uint32_t field) const {
  const size_t at = Find(field);
  return at == 0 ? FlatTable(bytes_, broken_) : At(bytes_, at, broken_);
}

std::string_view FlatTable::Text(uint32_t field) const {
  const FlatVector text = Vector(field, 1);
  return {reinterpret_cast<const char*>(bytes_.data()) + text.first_, text.count_};
}

FlatVector FlatTable::Vector(uint32_t field, size_t element_bytes) const {
  FlatVector vector(*this);
  const size_t at = Find(field);
  if (at == 0) return vector;
  const size_t place = Follow(at);
  const uint64_t count = Load<uint32_t>(place);
  if (!Within(place, sizeof(uint32_t) + count * element_bytes)) return vector;
  vector.first_ = place + sizeof(uint32_t);
  vector.count_ = count;
  vector.element_bytes_ = element_bytes;
  return vector;
}

// The place of a field; 0: it is left out.
size_t FlatTable::Find(uint32_t field) const {
  const size_t slot = 2 * sizeof(uint16_t) + field * sizeof(uint16_t);
  if (table_ == 0 || slot + sizeof(uint16_t) > vtable_bytes_) return 0;
  const uint16_t offset = Load<uint16_t>(vtable_ + slot);
  return offset == 0 ? 0 : table_ + offset;
}

size_t FlatTable::Follow(size_t offset_at) const { return offset_at + Load<uint32_t>(offset_at); }

bool FlatTable::Within(size_t at, size_t bytes) const {
  if (at <= bytes_.size() && bytes <= bytes_.size() - at) return true;
  *broken_ = true;
  return false;
}

}  // namespace persia
