// The sparse family's ops as C++ functions on tensors, for the ops that are made of others.
#pragma once

#include <optional>
#include <tuple>

#include "common/tensor.h"

namespace synops {

// pattern.cpp
std::tuple<Tensor, Tensor> pattern_from_mask(const Tensor& mask);
std::tuple<Tensor, Tensor> pattern_rows(const Tensor& crow, const Tensor& col, int64_t in_features);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pattern_plan(const Tensor& crow,
                                                                const Tensor& col,
                                                                int64_t in_features);
Tensor pattern_gather(const Tensor& weight, const Tensor& crow, const Tensor& col);
Tensor pattern_scatter(const Tensor& values, const Tensor& crow, const Tensor& col,
                       int64_t in_features);

// A Pattern's tensors, as every op of this family takes them.
struct PatternArgs {
  const Tensor& crow;      // (out + 1,) int32
  const Tensor& col;       // (nnz,) int32
  const Tensor& row_ptr;   // (tiles * out + 1,) int32
  const Tensor& tile_col;  // (nnz,) int16
  const Tensor& col_ptr;   // (tiles * in + 1,) int32
  const Tensor& tile_row;  // (nnz,) int16
  const Tensor& perm;      // (nnz,) int32
  const Tensor& bits;      // (out, in / 64 rounded up) int64, or without elements
  int64_t block_rows = 1;  // RowBlocks
  int64_t block_step = 1;
};

// sparse_linear.cpp
Tensor sparse_product(const Tensor& input, const Tensor& values, const std::optional<Tensor>& bias,
                      const PatternArgs& p, int64_t activation, bool feature_major);
std::tuple<Tensor, Tensor, Tensor> sparse_gradients(const Tensor& grad, const Tensor& input,
                                                    const Tensor& values, const PatternArgs& p,
                                                    bool need_input, bool need_values,
                                                    bool need_bias);

}  // namespace synops
