#include "processes.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "base/status.h"

namespace persia::bench {

Process::Process(const std::function<void(const Tell& tell)>& body) {
  int ends[2];
  PERSIA_CHECK(pipe(ends) == 0);
  std::fflush(stdout);
  pid_ = fork();
  PERSIA_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    body([&](const std::string& line) {
      const std::string text = line + "\n";
      PERSIA_CHECK(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    });
    _exit(0);
  }
  close(ends[1]);
  from_ = ends[0];
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), from_(std::exchange(other.from_, -1)) {}

Process::~Process() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(from_);
}

std::string Process::Line() {
  std::string line;
  for (char c = 0; c != '\n';) {
    pollfd ready{from_, POLLIN, 0};
    PERSIA_CHECK(poll(&ready, 1, 60'000) == 1);
    PERSIA_CHECK(read(from_, &c, 1) == 1);
    if (c != '\n') line += c;
  }
  return line;
}

}  // namespace persia::bench
