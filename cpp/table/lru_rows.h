// The rows of one shard: slots that hold a row and its place in the recency list, and an index from sign to slot.
//
//   chunk 0: 256 slots, chunk k: 256·2^(k-1) slots   a slot never moves: growing adds a chunk and copies nothing
//   least recent ⇄ … ⇄ most recent                   a doubly linked list through the live slots
//   free slots, singly linked                        left by erased and evicted rows, used before new ones
//
// At capacity an insert reuses the slot of the least recent row.
// Thread-safety: externally synchronised.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "table/sign_index.h"

namespace persia {

class LruRows {
 public:
  // The most rows that one shard can number: more than any machine's memory holds.
  static constexpr uint64_t kMostRows = uint64_t{1} << 31;

  // `capacity` rows (> 0, at most kMostRows) of `row_width` floats.
  LruRows(uint64_t capacity, uint32_t row_width);

  // The slot of a sign, or kNoSlot. `hash` is Mix64(sign) everywhere.
  uint32_t Find(uint64_t sign, uint64_t hash) const {
    return index_.Find(hash, [&](uint32_t slot) { return LinkOf(slot).sign == sign; });
  }

  // Adds a sign that has no row as the most recent one; the row's contents are undefined.
  uint32_t Insert(uint64_t sign, uint64_t hash);
  // Makes a live slot the most recent one.
  void Touch(uint32_t slot);
  void Erase(uint32_t slot);
  void Clear();

  bool full() const { return index_.size() == capacity_; }  // the next insert evicts
  size_t size() const { return index_.size(); }
  size_t bytes() const;  // of the slots used so far and the index
  uint32_t oldest() const { return oldest_; }  // kNoSlot when empty
  uint32_t newer(uint32_t slot) const { return LinkOf(slot).newer; }
  uint64_t sign(uint32_t slot) const { return LinkOf(slot).sign; }
  float* row(uint32_t slot) {
    const Place place = PlaceOf(slot);
    return chunks_[place.chunk].rows.data() + place.at * stride_;
  }
  const float* row(uint32_t slot) const {
    const Place place = PlaceOf(slot);
    return chunks_[place.chunk].rows.data() + place.at * stride_;
  }

  // Three steps that bring a row into the cache, to be interleaved over several signs.
  void PrefetchIndex(uint64_t hash) const { index_.Prefetch(hash); }
  void PrefetchRow(uint64_t hash, uint32_t floats) const;
  void PrefetchNeighbours(uint64_t hash) const;

 private:
  static constexpr uint32_t kFirstChunkBits = 8;
  static constexpr size_t kMostChunks = 32 - kFirstChunkBits;

  struct Link {
    uint64_t sign;
    uint32_t older;  // kNoSlot at the least recent
    uint32_t newer;  // kNoSlot at the most recent; the next free slot when free
  };
  struct Chunk {
    AlignedBuffer<Link> links;
    AlignedBuffer<float> rows;
  };
  struct Place {
    uint32_t chunk;
    size_t at;  // slot within the chunk
  };

  static uint32_t ChunkOf(uint32_t slot) { return static_cast<uint32_t>(std::bit_width(slot >> kFirstChunkBits)); }
  static uint32_t FirstSlotOf(uint32_t chunk) { return chunk == 0 ? 0 : 1u << (kFirstChunkBits + chunk - 1); }
  static Place PlaceOf(uint32_t slot) {
    const uint32_t chunk = ChunkOf(slot);
    return {chunk, slot - FirstSlotOf(chunk)};
  }

  const Link& LinkOf(uint32_t slot) const {
    const Place place = PlaceOf(slot);
    return chunks_[place.chunk].links[place.at];
  }
  Link& LinkOf(uint32_t slot) {
    const Place place = PlaceOf(slot);
    return chunks_[place.chunk].links[place.at];
  }

  uint32_t TakeSlot();
  void AddChunk(uint32_t chunk);
  void Unlink(const Link& link);
  void LinkAsNewest(uint32_t slot);

  uint64_t capacity_;
  uint32_t stride_;  // floats from row to row
  SignIndex index_;
  std::array<Chunk, kMostChunks> chunks_;
  uint32_t used_ = 0;  // slots handed out so far, free ones included
  uint32_t free_ = kNoSlot;
  uint32_t oldest_ = kNoSlot;
  uint32_t newest_ = kNoSlot;
};

}  // namespace persia
