// row_blocks: the products of a weight whose rows have equal columns, several at a time (bodies in
// row_blocks.inc).
//
// A panel is `lanes` rows of one block: their values stand in one vector for each column. All
// arrays but values and g are in the arithmetic type.
#pragma once

#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

// Rows first + i * step for i < lanes; `count` columns.
struct Panel {
  const int32_t* col;   // (count,)
  const int32_t* crow;  // of the whole weight: values of row n begin at crow[n]
  int64_t count;
  int64_t first;
  int64_t step;
};

struct RowBlockKernels {
  // Rows of a panel, and batch rows of a slab.
  int64_t (*lanes)(DType dtype);
  int64_t (*width)(DType dtype);
  // Values in CSR order -> w[j * lanes + i], and what to add to them back.
  void (*gather)(DType dtype, const void* values, const Panel& p, void* w);
  void (*scatter)(DType dtype, const void* w, const Panel& p, bool accumulate, void* values);
  // out[b, row i] = activation(sum_j w[j, i] * slab[col j, b] + bias[row i])
  void (*forward)(const Panel& p, const void* w, const void* slab, const Epilogue& e,
                  const Matrix& out);
  // grad[col j, b] += sum_i w[j, i] * slab[row i, b], both slabs of one batch block.
  void (*input_gradient)(DType dtype, const Panel& p, const void* w, const void* slab, void* grad);
  // grad[j, i] (+)= sum_b slab[col j, b] * g[row i, b]; g as a slab.
  void (*value_gradient)(DType dtype, const Panel& p, const void* slab, const void* g,
                         bool accumulate, void* grad);
};

SYNOPS_KERNELS(RowBlockKernels, row_blocks)

}  // namespace synops
