// Stands in for torch's pool of threads: as many of them as a check asks for, on any machine.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "sanitize/checks.h"

namespace synops::sanitize {
namespace {
uint32_t most = 1;
thread_local bool inside = false;
}  // namespace

void set_threads(uint32_t threads) { most = threads; }

}  // namespace synops::sanitize

using synops::sanitize::inside;

AOTITorchError torch_get_num_threads(uint32_t* threads) {
  *threads = synops::sanitize::most;
  return AOTI_TORCH_SUCCESS;
}

// In pieces as at::parallel_for makes them; a region inside another one runs in its thread.
AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t grain, ParallelFunc f,
                                  void* context) {
  if (begin >= end) return AOTI_TORCH_SUCCESS;
  const int64_t n = end - begin;
  int64_t pieces = inside ? 1 : synops::sanitize::most;
  if (grain > 0) pieces = std::min(pieces, (n + grain - 1) / grain);
  const int64_t piece = (n + pieces - 1) / pieces;
  std::vector<std::thread> threads;
  for (int64_t first = begin + piece; first < end; first += piece)
    threads.emplace_back([=] {
      inside = true;
      f(first, std::min(first + piece, end), context);
    });
  f(begin, std::min(begin + piece, end), context);
  for (std::thread& thread : threads) thread.join();
  return AOTI_TORCH_SUCCESS;
}
