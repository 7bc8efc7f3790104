// hopfield_retrieve: what its raw-pointer kernels work on (bodies in hopfield_retrieve.inc). The
// softmax and its products are attention's (entropy/attention_with_stats.h); these are what stands
// between two steps, of one row each.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

struct HopfieldKernels {
  // Half the squared norm of `before`, and the norm of `after` - `before` (null: 0); sums in
  // double.
  void (*step)(DType dtype, const void* before, const void* after, int64_t size, double* half_norm,
               double* change);
  // grad += of_norm * state; returns the product of what grad was with the state.
  double (*pass)(DType dtype, const void* state, int64_t size, double of_norm, void* grad);
};

SYNOPS_KERNELS(HopfieldKernels, hopfield)

}  // namespace synops
