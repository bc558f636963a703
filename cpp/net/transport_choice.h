// Which of tcp, rdma and shm carries a connection: what each side has, and the rule. Pure, apart from LocalReach.
//
//   asked for   taken                                                                              else
//   auto        shm when both are on one host, rdma when both have a device with an active port, tcp
//   one of them that one                                                                           refused, with the reason
//
// Both sides ask; `auto` on one side leaves it to the other.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace persia {

enum class TransportChoice : uint8_t { kAuto = 0, kTcp = 1, kRdma = 2, kShm = 3 };

const char* TransportChoiceName(TransportChoice choice);
Result<TransportChoice> ParseTransportChoice(std::string_view name);

// What one side has.
struct TransportReach {
  std::string host;                       // equal for processes that share memory: the boot, and the place of /dev/shm
  std::vector<std::string> rdma_devices;  // with an active port: "mlx5_0:1"
  std::string no_rdma;                    // why there are none
};

TransportReach LocalReach();

struct ChosenTransport {
  TransportChoice kind = TransportChoice::kTcp;  // not kAuto
  std::string why;                               // "both are on one host"
};

// kTransport: what was asked for can't be had, and why.
Result<ChosenTransport> ChooseTransport(TransportChoice asked, const TransportReach& here, TransportChoice asked_there,
                                        const TransportReach& there);

}  // namespace persia
