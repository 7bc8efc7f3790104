// The sparse products on raw pointers, split over torch's threads. Implemented in product.cpp
// and gradients.cpp.
#pragma once

#include "sparse/formats.h"

namespace synops {

// Below this many rows a slab does not pay: a vector of batch rows would be mostly padding. Inputs
// of so few rows are row-major.
constexpr int64_t kFewRows = 4;

// A weight as the ops receive it: both orders of its rows, and what they have in common.
struct Weight {
  Csr csr;
  Tiled rows;
  RowBlocks blocks = {};
  const uint64_t* bits = nullptr;  // (rows, cols / 64 rounded up) bits, or null
};

// out[b, n] = activation(sum over the entries of row n + bias[n]). values: in the type of x, in CSR
// order. False when an index that is read lies outside; out is not to be used then.
[[nodiscard]] bool product(const Weight& w, const void* values, const Matrix& x, const Epilogue& e,
                           const Matrix& out);

// What a backward pass computes; a null pointer is a gradient that nobody wants.
struct Gradients {
  Weight w;
  Tiled columns = {};             // read for grad_input only
  const int32_t* perm = nullptr;  // likewise: CSR position of each entry of columns
  const void* values = nullptr;   // likewise: in the type of g, in CSR order
  Matrix g = {};                  // (batch, out)
  Matrix x = {};                  // (batch, in)
  Matrix grad_input = {};         // (batch, in)
  void* grad_values = nullptr;    // (nnz,), in the type of g, in CSR order
  void* grad_bias = nullptr;      // (out,), likewise
};

// Likewise.
[[nodiscard]] bool gradients(const Gradients& a);

}  // namespace synops
