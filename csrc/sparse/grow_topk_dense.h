// grow_topk of scores that exist: the raw-pointer kernels (bodies in grow_topk_dense.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Room that a filter may write to behind what it finds.
constexpr int64_t kFilterSlack = 16;

struct GrowDenseKernels {
  // |scores[index]|, -inf for NaN.
  double (*magnitude)(DType dtype, const void* scores, int64_t index);
  // Columns of a row, in order, and their magnitudes (in the arithmetic type), where `present` is 0
  // and the magnitude is at least `least`. Returns how many; there is room for all and
  // kFilterSlack more, and as many bytes of `present`.
  int64_t (*filter)(DType dtype, const void* row, int64_t cols, const uint8_t* present,
                    double least, int32_t* col, void* magnitudes);
};

SYNOPS_KERNELS(GrowDenseKernels, grow_dense)

}  // namespace synops
