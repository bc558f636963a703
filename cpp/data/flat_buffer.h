// FlatBuffers (flatbuffers.dev), as much of the format as Arrow's metadata needs: tables, texts, vectors of scalars, of
// structs and of tables.
//
//   table   [i32 distance back to its vtable | fields …]      vtable   [u16 bytes | u16 bytes of the table | u16 place
//   vector  [u32 count | elements …]                                    of field 0 in the table, 0: left out | …]
//   text    [u32 bytes | characters … | 0]                    offset   u32 distance ahead to a table, vector or text
//
// FlatWriter writes front to back, what is pointed to behind what points. FlatTable reads buffers that anybody may have
// written: every access is within the buffer, what lies outside reads as absent and raises a flag.
//
// Thread-safety: thread-confined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace persia {

class FlatWriter {
 public:
  // Where a field or an element is to be written: bytes from the start of the buffer.
  using Place = size_t;

  // The place of the offset to the root table.
  static constexpr Place kRoot = 0;

  FlatWriter() : bytes_(sizeof(uint32_t)) {}

  // Starts a table that the offset at `from` points to. Field i takes sizes[i] bytes, 0: it is left out. Returns the
  // places of the fields.
  std::vector<Place> Table(Place from, std::initializer_list<uint8_t> sizes);

  // Starts a vector that the offset at `from` points to, with `count` elements of zeros. Returns the place of the
  // first.
  Place Vector(Place from, size_t count, size_t element_bytes);

  void Text(Place from, std::string_view text);

  template <typename T>
  void Put(Place at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
  }

  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  void Align(size_t to, size_t ahead);
  void PointTo(Place from) { Put(from, static_cast<uint32_t>(bytes_.size() - from)); }

  std::vector<uint8_t> bytes_;
};

class FlatVector;

class FlatTable {
 public:
  // The root table of a buffer. `broken` is set at the first access that leaves the buffer.
  static FlatTable Root(std::span<const uint8_t> bytes, bool* broken);

  bool exists() const { return table_ != 0; }

  // The scalar of a field, or `absent`.
  template <typename T>
  T Value(uint32_t field, T absent = T{}) const {
    const size_t at = Find(field);
    return at == 0 ? absent : Load<T>(at);
  }
  FlatTable Table(uint32_t field) const;
  std::string_view Text(uint32_t field) const;
  FlatVector Vector(uint32_t field, size_t element_bytes) const;

 private:
  friend class FlatVector;

  FlatTable(std::span<const uint8_t> bytes, bool* broken) : bytes_(bytes), broken_(broken) {}
  static FlatTable At(std::span<const uint8_t> bytes, size_t offset_at, bool* broken);

  size_t Find(uint32_t field) const;
  size_t Follow(size_t offset_at) const;
  bool Within(size_t at, size_t bytes) const;
  template <typename T>
  T Load(size_t at) const {
    T value{};
    if (Within(at, sizeof(T))) std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }

  std::span<const uint8_t> bytes_;
  bool* broken_;
  size_t table_ = 0;  // 0: there is none
  size_t vtable_ = 0;
  size_t vtable_bytes_ = 0;
};

class FlatVector {
 public:
  size_t size() const { return count_; }

  // Part of element i: the scalar that starts `byte` bytes in.
  template <typename T>
  T Value(size_t i, size_t byte = 0) const {
    return in_.Load<T>(first_ + i * element_bytes_ + byte);
  }
  // Of a vector of tables (element_bytes is that of an offset).
  FlatTable Table(size_t i) const { return FlatTable::At(in_.bytes_, first_ + i * element_bytes_, in_.broken_); }

 private:
  friend class FlatTable;
  explicit FlatVector(const FlatTable& in) : in_(in) {}

  FlatTable in_;
  size_t first_ = 0;
  size_t count_ = 0;
  size_t element_bytes_ = 0;
};

}  // namespace persia
