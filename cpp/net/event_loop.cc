#include "net/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/named_thread.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr int kMostBlockedMs = 1000;  // a bound, should a poller's wake-up ever be lost

}  // namespace

EventLoop::EventLoop(const std::string& name, uint64_t spin_us, Poller* poller)
    : spin_(std::chrono::microseconds(spin_us)), poller_(poller), epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  PERSIA_CHECK(epoll_ >= 0 && wake_ >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_;
  PERSIA_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0);
  thread_ = StartThread(name, [this] { Run(); });
}

EventLoop::~EventLoop() {
  Stop();
  close(wake_);
  close(epoll_);
}

void EventLoop::Post(Task task) {
  bool wake;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
    wake = blocked_;
    blocked_ = false;
  }
  if (!wake) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));  // full means: it will wake anyway
}

void EventLoop::PostAt(Time time, Task task) {
  if (OnLoop()) {
    timers_.emplace(time, std::move(task));
    return;
  }
  Post([this, time, task = std::move(task)]() mutable { timers_.emplace(time, std::move(task)); });
}

void EventLoop::Watch(int fd, std::function<void(uint32_t)> ready, uint32_t epoll_events) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.fd = fd;
  PERSIA_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0);
  watches_[fd] = {++watch_count_, std::move(ready)};
}

void EventLoop::Change(int fd, uint32_t epoll_events) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.fd = fd;
  PERSIA_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0);
}

void EventLoop::Unwatch(int fd) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  watches_.erase(fd);
}

void EventLoop::Stop(const Task& last) {
  std::lock_guard stop(stop_mutex_);
  if (!thread_.joinable()) return;
  PERSIA_CHECK(!OnLoop());
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    last_ = last;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
  thread_.join();
  timers_.clear();  // and what their tasks own
  tasks_.clear();
}

void EventLoop::Run() {
  id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  for (uint32_t round = 0;; ++round) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    // A clock takes longer than a round: timers wait for some of these, or for the end of a block.
    bool busy = (round % 16 == 0 || std::exchange(woken_, false)) && RunDueTimers();
    busy = RunTasks() || busy;
    busy = (poller_ != nullptr && poller_->Poll()) || busy;
    // Sockets are few and slow beside a poller, but each of its busy rounds may move a MiB of every peer.
    if (round % (busy ? 8 : 16) == 0) busy = WaitForFds(0) || busy;
    if (busy) {
      spin_.Found();
    } else if (!spin_.Again()) {
      Block();
      woken_ = true;
      spin_.Woken();
    }
  }
  if (last_) last_();
}

bool EventLoop::RunDueTimers() {
  if (timers_.empty()) return false;
  bool any = false;
  const Time now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
    any = true;
  }
  return any;
}

bool EventLoop::RunTasks() {
  {
    std::lock_guard lock(mutex_);
    if (tasks_.empty()) return false;
    running_.swap(tasks_);
  }
  for (Task& task : running_) {
    task();
    task = nullptr;  // frees what it owns at once, not after the others
  }
  running_.clear();
  return true;
}

void EventLoop::Block() {
  {
    std::lock_guard lock(mutex_);
    if (!tasks_.empty() || stopping_) return;
    blocked_ = true;
  }
  if (poller_ == nullptr || poller_->Arm()) WaitForFds(MillisecondsToNextTimer());
  std::lock_guard lock(mutex_);
  blocked_ = false;
}

bool EventLoop::WaitForFds(int timeout_ms) {
  std::array<epoll_event, 32> events;
  const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
  PERSIA_CHECK(count >= 0 || errno == EINTR);
  bool any = false;
  std::array<uint64_t, 32> numbers{};
  for (int i = 0; i < count; ++i) {
    const auto watch = watches_.find(events[i].data.fd);
    numbers[i] = watch == watches_.end() ? 0 : watch->second.first;
  }
  for (int i = 0; i < count; ++i) {
    if (events[i].data.fd == wake_) {
      uint64_t value;
      [[maybe_unused]] const ssize_t bytes = read(wake_, &value, sizeof(value));
      continue;
    }
    // An earlier callback may have ended this one, and even given its fd to another.
    const auto watch = watches_.find(events[i].data.fd);
    if (watch == watches_.end() || watch->second.first != numbers[i]) continue;
    const auto ready = watch->second.second;
    ready(events[i].events);
    any = true;
  }
  return any;
}

int EventLoop::MillisecondsToNextTimer() const {
  if (timers_.empty()) return kMostBlockedMs;
  const auto left = timers_.begin()->first - std::chrono::steady_clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 0, kMostBlockedMs));
}

}  // namespace persia
