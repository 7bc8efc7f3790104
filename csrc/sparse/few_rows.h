// few_rows: the products for batches of a few rows (bodies in few_rows.inc). x, g and out are
// row-major (out may be feature-major), values in the arithmetic type.
#pragma once

#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

struct FewRowsKernels {
  // out[b, n] = activation(sum_j values[j] * x[b, column of j] + bias[n]) for rows n0 <= n < n1.
  // False when a column lies outside.
  bool (*spmv)(const Csr& w, const void* values, const Matrix& x, const Epilogue& e,
               const Matrix& out, int64_t n0, int64_t n1);
  // Values in the order of w; columns are not looked at.
  void (*spmv_tiled)(const Tiled& w, const void* values, const Matrix& x, const Epilogue& e,
                     const Matrix& out, int64_t n0, int64_t n1);
  // By a bit for each element of the weight, `words` 64-bit words a row; float32 only. False, and
  // nothing written, when the bits are not as many as the entries of a row. Null where this set of
  // instructions has no fast way.
  bool (*spmv_bits)(const Csr& w, const uint64_t* bits, int64_t words, const void* values,
                    const Matrix& x, const Epilogue& e, const Matrix& out, int64_t n0, int64_t n1);
  // grad[j] = sum_b g[b, row of j] * x[b, column of j], grad_bias[n] = sum_b g[b, n]; either null.
  void (*outer)(const Csr& w, const Matrix& g, const Matrix& x, void* grad, void* grad_bias,
                int64_t n0, int64_t n1);
};

SYNOPS_KERNELS(FewRowsKernels, few_rows)

}  // namespace synops
