// Starts a thread whose name shows in debuggers and `top -H`. Signals stay with the process's main thread.
#pragma once

#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <pthread.h>

namespace persia {

// `name` is cut to the 15 characters that Linux keeps.
inline std::thread StartThread(const std::string& name, std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
  return thread;
}

}  // namespace persia
