// A connection through shared memory: two rings of bytes, one for each direction, in a file of /dev/shm that loses its
// name as soon as both sides have it.
//
//   [ ring to the client | ring to the server ]      ring: [ written | read | flags | kShmRingBytes bytes ]
//                                                    bytes [read, written) are on their way, at their number modulo size
//
// Why not UCX: the shared memory transports of UCX 1.13 don't report a peer that is lost, and all senders of a process
// share one queue of its, which one that dies while it writes stops for all. A link concerns two processes; when one goes,
// the other unmaps it.
//
// Whoever finds nothing to do says so by a flag before it blocks; the other side sees the flag after it has written or read
// and then sends a wake-up by the control connection.
//   Orders: `written` and `read` are released by their one writer and acquired by the other side: bytes are whole before they
// count, and taken out before their place is used again. A flag and a counter are a store and a load of the other on both
// sides (Dekker), so these are seq_cst: either the sleeper sees the counter, or the other side sees the flag.
//
// The other process may write anything at any time: counters are checked at each use, and bytes are copied before they are
// looked at.
//
// Thread-safety: one thread at a time on each side.
#pragma once

#include <memory>
#include <string>

#include "net/byte_link.h"

namespace persia {

constexpr size_t kShmRingBytes = size_t{1} << 20;

class ShmLink final : public ByteLink {
 public:
  // Makes the file, in full: kTransport when /dev/shm has no room.
  static Result<std::unique_ptr<ShmLink>> Create();
  // Opens it by the name that the other side told. Takes the other side's directions.
  static Result<std::unique_ptr<ShmLink>> Open(const std::string& name);
  ~ShmLink() override;
  ShmLink(const ShmLink&) = delete;
  ShmLink& operator=(const ShmLink&) = delete;

  const std::string& name() const { return name_; }
  // Takes the file's name away: both have it open, or nobody will.
  void Unlink();

  size_t Write(std::span<const Bytes> pieces) override;
  size_t Read(std::span<std::byte> out) override;
  // kProtocol: the other side has broken the counters. An end does not show here.
  Status status() const override;
  bool readable() const;

  // After writing or reading: whether the other side sleeps and must be woken. True once for each sleep.
  bool MustWake();
  // Before blocking; `for_room`: bytes wait to be written. False: there is something to do.
  bool Sleep(bool for_room);

 private:
  struct Ring;
  ShmLink(std::string name, void* memory, bool created);

  size_t Count(uint64_t written, uint64_t read) const;
  uint64_t EndOfRoom(uint64_t written) const;
  void CopyIn(uint64_t number, Bytes bytes);

  std::string name_;
  void* const memory_;
  Ring* const out_;
  Ring* const in_;
  bool linked_;
  mutable bool sound_ = true;
};

}  // namespace persia
