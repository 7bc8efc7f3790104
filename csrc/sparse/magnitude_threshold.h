// magnitude_threshold: the raw-pointer kernels (bodies in magnitude_threshold.inc).
//
// Magnitudes are compared as integers: the bits of a number without its sign ascend with it. A key
// is these bits, or kNaN, below every number.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

constexpr int64_t kNaN = -1;
constexpr int64_t kSlack = 64;

// Keys against a bracket low <= high. Where both are one, `at_high` counts what equals it.
struct Census {
  int64_t above = 0, at_high = 0, at_low = 0;
};

struct MagnitudeKernels {
  int64_t (*key)(DType dtype, const void* data, int64_t index);
  // Counts n numbers, and writes the keys strictly inside the bracket, in order, to `inside`, which
  // has room for kSlack more than n. Returns how many there are.
  int64_t (*sift)(DType dtype, const void* data, int64_t n, int64_t low, int64_t high,
                  Census* census, int64_t* inside);
  // The number of such a magnitude; -inf for kNaN.
  void (*number)(DType dtype, int64_t key, void* out);
};

SYNOPS_KERNELS(MagnitudeKernels, magnitude)

}  // namespace synops
