// The sparse products on raw pointers, split over torch's threads. Implemented in product.cpp.
#pragma once

#include "sparse/sparse_linear.h"

namespace synops {

// out[b, n] = sum over the entries of row n of w + bias[n]. values: in the arithmetic type, in the
// order of w. in: columns of w and of x. bias: null, or in the type of out.
void product(const Compressed& w, const void* values, const Matrix& x, int64_t in, const void* bias,
             const Matrix& out);

// What a backward pass computes; a null pointer is a gradient that nobody wants.
struct Gradients {
  Compressed w;                  // rows of the weight; rows = out
  Compressed wt;                 // its columns; rows = in; read for grad_input only
  const void* values = nullptr;  // arithmetic type, in the order of wt
  Matrix g = {};                 // (batch, out)
  Matrix x = {};                 // (batch, in)
  Matrix grad_input = {};        // (batch, in)
  void* grad_values = nullptr;   // (nnz,), arithmetic type, in the order of w
  void* grad_bias = nullptr;     // (out,), arithmetic type
};

void gradients(const Gradients& a);

}  // namespace synops
