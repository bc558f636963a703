#include "net/transport.h"

#include <condition_variable>
#include <mutex>

namespace persia {

void WaitForCallbacks(Transport& transport) {
  struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  if (transport.OnProgressThread()) return;
  Signal signal;
  {
    // Signals when the task is gone: run, or dropped by a transport that closes, which runs nothing else either.
    const std::shared_ptr<void> ticket(nullptr, [&signal](void*) {
      std::lock_guard lock(signal.mutex);
      signal.done = true;
      signal.changed.notify_all();
    });
    transport.Post([ticket] {});
  }
  std::unique_lock lock(signal.mutex);
  signal.changed.wait(lock, [&] { return signal.done; });
}

}  // namespace persia
