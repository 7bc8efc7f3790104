// How drivers split their work over torch's threads. No split changes a block or the order of a
// sum, so results do not depend on the number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace synops {

// Work items (multiply-adds) that are worth a second thread; a fork costs 1 to 10 us.
#ifndef SYNOPS_GRAIN  // smaller where small shapes have to be split (sanitize/run.sh)
#define SYNOPS_GRAIN (1 << 16)
#endif
constexpr int64_t kGrain = SYNOPS_GRAIN;

inline int64_t threads_for(int64_t work) {
  return std::clamp<int64_t>(work / kGrain, 1, torch::stable::get_num_threads());
}

// f(begin, end) over [0, n) in at most `parts` pieces.
template <class F>
void split(int64_t n, int64_t parts, F&& f) {
  if (parts <= 1 || n <= 1) return f(int64_t{0}, n);
  torch::stable::parallel_for(0, n, (n + parts - 1) / parts, f);
}

// f(block, part) for every block of a group and every one of `parts` parts of it.
template <class F>
void split_group(int64_t blocks, int64_t parts, int64_t threads, F&& f) {
  split(blocks * parts, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / parts, i % parts);
  });
}

// Parts begin at multiples of 16, the most lanes there are: a tile is never split.
inline int64_t part_begin(int64_t n, int64_t part, int64_t parts) {
  return std::min(n, (n * part / parts + 15) / 16 * 16);
}

}  // namespace synops
