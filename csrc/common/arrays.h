// Flat-array kernels that several ops need (bodies in arrays.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

struct ArrayKernels {
  // out[i] = in[i], from dtype to its arithmetic type.
  void (*widen)(DType dtype, const void* in, int64_t n, void* out);
  // out[i] = in[index[i]], likewise, for n indices into `size` elements; false when one is out of
  // range (nothing outside is read: checking here saves a pass over the indices).
  bool (*permute)(DType dtype, const void* in, int64_t size, const int32_t* index, int64_t n,
                  void* out);
  // out[i] = in[i] from the arithmetic type back to dtype.
  void (*narrow)(DType dtype, const void* in, int64_t n, void* out);
  // True when lo <= p[i] < hi for all i.
  bool (*in_range)(const int32_t* p, int64_t n, int32_t lo, int32_t hi);
  // The largest of n numbers, -1 for none.
  int64_t (*highest)(const uint16_t* p, int64_t n);
  // True when p[i] <= q[i] for all i.
  bool (*not_above)(const int32_t* p, const int32_t* q, int64_t n);
};

SYNOPS_KERNELS(ArrayKernels, array)

}  // namespace synops
