#include "net/transport_choice.h"

#include <array>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>

namespace persia {
namespace {

constexpr std::array kNames = {"auto", "tcp", "rdma", "shm"};
constexpr const char* kDevices = "/sys/class/infiniband";

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

void FindRdma(TransportReach* reach) {
  namespace fs = std::filesystem;
  std::error_code error;
  bool any = false;
  for (const auto& device : fs::directory_iterator(kDevices, error)) {
    for (const auto& port : fs::directory_iterator(device.path() / "ports", error)) {
      any = true;
      if (FirstLine(port.path() / "state").find("ACTIVE") == std::string::npos) continue;
      reach->rdma_devices.push_back(device.path().filename().string() + ":" + port.path().filename().string());
    }
  }
  if (reach->rdma_devices.empty()) reach->no_rdma = any ? "no port of an RDMA device is active" : "there is no RDMA device";
}

Status Unavailable(const std::string& why) { return Status(ErrorCode::kTransport, why); }

}  // namespace

const char* TransportChoiceName(TransportChoice choice) { return kNames[static_cast<size_t>(choice)]; }

Result<TransportChoice> ParseTransportChoice(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return TransportChoice(i);
  }
  return Status(ErrorCode::kUsage, std::string(name) + " is no transport: expected auto, tcp, rdma or shm");
}

TransportReach LocalReach() {
  TransportReach reach;
  struct stat memory{};
  // Without /dev/shm there is nothing to share.
  if (stat("/dev/shm", &memory) == 0) {
    reach.host = FirstLine("/proc/sys/kernel/random/boot_id") + "/" + std::to_string(memory.st_dev) + ":" +
                 std::to_string(memory.st_ino);
  }
  FindRdma(&reach);
  return reach;
}

Result<ChosenTransport> ChooseTransport(TransportChoice asked, const TransportReach& here, TransportChoice asked_there,
                                        const TransportReach& there) {
  const bool one_host = !here.host.empty() && here.host == there.host;
  const std::string no_rdma = here.rdma_devices.empty()    ? here.no_rdma + " here"
                              : there.rdma_devices.empty() ? there.no_rdma + " on the other side"
                                                           : "";
  if (asked != TransportChoice::kAuto && asked_there != TransportChoice::kAuto && asked != asked_there) {
    return Unavailable(std::string("this side is set to ") + TransportChoiceName(asked) + ", the other to " +
                       TransportChoiceName(asked_there));
  }
  const TransportChoice wanted = asked != TransportChoice::kAuto ? asked : asked_there;
  switch (wanted) {
    case TransportChoice::kTcp: return ChosenTransport{TransportChoice::kTcp, "it was asked for"};
    case TransportChoice::kShm:
      if (!one_host) return Unavailable("shm needs both on one host, and one /dev/shm");
      return ChosenTransport{TransportChoice::kShm, "it was asked for"};
    case TransportChoice::kRdma:
      if (!no_rdma.empty()) return Unavailable("rdma: " + no_rdma);
      return ChosenTransport{TransportChoice::kRdma, "it was asked for"};
    case TransportChoice::kAuto: break;
  }
  if (one_host) return ChosenTransport{TransportChoice::kShm, "both are on one host"};
  if (no_rdma.empty()) return ChosenTransport{TransportChoice::kRdma, "both have an RDMA device with an active port"};
  return ChosenTransport{TransportChoice::kTcp, "they are on two hosts, and " + no_rdma};
}

}  // namespace persia
