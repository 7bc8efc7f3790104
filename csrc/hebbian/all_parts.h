// Work over threads that tells whether all went well.
#pragma once

#include <atomic>

#include "common/split.h"

namespace synops {

// f(begin, end) over [0, n) by threads; whether all answered true.
template <class F>
bool all_parts(int64_t n, int64_t work, F&& f) {
  std::atomic<bool> all{true};
  split(n, threads_for(work), [&](int64_t begin, int64_t end) {
    if (!f(begin, end)) all.store(false, std::memory_order_relaxed);
  });
  return all.load();
}

}  // namespace synops
