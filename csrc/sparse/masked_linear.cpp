// masked_linear (CPU): a dense weight behind a bool mask, by way of the sparse products.
//
// The mask is indexed on every call (0.2 ms for 1024 x 1024 at density .1; the transposed index of
// the backward 0.5 ms), because a bool tensor may change between calls: a Pattern is the form that
// is indexed once. The weight is read at kept entries only, and its gradient is written in one
// pass.
#include "sparse/ops.h"

namespace synops {
namespace {

void check_mask(const Tensor& weight, const Tensor& mask, const Tensor& input, const char* op) {
  STD_TORCH_CHECK(weight.dim() == 2, op, ": weight must have 2 dimensions, got ", weight.dim());
  check_tensor(mask, ScalarType::Bool, 2, op, "mask");
  check_size(mask.size(0), weight.size(0), op, "mask", "size 0");
  check_size(mask.size(1), weight.size(1), op, "mask", "size 1");
  STD_TORCH_CHECK(input.dim() == 2, op, ": input must be a matrix");
  check_size(input.size(1), weight.size(1), op, "input", "size 1");
}

Tensor no_bits() { return empty({0, 0}, ScalarType::Long); }

Tensor masked_linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                     const Tensor& mask) {
  check_mask(weight, mask, input, "masked_linear");
  check_tensor(weight, input.scalar_type(), 2, "masked_linear", "weight");
  const auto [crow, col] = pattern_from_mask(mask);
  const auto [row_ptr, tile_col] = pattern_rows(crow, col, weight.size(1));
  // the transpose is not read by a forward pass
  return sparse_product(input, pattern_gather(weight, crow, col), bias,
                        {crow, col, row_ptr, tile_col, row_ptr, tile_col, col, no_bits()}, 0,
                        false);
}

std::tuple<Tensor, Tensor, Tensor> masked_linear_backward(const Tensor& grad, const Tensor& input,
                                                          const Tensor& weight, const Tensor& mask,
                                                          bool need_input, bool need_weight,
                                                          bool need_bias) {
  check_mask(weight, mask, input, "masked_linear_backward");
  const int64_t in = weight.size(1);
  const auto [crow, col] = pattern_from_mask(mask);
  const auto [row_ptr, tile_col, col_ptr, tile_row, perm] = pattern_plan(crow, col, in);
  // The weight is read for the gradient of the input only; else only its shape may be meant.
  const Tensor values =
      need_input ? pattern_gather(weight, crow, col) : empty({col.size(0)}, weight.scalar_type());
  const auto [grad_input, grad_values, grad_bias] = sparse_gradients(
      grad, input, values, {crow, col, row_ptr, tile_col, col_ptr, tile_row, perm, no_bits()},
      need_input, need_weight, need_bias);
  const Tensor grad_weight = need_weight ? pattern_scatter(grad_values, crow, col, in)
                                         : empty({0, 0}, weight.scalar_type());
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("masked_linear", TORCH_BOX(&synops::masked_linear));
  m.impl("masked_linear_backward", TORCH_BOX(&synops::masked_linear_backward));
}
