// sparse_linear: the raw-pointer kernels of the products (bodies in sparse_linear.inc).
#pragma once

#include <algorithm>

#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

// A batch block, feature-major in the arithmetic type: entry (b, k) at data[k * ld + b], for
// `width` batch rows (1, 2, 4 or 8 vectors).
struct Slab {
  const void* data;
  int64_t ld;
  int64_t width;
};

// Rows whose sums wait in L2 while the tiles pass: 256 KB in slabs of four vectors of float32.
constexpr int64_t kPartialRows = 1024;

// Slab rows of working memory that spmm needs for `rows` rows of w.
inline int64_t partial_rows(const Tiled& w, int64_t rows) {
  return w.tiles == 1 ? 16 : (std::min(rows, kPartialRows) + 15) / 16 * 16;
}

struct SparseLinearKernels {
  // out[b, n] = activation(sum_j values[j] * slab[column of j, b] + bias[n]) for rows n0 <= n < n1
  // of w. `partial` holds partial_rows(w, n1 - n0) * width arithmetic elements.
  void (*spmm)(const Tiled& w, const void* values, const Slab& x, const Epilogue& e,
               const Matrix& out, int64_t n0, int64_t n1, void* partial);
  // The same in CSR order, for slabs of one vector. False when a column lies outside.
  bool (*spmm_csr)(const Csr& w, const void* values, const Slab& x, const Epilogue& e,
                   const Matrix& out, int64_t n0, int64_t n1);
  // grad[j] (+)= sum_b g[row of j, b] * x[column of j, b] for rows n0 <= n < n1, in the order of w.
  void (*sddmm)(DType dtype, const Tiled& w, const Slab& g, const Slab& x, void* grad, int64_t n0,
                int64_t n1, bool accumulate);
};

SYNOPS_KERNELS(SparseLinearKernels, sparse_linear)

}  // namespace synops
