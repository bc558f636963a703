#include "torch_peer.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"

namespace persia::bench {

TorchPeer::TorchPeer(const Settings& settings, uint32_t dim, uint64_t rows, std::span<const IdStreams> streams) {
  if (settings.peer.empty()) {
    why_not_ = "torch: no --peer was given";
    return;
  }
  if (Bytes(dim, rows) > AvailableBytes()) {
    why_not_ = "torch: " + std::to_string(rows) + " rows of dim " + std::to_string(dim) + " don't fit into memory";
    return;
  }
  std::string command = "exec " + settings.peer + " --rows " + std::to_string(rows) + " --dim " + std::to_string(dim) +
                        " --batch " + std::to_string(settings.batch);
  for (const IdStreams& stream : streams) {
    command += std::string(" --ids ") + NameOf(stream.ids()) + "=" + WriteIds(stream);
  }
  Start(command);
  const std::string hello = ReadLine();  // "ready VERSION" or "skipped WHY"
  if (hello.rfind("ready ", 0) == 0) {
    version_ = hello.substr(6);
  } else {
    why_not_ = hello.rfind("skipped ", 0) == 0 ? hello.substr(8) : "torch: `" + settings.peer + "` did not start";
  }
}

TorchPeer::~TorchPeer() {
  if (process_ > 0) {
    close(to_);  // it ends at the end of its input
    close(from_);
    waitpid(process_, nullptr, 0);
  }
  for (const std::string& file : id_files_) std::filesystem::remove(file);
}

std::string TorchPeer::WriteIds(const IdStreams& streams) {
  std::string path = (std::filesystem::temp_directory_path() / "persia-ids-XXXXXX").string();
  const int file = mkstemp(path.data());
  PERSIA_CHECK(file >= 0);
  close(file);
  id_files_.push_back(path);
  streams.Write(path);
  return path;
}

void TorchPeer::Start(const std::string& command) {
  std::signal(SIGPIPE, SIG_IGN);  // a peer that ended shows in what it answers
  int to_peer[2], from_peer[2];
  PERSIA_CHECK(pipe2(to_peer, O_CLOEXEC) == 0 && pipe2(from_peer, O_CLOEXEC) == 0);
  process_ = fork();
  PERSIA_CHECK(process_ >= 0);
  if (process_ == 0) {
    dup2(to_peer[0], STDIN_FILENO);
    dup2(from_peer[1], STDOUT_FILENO);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  close(to_peer[0]);
  close(from_peer[1]);
  to_ = to_peer[1];
  from_ = from_peer[0];
}

std::optional<double> TorchPeer::Sample(Op op, IdDistribution ids, uint32_t threads, double seconds) {
  if (!why_not_.empty()) return std::nullopt;
  const std::string order = std::string(op == Op::kGatherApply ? "gather+apply " : "gather ") + NameOf(ids) + " " +
                            std::to_string(threads) + " " + std::to_string(seconds) + "\n";
  const bool sent = write(to_, order.data(), order.size()) == static_cast<ssize_t>(order.size());
  const std::string answer = sent ? ReadLine() : "";
  constexpr const char* kKey = "\"rowsPerSecond\":";
  const size_t at = answer.find(kKey);
  if (at == std::string::npos) {
    why_not_ = "torch: it ended amid the samples";
    return std::nullopt;
  }
  return std::strtod(answer.c_str() + at + std::strlen(kKey), nullptr);
}

std::string TorchPeer::ReadLine() {
  std::string line;
  for (char next; read(from_, &next, 1) == 1 && next != '\n';) line.push_back(next);
  return line;
}

}  // namespace persia::bench
