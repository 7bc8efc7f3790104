// sparse_linear: the raw-pointer kernels behind the op (bodies in sparse_linear.inc).
//
// A slab is a batch block of a row-major matrix turned feature-major: slab[k * width + b] holds
// x[b, k], zero for the rows past the end of the batch. Slabs and values are in the arithmetic type
// (float, or double for float64); what the caller owns is in its own element type.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Compressed rows (or columns) with tile pointers: entries of row n whose column lies in tiles
// [t, u) are index[ptr[t * rows + n]] .. index[ptr[u * rows + n] - 1].
struct Compressed {
  const int32_t* ptr;    // (tiles + 1, rows)
  const int32_t* index;  // (nnz,)
  int64_t rows;
  int64_t tiles;
  int64_t nnz;

  const int32_t* end() const { return ptr + tiles * rows; }
};

struct Matrix {
  DType dtype;
  void* data;
  int64_t ld;    // elements from one row to the next
  int64_t rows;  // of this batch block
};

struct SparseLinearKernels {
  // Batch rows of a slab when there are `batch` rows in all: 1, 2 or 4 vectors, at most `most`.
  int64_t (*width)(DType dtype, int64_t batch, int64_t most);
  // Columns [k0, k1) of x into the slab.
  void (*pack)(const Matrix& x, int64_t k0, int64_t k1, void* slab, int64_t width);
  // out[b, n] = sum_j values[j] * slab[index[j], b] + bias[n] for rows n0 <= n < n1.
  // `partial` holds (n1 - n0 rounded up to 16) * width arithmetic elements.
  void (*spmm)(const Compressed& w, const void* values, const void* slab, int64_t width,
               const void* bias, const Matrix& out, int64_t n0, int64_t n1, void* partial);
  // grad[j] (+)= sum_b g[n, b] * x[index[j], b] for the entries of rows n0 <= n < n1.
  void (*sddmm)(DType dtype, const Compressed& w, const void* g, const void* x, int64_t width,
                void* grad, int64_t n0, int64_t n1, bool accumulate);
  // out[n] (+)= sum_b g[n, b].
  void (*row_sums)(DType dtype, const void* g, int64_t width, void* out, int64_t n0, int64_t n1,
                   bool accumulate);
  // The same two products without slabs, for batches of a few rows: x and out are row-major.
  void (*spmv)(const Compressed& w, const void* values, const Matrix& x, const void* bias,
               const Matrix& out, int64_t n0, int64_t n1);
  void (*outer)(const Compressed& w, const Matrix& g, const Matrix& x, void* grad, void* grad_bias,
                int64_t n0, int64_t n1);
};

SYNOPS_KERNELS(SparseLinearKernels, sparse_linear)

}  // namespace synops
