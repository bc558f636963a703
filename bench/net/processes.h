// A sample's processes: each runs a function in a process of its own and hands its result back, so that one sample leaves
// nothing behind for the next, and the program itself never has a thread when it forks.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace persia::bench {

// A child process that tells texts, a line each. Ended, if it does not end by itself, when this goes.
class Process {
 public:
  using Tell = std::function<void(const std::string& line)>;

  explicit Process(const std::function<void(const Tell& tell)>& body);
  ~Process();
  Process(Process&& other) noexcept;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The next line; ends the program when the child has ended without one, or says nothing for a minute.
  std::string Line();

 private:
  int pid_ = -1;
  int from_ = -1;
};

}  // namespace persia::bench
