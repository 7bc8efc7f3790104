// Compressed rows as selection and indexing need them: in order, which no product looks at.
#pragma once

#include "sparse/compressed.h"
#include "sparse/pattern.h"

namespace synops {

// crow and col with columns that ascend inside each row.
inline Csr sorted_csr(const Tensor& crow, const Tensor& col, int64_t in_features, const char* op) {
  STD_TORCH_CHECK(in_features < kMaxIndex && crow.numel() < kMaxIndex, op,
                  ": sizes must fit in int32");
  const Csr w = csr_unchecked(crow, col, in_features, op);
  const int64_t bad = pattern_kernels().first_unsorted(w);
  STD_TORCH_CHECK(bad < 0, op, ": col must ascend strictly inside each row and lie in [0, ",
                  in_features, "), got ", bad < 0 ? 0 : w.col[bad], " at position ", bad);
  return w;
}

}  // namespace synops
