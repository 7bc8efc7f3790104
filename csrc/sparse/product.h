// The three sparse products on raw pointers, split over torch's threads: what sparse_linear and
// masked_linear have in common. Implemented in sparse_linear.cpp.
#pragma once

#include "sparse/sparse_linear.h"

namespace synops {

// out[b, n] = sum over the entries of row n of w + bias[n]; values in the arithmetic type.
// `in` is the number of columns of w and of x.
void product(const Compressed& w, const void* values, const Matrix& x, int64_t in,
             const void* bias, const Matrix& out);

// grad[j] = sum_b g[b, row of j] * x[b, index[j]] and grad_bias[n] = sum_b g[b, n], both in the
// arithmetic type; either may be null.
void value_gradient(const Compressed& w, const Matrix& g, const Matrix& x, int64_t in, void* grad,
                    void* grad_bias);

}  // namespace synops
