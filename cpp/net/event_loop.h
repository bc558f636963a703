// EventLoop: the one progress thread of a transport. It runs tasks that others post, timers, and what a Poller finds;
// when there is nothing to do it spins for a while and then blocks until an event.
//
//   others: Post ──► tasks_ ──► progress thread: due timers, tasks, Poll ──► nothing? spin ──► Arm, epoll_wait
//                       └─ writes wake_ (an eventfd) only when the thread is, or is about to be, blocked
//
// No wake-up is lost: `blocked_` and `tasks_` change under one mutex. A task that was posted before `blocked_` was set is
// seen before the thread blocks; one that is posted after finds `blocked_` and writes to wake_.
//
// Thread-safety: Post, PostAt, OnLoop and Stop from any thread; Watch and Unwatch from the loop's own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/spin.h"

namespace persia {

// What a loop asks besides its own tasks; called on the progress thread only.
class Poller {
 public:
  virtual ~Poller() = default;
  // Does what there is to do. False: nothing was.
  virtual bool Poll() = 0;
  // Before the thread blocks: makes later events wake it. False: something came up, look again.
  virtual bool Arm() = 0;
};

class EventLoop {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Task = std::function<void()>;

  // `poller` may be null, and outlives the loop.
  EventLoop(const std::string& name, uint64_t spin_us, Poller* poller);
  ~EventLoop();  // stops

  void Post(Task task);
  void PostAt(Time time, Task task);

  // Calls `ready` on the loop when `fd` can be read or has ended (level-triggered). Unwatch before closing it.
  void Watch(int fd, std::function<void(uint32_t epoll_events)> ready, uint32_t epoll_events);
  void Change(int fd, uint32_t epoll_events);
  void Unwatch(int fd);

  bool OnLoop() const { return std::this_thread::get_id() == id_.load(std::memory_order_relaxed); }

  // Ends the thread after what it is doing; later tasks and timers are dropped unrun. `last` runs on it as the last
  // thing, once. Idempotent: later calls wait for the first to be done. Not from the loop itself.
  void Stop(const Task& last = {});

 private:
  void Run();
  bool RunDueTimers();
  bool RunTasks();
  bool WaitForFds(int timeout_ms);
  void Block();
  int MillisecondsToNextTimer() const;

  Spin spin_;
  Poller* const poller_;
  int epoll_ = -1;
  int wake_ = -1;

  std::mutex mutex_;  // guards the next four
  std::vector<Task> tasks_;
  bool blocked_ = false;
  bool stopping_ = false;
  Task last_;

  // The loop's own.
  std::vector<Task> running_;
  std::multimap<Time, Task> timers_;
  std::map<int, std::pair<uint64_t, std::function<void(uint32_t)>>> watches_;  // by fd; the number tells reuse of an fd
  uint64_t watch_count_ = 0;
  bool woken_ = true;

  std::atomic<std::thread::id> id_;  // relaxed: only the loop's own thread can find its own id in it
  std::mutex stop_mutex_;
  std::thread thread_;  // guarded by stop_mutex_
};

}  // namespace persia
