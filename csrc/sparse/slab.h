// slab: between dense matrices and slabs, and between the two orders of values (bodies in
// slab.inc).
//
// A slab is a batch block of a matrix turned feature-major in the arithmetic type (float, or double
// for float64): slab[k * width + b] holds x[b, k], zero for the rows past the end of the batch.
#pragma once

#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

struct SlabKernels {
  // Batch rows in a vector.
  int64_t (*lanes)(DType dtype);
  // Columns [k0, k1) of x into the slab; width is a multiple of the lanes.
  void (*pack)(const Matrix& x, int64_t k0, int64_t k1, void* slab, int64_t width);
  // out[b, n] = activation(slab[(n - n0) * width + b] + bias[n]) for columns n0 <= n < n1. The slab
  // has room for n1 rounded up to the lanes.
  void (*write)(const void* slab, int64_t width, const Epilogue& e, const Matrix& out, int64_t n0,
                int64_t n1);
  // out[n] (+)= sum over the `width` batch rows of slab row n; rows are ld apart.
  void (*row_sums)(DType dtype, const void* slab, int64_t width, int64_t ld, void* out, int64_t n0,
                   int64_t n1, bool accumulate);
  // Values of tiles [t0, t1): from CSR order to the arithmetic type in the order of w, and back to
  // dtype. `at` is room for w.rows numbers.
  void (*arrange)(DType dtype, const void* values, const int32_t* crow, const Tiled& w, int64_t t0,
                  int64_t t1, int32_t* at, void* out);
  void (*restore)(DType dtype, const void* in, const int32_t* crow, const Tiled& w, int64_t t0,
                  int64_t t1, int32_t* at, void* values);
};

SYNOPS_KERNELS(SlabKernels, slab)

}  // namespace synops
