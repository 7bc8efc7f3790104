// The sparse family's ops as C++ functions on tensors, for the ops that are made of others.
#pragma once

#include <optional>
#include <tuple>

#include "common/tensor.h"

namespace synops {

// pattern.cpp
std::tuple<Tensor, Tensor> pattern_from_mask(const Tensor& mask);
Tensor pattern_rows(const Tensor& crow, const Tensor& col, int64_t in_features);  // row_ptr alone
std::tuple<Tensor, Tensor, Tensor, Tensor> pattern_plan(const Tensor& crow, const Tensor& col,
                                                        int64_t in_features);
Tensor pattern_gather(const Tensor& weight, const Tensor& row_ptr, const Tensor& col);
Tensor pattern_scatter(const Tensor& values, const Tensor& row_ptr, const Tensor& col,
                       int64_t in_features);

// sparse_linear.cpp
Tensor sparse_linear_rows(const Tensor& input, const Tensor& values,
                          const std::optional<Tensor>& bias, const Tensor& row_ptr,
                          const Tensor& col);
std::tuple<Tensor, Tensor, Tensor> sparse_linear_backward(const Tensor& grad, const Tensor& input,
                                                          const Tensor& values,
                                                          const Tensor& row_ptr, const Tensor& col,
                                                          const Tensor& col_ptr, const Tensor& row,
                                                          const Tensor& perm, bool need_input,
                                                          bool need_values, bool need_bias);

}  // namespace synops
