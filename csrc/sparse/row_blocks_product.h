// The sparse products of a weight whose rows have equal columns in blocks. Implemented in
// row_blocks_product.cpp.
#pragma once

#include "sparse/product.h"

namespace synops {

// Whether the blocks of w are what a product with x goes by.
bool row_blocks_pay(const Weight& w, const Matrix& x);

// As product() and gradients(); the columns of a row are those of the first row of its block, and
// the transpose is not read.
[[nodiscard]] bool row_blocks_product(const Weight& w, const void* values, const Matrix& x,
                                      const Epilogue& e, const Matrix& out);
[[nodiscard]] bool row_blocks_gradients(const Gradients& a);

}  // namespace synops
