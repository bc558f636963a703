#include <setjmp.h>
#include <ucontext.h>

#include <memory>
#include <mutex>
#include <vector>

#include "emulation.h"

namespace emulation {
namespace {

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr uint32_t kWarp = 32;

struct Fiber {
  ucontext_t context;  // to enter by, once; from then on the fiber is switched by jumps, which need no system call
  jmp_buf at;
  bool entered = false;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStackBytes);
  uint3 index;
  bool done = false;
  uint64_t waits = 0;  // barriers and shuffles reached
  float shuffled = 0.0f;
};

// Each thread of the host has fibers of its own: one that was entered stays on its thread.
thread_local struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  jmp_buf scheduler;
  size_t current = 0, count = 0;
  const std::function<void()>* body = nullptr;
  int any[2] = {0, 0};  // of BarrierOr, by parity of the barrier
} block;
thread_local Position here;
std::mutex one_kernel;  // shared memory is static: one kernel at a time

Fiber& Current() { return *block.fibers[block.current]; }

void Yield() {
  if (_setjmp(Current().at) == 0) _longjmp(block.scheduler, 1);
}

// A fiber goes on from block to block.
void Enter() {
  for (;;) {
    (*block.body)();
    Current().done = true;
    Yield();
  }
}

// Waits until threads [begin, end) reached the caller's wait or ended.
void WaitFor(size_t begin, size_t end) {
  const uint64_t wait = ++Current().waits;
  const auto all_there = [&] {
    for (size_t i = begin; i < end; ++i) {
      if (!block.fibers[i]->done && block.fibers[i]->waits < wait) return false;
    }
    return true;
  };
  while (!all_there()) Yield();
}

void Resume(size_t i) {
  block.current = i;
  here.thread_index = block.fibers[i]->index;
  if (_setjmp(block.scheduler) != 0) return;
  Fiber& fiber = *block.fibers[i];
  if (fiber.entered) _longjmp(fiber.at, 1);
  fiber.entered = true;
  setcontext(&fiber.context);
}

void AddFiber() {
  block.fibers.push_back(std::make_unique<Fiber>());
  Fiber& fiber = *block.fibers.back();
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber.context, Enter, 0);
}

void RunBlock(const std::function<void()>& body) {
  block.body = &body;
  block.any[0] = block.any[1] = 0;
  block.count = size_t{here.block.x} * here.block.y * here.block.z;
  while (block.fibers.size() < block.count) AddFiber();
  for (size_t i = 0; i < block.count; ++i) {
    Fiber& fiber = *block.fibers[i];
    const auto at = static_cast<uint32_t>(i);
    fiber.index = {at % here.block.x, at / here.block.x % here.block.y, at / here.block.x / here.block.y};
    fiber.done = false;
    fiber.waits = 0;
  }
  for (size_t running = block.count; running > 0;) {
    for (size_t i = 0; i < block.count; ++i) {
      if (block.fibers[i]->done) continue;
      Resume(i);
      running -= block.fibers[i]->done;
    }
  }
}

}  // namespace

const Position& Here() { return here; }

void RunKernel(dim3 grid, dim3 block_shape, const std::function<void()>& body) {
  std::lock_guard lock(one_kernel);
  here.grid = grid;
  here.block = block_shape;
  for (uint32_t z = 0; z < grid.z; ++z) {
    for (uint32_t y = 0; y < grid.y; ++y) {
      for (uint32_t x = 0; x < grid.x; ++x) {
        here.block_index = {x, y, z};
        RunBlock(body);
      }
    }
  }
}

void Barrier() { WaitFor(0, block.count); }

int BarrierOr(int value) {
  int& any = block.any[Current().waits % 2];
  any |= value;
  Barrier();
  const int result = any;
  Barrier();
  any = 0;
  return result;
}

float ShuffleXor(float value, uint32_t mask) {
  const size_t lane = block.current % kWarp, warp = block.current - lane;
  Current().shuffled = value;
  WaitFor(warp, std::min(warp + kWarp, block.count));
  const float result = block.fibers[warp + (lane ^ mask)]->shuffled;
  WaitFor(warp, std::min(warp + kWarp, block.count));
  return result;
}

}  // namespace emulation
