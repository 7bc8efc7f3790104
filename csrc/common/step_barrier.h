// A barrier of the parts of a simulation, for work that is shared anew at every step.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace synops {

// A thread arrives with all parts it has, so that nobody waits where one thread has them all. It
// looks for a microsecond or two, then lets others run: a part may have no processor at the moment.
class StepBarrier {
 public:
  explicit StepBarrier(int64_t parts) : parts_(parts) {}

  void wait(int64_t mine) {
    const int64_t turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(mine, std::memory_order_acq_rel) + mine == parts_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int looked = 0; turn_.load(std::memory_order_acquire) == turn;) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      if (++looked < kLooks) continue;
      sched_yield();
      looked = 0;
    }
  }

 private:
  static constexpr int kLooks = 200;  // of some 15 ns
  const int64_t parts_;
  alignas(64) std::atomic<int64_t> arrived_{0};
  alignas(64) std::atomic<int64_t> turn_{0};
};

}  // namespace synops
