// What lock-free code stands on. It is templated on an environment, so that the tests can run the very same code under
// a scheduler that tries every interleaving (test/native/schedule.h).
//
// An environment has
//   Atomic<T>        std::atomic's members; all-zero memory is a valid object of value zero
//   Fence(order)     std::atomic_thread_fence
//   Pause()          called in a loop that waits for another thread
//   NewZeroed<T>(n)  (n) zeroed objects on a cache line's boundary, Delete(T*, n) gives them back
//   TouchSoon(p, n)  may touch (n) bytes ahead of their use
//   Retire(free)     calls `free` once no thread can hold what was taken out of reach before (base/epoch.h)
//   kVector          whether several atomics may be read by one vector load
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace persia {

struct StdEnvironment {
  template <typename T>
  using Atomic = std::atomic<T>;

#if defined(__SANITIZE_THREAD__)
  static constexpr bool kVector = false;
#else
  static constexpr bool kVector = true;
#endif

  static void Fence(std::memory_order order) {
#if defined(__SANITIZE_THREAD__)
    // ThreadSanitizer doesn't know fences; a read-modify-write of one variable is at least as strong.
    static std::atomic<int> everyone;
    everyone.fetch_add(0, order == std::memory_order_relaxed ? order : std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(order);
#endif
  }

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  template <typename T>
  static T* NewZeroed(size_t count) {
    return static_cast<T*>(MapZeroed(count * sizeof(T)));
  }
  template <typename T>
  static void Delete(T* objects, size_t count) {
    Unmap(objects, count * sizeof(T));
  }
  // Zeroed bytes of which the first `head` and what is left of a huge page at the end are in small pages, so that they
  // take memory exactly as they are used; all between is in huge pages. Delete(p, n) gives them back.
  static std::byte* NewSlab(size_t bytes, size_t head);
  static void Retire(std::function<void()> free);
  static void TouchSoon(void* data, size_t bytes);

  // Makes all (count) objects of NewZeroed zero again, by giving their memory back. Beside other calls each atomic is
  // what it was, or zero and what is done to it then.
  template <typename T>
  static void Zero(T* objects, size_t count) {
    Unload(objects, count * sizeof(T));
  }

 private:
  // Zeroed pages, huge where the size allows it, that take memory when they are first touched. Ends the process when
  // address space is out.
  static void* MapZeroed(size_t bytes);
  static void Unmap(void* data, size_t bytes);
  static void Unload(void* data, size_t bytes);
};

}  // namespace persia
