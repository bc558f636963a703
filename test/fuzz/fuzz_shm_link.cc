// Fuzz target of a connection through shared memory whose other side writes whatever it likes into it, counters and flags
// included. Nothing is read or written outside of the rings, and broken counters end the connection.
//
// An input is a list of steps of three bytes: what is done, and a number for it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "net/shm_link.h"
#include "seeds.h"

namespace persia {
namespace {

// The file as the other side sees it: see ShmLink::Ring.
constexpr size_t kRingBytes = 192 + kShmRingBytes;
constexpr size_t kPlaces[] = {0, 64, 128, 132};  // written, read, flag of the reader, flag of the writer

class Memory {
 public:
  explicit Memory(const std::string& name) {
    const int file = shm_open(name.c_str(), O_RDWR, 0);
    bytes_ = static_cast<std::byte*>(mmap(nullptr, 2 * kRingBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    PERSIA_CHECK(file >= 0 && bytes_ != MAP_FAILED);
    close(file);
  }
  ~Memory() { munmap(bytes_, 2 * kRingBytes); }

  void Write(size_t ring, size_t place, uint64_t value) {
    const size_t bytes = place < 2 ? sizeof(value) : sizeof(uint32_t);
    std::memcpy(bytes_ + ring * kRingBytes + kPlaces[place], &value, bytes);
  }

 private:
  std::byte* bytes_;
};

// Numbers that are worth trying: small ones, about the ring's size, and huge ones.
uint64_t NumberOf(uint16_t value) {
  switch (value >> 12) {
    case 0: return kShmRingBytes + (value & 0xfff);
    case 1: return kShmRingBytes - (value & 0xfff);
    case 2: return ~uint64_t{0} - (value & 0xfff);
    case 3: return uint64_t{1} << (value & 63);
    default: return value;
  }
}

size_t WriteTo(ShmLink& link, Bytes bytes) { return link.Write({&bytes, 1}); }

void CheckInput(Bytes input) {
  static std::vector<std::byte> buffer(2 * kShmRingBytes);
  auto link = ShmLink::Create();
  PERSIA_CHECK(link.ok());
  Memory memory(link.value()->name());
  const auto* data = reinterpret_cast<const uint8_t*>(input.data());
  for (size_t bytes = input.size(); bytes >= 3; data += 3, bytes -= 3) {
    const uint64_t number = NumberOf(static_cast<uint16_t>(data[1] | data[2] << 8));
    const size_t some = std::min<uint64_t>(number, buffer.size());
    const bool was_sound = link.value()->status().ok();
    switch (data[0] % 13) {
      case 0: PERSIA_CHECK(WriteTo(*link.value(), {buffer.data(), some}) <= std::min(some, kShmRingBytes)); break;
      case 1: PERSIA_CHECK(link.value()->Read({buffer.data(), some}) <= std::min(some, kShmRingBytes)); break;
      case 2: static_cast<void>(link.value()->readable()); break;
      case 3: static_cast<void>(link.value()->MustWake()); break;
      case 4: static_cast<void>(link.value()->Sleep(number % 2 != 0)); break;
      default: memory.Write(data[0] % 2, data[0] / 13 % 4, number); break;
    }
    PERSIA_CHECK(was_sound || !link.value()->status().ok());
  }
}

// Bytes go and come; then the other side claims to have written more than its ring holds.
Seeds MakeSeeds() {
  const auto step = [](uint8_t what, uint16_t number) {
    return std::string{static_cast<char>(what), static_cast<char>(number & 255), static_cast<char>(number >> 8)};
  };
  constexpr uint8_t kWrite = 0, kRead = 1, kSleep = 4, kOtherWritten = 5;
  return {{"broken-counter", step(kWrite, 0x4064) + step(kOtherWritten, 0x4064) + step(kRead, 0x4064) + step(kSleep, 0x4001) +
                                 step(kOtherWritten, 0x2001) + step(kRead, 0x4064)}};
}

}  // namespace
}  // namespace persia

#include "entry_points.h"
